r"""The diagonal of the Hessian: how sharply the loss curves along each single weight.

Three ways to get it, from exact to cheap. With outputs :math:`z = f(x; w)` the Hessian of the loss splits
into

.. math:: \nabla^2 L = \underbrace{J^\top \nabla_z^2 L\; J}_{\text{Gauss-Newton}}
    + \sum_c \frac{\partial L}{\partial z_c} \nabla_w^2 z_c

The second term vanishes where the outputs fit the targets, or where the network is linear in its weights. The
first is never negative, and needs first derivatives only.
"""

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vjp, vmap

from compresslab.core.modules import bake
from compresslab.pruning.masks import weight_layers

Loss = Callable[[Tensor, Tensor], Tensor]
Diagonal = Callable[[nn.Module, str, Tensor, Tensor, Loss], Tensor]
EXACT_LIMIT = 4096


def exact_diagonal(net: nn.Module, name: str, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    r"""True diagonal, one Hessian-vector product per weight: :math:`h_{kk} = e_k^\top \nabla^2 L\, e_k`.

    Returns:
        The weight's shape; entries may be negative.

    Raises:
        ValueError: the layer has more than ``EXACT_LIMIT`` weights.
    """
    weight = net.get_submodule(name).weight.detach()
    if weight.numel() > EXACT_LIMIT:
        raise ValueError(
            f"the exact Hessian diagonal is for at most {EXACT_LIMIT} weights, got {weight.numel()} in layer "
            f"'{name}'; use curvature=\"gauss_newton\""
        )
    slope = grad(lambda w: loss(_forward(net, name, w, x), y))
    _, multiply = vjp(slope, weight)  # e -> (the Hessian times e,)
    units = torch.eye(weight.numel(), dtype=weight.dtype, device=weight.device).view(-1, *weight.shape)
    return vmap(lambda e: (e * multiply(e)[0]).sum(), chunk_size=64)(units).view_as(weight)


def gauss_newton_diagonal(net: nn.Module, name: str, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    r"""Diagonal of :math:`J^\top \nabla_z^2 L\, J`, exact, averaged over the batch.

    The small Hessian at the outputs is factored as :math:`S S^\top`, so that per example
    :math:`h_{kk} = \sum_c (J^\top s_c)_k^2`: as many backward passes as outputs.

    Returns:
        The weight's shape, non-negative.
    """
    weight = net.get_submodule(name).weight.detach()

    def one(example: Tensor, target: Tensor) -> Tensor:
        output, pull = vjp(lambda w: _forward(net, name, w, example.unsqueeze(0))[0], weight)
        curvature = jacrev(grad(lambda z: loss(z.unsqueeze(0), target.unsqueeze(0))))(output)  # (C, C)
        values, vectors = torch.linalg.eigh(curvature)
        roots = vectors * values.clamp_min(0).sqrt()  # S, its columns s_c
        return vmap(lambda s: pull(s)[0])(roots.T).square().sum(0)

    return _mean_over_batch(one, x, y)


def fisher_diagonal(net: nn.Module, name: str, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    r"""Empirical Fisher diagonal :math:`\frac1N \sum_n (\partial L_n / \partial w_k)^2`.

    The cheapest: one backward pass per example. Gradients that cancel over the batch do not cancel here.

    Returns:
        The weight's shape, non-negative.
    """
    weight = net.get_submodule(name).weight.detach()

    def one(example: Tensor, target: Tensor) -> Tensor:
        value = lambda w: loss(_forward(net, name, w, example.unsqueeze(0)), target.unsqueeze(0))  # noqa: E731
        return grad(value)(weight).square()

    return _mean_over_batch(one, x, y)


DIAGONALS: dict[str, Diagonal] = {
    "exact": exact_diagonal,
    "gauss_newton": gauss_newton_diagonal,
    "fisher": fisher_diagonal,
}


def hessian_diagonal(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    curvature: str = "gauss_newton",
    loss: Loss = F.cross_entropy,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> dict[str, Tensor]:
    r"""Diagonal :math:`h_{kk} = \partial^2 L / \partial w_k^2` of the mean loss, in eval mode.

    Args:
        model: the trained network; it is not changed.
        x: (N, ...) examples; a few hundred do.
        y: (N, ...) their targets.
        curvature: ``"exact"`` (small layers, may be negative), ``"gauss_newton"`` (the default; equal to the
            exact one for a network that is linear in the layer's weights), ``"fisher"`` (cheapest, crude once
            the data is fitted).
        loss: (outputs, targets) -> scalar, a mean over the batch.
        only: names of the layers to measure; None means all.
        skip: names of layers to leave out.

    Returns:
        layer name -> ``h`` in the weight's shape, per weight of the unmasked network.

    Raises:
        ValueError: an unknown curvature or layer name, no layer left, a layer too large for ``"exact"``.

    Source: Y. LeCun, J. S. Denker, S. A. Solla, "Optimal Brain Damage", NeurIPS 1989, section 2.1; the
    empirical Fisher in this place: L. Theis, I. Korshunova, A. Tejani, F. Huszar, "Faster gaze prediction
    with dense networks and Fisher pruning", 2018.
    Differs: the paper propagates second derivatives backward once and drops the off-diagonal terms at every
    layer; here the Gauss-Newton diagonal is exact, for more backward passes.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> half_square = lambda z, y: 0.5 * (z - y).square().sum(1).mean()
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> hessian_diagonal(layer, x, torch.zeros(2, 1), loss=half_square)[""]  # the mean of x squared
        tensor([[5., 2.]])
    """
    if curvature not in DIAGONALS:
        raise ValueError(f"curvature must be one of {', '.join(map(repr, DIAGONALS))}, got {curvature!r}")
    net = bake(model).eval()
    names = weight_layers(net, only, skip)
    return {name: DIAGONALS[curvature](net, name, x, y, loss) for name in names}


def _forward(net: nn.Module, name: str, weight: Tensor, x: Tensor) -> Tensor:
    """The network's output with another weight in one layer."""
    return functional_call(net, {f"{name}.weight".lstrip("."): weight}, (x,))


def _mean_over_batch(one: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Average ``one(example, target)`` over a batch, a few examples at a time."""
    total = 0
    for xs, ys in zip(x.split(16), y.split(16), strict=True):
        total = total + vmap(one)(xs, ys).sum(0)
    return total / len(x)
