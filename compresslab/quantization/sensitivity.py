r"""How much a layer hurts when it is quantized: measured, or estimated from the curvature of the loss.

Measuring is exact for one layer at a time and takes a pass over the data for every layer and width. The
estimate takes one set of Hessian-vector products for all of them: near a minimum an error :math:`\delta` in
the weights of a layer raises the loss by :math:`\frac12 \delta^\top H \delta`, and if rounding errors point
nowhere in particular, that is :math:`\frac12 \|\delta\|^2` times the mean curvature
:math:`\mathrm{Tr}(H) / n`.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compresslab.core.codes import UniformCode, WeightCode
from compresslab.core.errors import check_int, where
from compresslab.core.layers import decompress, encode
from compresslab.core.modules import bake, named_layers
from compresslab.core.train import device_of, evaluating

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Errors = dict[str, dict[int, float]]  # layer -> bits -> what it costs
MakeBits = Callable[..., WeightCode]  # (weight, bits=b) -> code

PER_CHANNEL = partial(UniformCode.from_dense, axis=0)


def measured_sensitivity(
    model: nn.Module,
    batches: Batches,
    bits: Collection[int] = (2, 4, 8),
    *,
    make_code: MakeBits = PER_CHANNEL,
    loss: Loss = F.cross_entropy,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> Errors:
    r"""The rise of the loss when one layer alone is quantized: :math:`L(\dots, Q_b(w_l), \dots) - L(w)`.

    Args:
        model: the trained network; it is not changed.
        batches: (inputs, targets); used once for every layer and width.
        bits: the widths to try.
        make_code: (weight, bits=b) -> code; a symmetric grid per output channel by default.
        loss: (outputs, targets) -> scalar, a mean over the batch.
        only, skip: names of layers, as in ``named_layers``.

    Returns:
        layer -> bits -> rise; it may be negative by a little.

    Raises:
        TypeError, ValueError: a width that ``make_code`` refuses, no width, no layer, an unknown layer, no
            data.
    """
    batches, widths, layers = list(batches), _checked_widths(bits), _weight_layers(model, only, skip)
    plain = bake(model)
    base = mean_loss(plain, batches, loss)

    def rise(name: str, b: int) -> float:
        one = decompress(encode(plain, {name: partial(make_code, bits=b)}))
        return mean_loss(one, batches, loss) - base

    return {name: {b: rise(name, b) for b in widths} for name in layers}


def mean_loss(model: nn.Module, batches: Batches, loss: Loss = F.cross_entropy) -> float:
    """The loss averaged over all examples, in eval mode; the model is left as it was.

    Raises:
        ValueError: there is no example.
    """
    total, count, device = 0.0, 0, device_of(model)
    with evaluating(model):
        for x, y in batches:
            total += len(x) * loss(model(x.to(device)), y.to(device)).item()
            count += len(x)
    if not count:
        raise ValueError("no calibration data: batches is empty")
    return total / count


def hutchinson_trace(
    model: nn.Module,
    batches: Batches,
    probes: int = 32,
    *,
    loss: Loss = F.cross_entropy,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    seed: int = 0,
) -> dict[str, float]:
    r"""Trace of the Hessian of each layer's weight, from products with random signs.

    .. math:: \mathrm{Tr}(H_l) = \mathbb E\,[v_l^\top (H v)_l], \qquad v_i = \pm 1 \text{ with equal chance}

    :math:`Hv` is the gradient of :math:`v^\top \nabla L`: two backward passes, and the Hessian is never
    formed. One v over all layers serves them all: what couples different layers is zero on average.

    Args:
        model: the trained network, differentiated in eval mode; it is not changed.
        batches: (inputs, targets); the loss is the mean over all of them.
        probes: how many v to draw for each batch, at least 1. The error falls with the square root of all
            draws.
        loss: (outputs, targets) -> scalar, a mean over the batch, twice differentiable.
        only, skip: names of layers, as in ``named_layers``.
        seed: of the signs.

    Returns:
        layer -> trace; for a network that is not at a minimum it can be negative.

    Raises:
        TypeError, ValueError: ``probes`` is no whole number of at least 1, no layer, an unknown layer, no
            data.

    Source:
        M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
        splines", 1990; Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural
        Networks", NeurIPS 2020.
    """
    check_int("probes", probes, 1)
    batches, net = list(batches), bake(model).eval()
    layers = _weight_layers(net, only, skip)
    weights = [layer.weight for layer in layers.values()]
    examples = sum(len(x) for x, _ in batches)
    if not examples:
        raise ValueError("no calibration data: batches is empty")
    for weight in weights:
        weight.requires_grad_(True)
    generator, traces = torch.Generator().manual_seed(seed), np.zeros(len(weights))
    for x, y in batches:
        value = loss(net(x.to(weights[0].device)), y.to(weights[0].device))
        slopes = torch.autograd.grad(value, weights, create_graph=True, materialize_grads=True)
        for _ in range(probes):
            v = [_random_signs(weight, generator) for weight in weights]
            along = sum((g * signs).sum() for g, signs in zip(slopes, v, strict=True))
            if along.requires_grad:  # else the loss is linear in the weights: no curvature at all
                products = torch.autograd.grad(along, weights, retain_graph=True, materialize_grads=True)
                found = [(p * signs).sum().item() for p, signs in zip(products, v, strict=True)]
                traces += np.array(found) * len(x) / examples / probes
    return dict(zip(layers, traces.tolist(), strict=True))


def _random_signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    return (2 * torch.randint(0, 2, weight.shape, generator=generator) - 1).to(weight)


def quantization_errors(
    model: nn.Module,
    bits: Collection[int] = (2, 4, 8),
    *,
    make_code: MakeBits = PER_CHANNEL,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> Errors:
    r"""The squared error of each layer's weight at each width, :math:`\|Q_b(w_l) - w_l\|^2`; no data.

    Args:
        model, bits, make_code, only, skip: as in ``measured_sensitivity``.

    Raises:
        TypeError, ValueError: a width that ``make_code`` refuses, no width, no layer, an unknown layer.
    """
    plain = bake(model)
    layers, errors = _weight_layers(plain, only, skip), {}
    for b in _checked_widths(bits):
        coded = encode(plain, partial(make_code, bits=b), only=list(layers))
        for name, layer in layers.items():
            error = coded.get_submodule(name).weight.double() - layer.weight.detach().double()
            errors.setdefault(name, {})[b] = error.square().sum().item()
    return errors


def hessian_errors(errors: Errors, traces: Mapping[str, float], sizes: Mapping[str, int]) -> Errors:
    r"""What quantization costs by second order, if the Hessian is a multiple of one: HAWQ-V2's objective.

    .. math:: \Omega_l(b) = \tfrac12\, \frac{\mathrm{Tr}(H_l)}{n_l}\, \|Q_b(w_l) - w_l\|^2

    At a minimum, where the gradient vanishes, this is the expected rise of the loss for an error of that
    length in a random direction.

    Args:
        errors: layer -> bits -> squared error, from ``quantization_errors``.
        traces: layer -> trace, from ``hutchinson_trace``; negative ones count as zero.
        sizes: layer -> number of weights, from ``layer_sizes``.

    Raises:
        ValueError: a layer has no trace or size, or none that is finite and positive.

    Source:
        Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS 2020.
    Differs: the paper leaves the factor one half out, which changes no choice.

    Example:
        >>> hessian_errors({"fc": {2: 0.5, 4: 0.25}}, {"fc": 40.0}, {"fc": 10})
        {'fc': {2: 1.0, 4: 0.5}}
    """
    check_errors(errors, sizes)
    missing = [name for name in errors if not math.isfinite(traces.get(name, math.nan))]
    if missing:
        raise ValueError(f"there must be a finite trace for every layer, got none{where(missing[0])}")
    factors = {name: 0.5 * max(traces[name], 0.0) / sizes[name] for name in errors}
    return {name: {b: factors[name] * e for b, e in row.items()} for name, row in errors.items()}


def layer_sizes(
    model: nn.Module, *, only: Collection[str] | None = None, skip: Collection[str] = ()
) -> dict[str, int]:
    """Layer -> how many weights it has, biases not counted.

    Example:
        >>> layer_sizes(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        {'0': 12, '2': 6}
    """
    return {name: layer.weight.numel() for name, layer in _weight_layers(model, only, skip).items()}


def _weight_layers(
    model: nn.Module, only: Collection[str] | None, skip: Collection[str]
) -> dict[str, nn.Module]:
    layers = named_layers(model, only=only, skip=skip)
    if not layers:
        raise ValueError("there is no Linear, Conv1d or Conv2d layer to quantize")
    return layers


def _checked_widths(bits: Collection[int]) -> list[int]:
    widths = [check_int("bits", b, 1) for b in bits]
    if not widths:
        raise ValueError("bits must name at least one width, got none")
    return widths


def check_errors(errors: Errors, sizes: Mapping[str, int]) -> None:
    """Raise unless there are layers, and each has widths, finite errors and a size."""
    if not errors:
        raise ValueError("errors must name at least one layer, got none")
    for layer, row in errors.items():
        if not row:
            raise ValueError(f"errors must offer at least one width, got none{where(layer)}")
        for b, error in row.items():
            check_int("bits", b, 1, layer=layer)
            if not math.isfinite(error):
                raise ValueError(f"errors must be finite, got {error} at {b} bits{where(layer)}")
        if layer not in sizes:
            raise ValueError(f"there is no size{where(layer)}")
        check_int("the size", sizes[layer], 1, layer=layer)
