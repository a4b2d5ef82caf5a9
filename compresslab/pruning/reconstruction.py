r"""Choose channels by the layer that reads them, and repair that layer: LASSO channel pruning and ThiNet.

Both look at the next layer's output as a sum over its input channels, :math:`Y=\sum_cX_cW_c^\top`, drop
the channels that it can spare, and let the others make up for them by least squares. All they need to
know about the data is the second moment of the inputs, ``H = X^T X`` summed over all positions
(``core.calibrate.input_moments``): for weights ``W`` and ``V`` the difference of the outputs is
:math:`\|XW^\top-XV^\top\|_F^2=\mathrm{tr}\,(W-V)H(W-V)^\top`.

Below, ``columns`` (n, k) lists the columns of ``W`` (O, I) that belong to each of ``n`` channels: for a
convolution the ``k`` = kernel size entries of its kernel.
"""

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, input_moments
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.modules import bake

from .channels import remove_channels
from .graph import ChannelGraph, ChannelGroup, trace_channels
from .slimming import soft_threshold


def contribution_gram(weight: Tensor, moments: Tensor, columns: Tensor) -> Tensor:
    r"""How much the channels' contributions to the output agree.

    .. math:: G_{cd}=\langle Z_c,Z_d\rangle,\qquad Z_c=X_cW_c^\top

    computed as block sums of :math:`(W^\top W)\odot H`, without ever forming :math:`Z`.

    Args:
        weight: ``W`` (O, I).
        moments: ``H`` (I, I).
        columns: (n, k).

    Returns:
        (n, n) float64. The whole output is the sum of all contributions, so
        :math:`\langle Z_c,Y\rangle=\sum_dG_{cd}`.
    """
    columns = columns.to(weight.device)
    weight = weight.double()[:, columns.flatten()]
    moments = moments.double()[columns.flatten()][:, columns.flatten()]
    n, k = columns.shape
    return ((weight.T @ weight) * moments).view(n, k, n, k).sum((1, 3))


def solve_lasso(gram: Tensor, correlation: Tensor, strength: float, *, tolerance: float = 1e-12) -> Tensor:
    r"""LASSO by coordinate descent.

    .. math:: \min_\beta\tfrac12\beta^\top G\beta-c^\top\beta+\lambda\|\beta\|_1,\qquad
        \beta_j\leftarrow\mathrm{prox}_\lambda\Bigl(c_j-\sum_{k\ne j}G_{jk}\beta_k\Bigr)/G_{jj}

    With :math:`G=Z^\top Z/N` and :math:`c=Z^\top y/N` this is
    :math:`\frac1{2N}\|y-Z\beta\|^2+\lambda\|\beta\|_1`, the objective of scikit-learn's ``Lasso``.

    Args:
        gram: ``G`` (n, n), positive semidefinite.
        correlation: ``c`` (n,).
        strength: :math:`\lambda`.
        tolerance: stop when no coordinate moves by more than this fraction of the largest.

    Returns:
        :math:`\beta` (n,) float64.

    Example:
        >>> solve_lasso(torch.eye(2), torch.tensor([3.0, 0.5]), 1.0)     # orthogonal: soft thresholding
        tensor([2., 0.], dtype=torch.float64)
    """
    gram, correlation = gram.double(), correlation.double()
    beta = torch.zeros_like(correlation)
    for _ in range(10_000):
        before = beta.clone()
        for j in range(len(beta)):
            if gram[j, j] > 0:
                rest = correlation[j] - gram[j] @ beta + gram[j, j] * beta[j]
                beta[j] = soft_threshold(rest, strength) / gram[j, j]
        if (beta - before).abs().max() <= tolerance * beta.abs().max():
            break
    return beta


def select_lasso(gram: Tensor, kept: int) -> Tensor:
    r"""The channels that LASSO keeps.

    .. math:: \min_\beta\frac1{2N}\Bigl\|Y-\sum_c\beta_cX_cW_c^\top\Bigr\|_F^2+\lambda\|\beta\|_1

    with :math:`\lambda` raised until ``kept`` of the :math:`\beta` are not zero (where several vanish
    at once, the largest stay).

    Args:
        gram: from :func:`contribution_gram`; its scale does not matter.
        kept: how many channels stay, 1 to n.

    Returns:
        (kept,) channel numbers, ascending.

    Source: Y. He, X. Zhang, J. Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017,
        section 3.1 (i).
    Differs: the paper alternates between beta and W and holds ||W_c||_F = 1; like its authors' code
        this solves for beta once, with the contributions scaled to length 1 (so that lambda charges all
        channels alike), then for W once.
    """
    check_int("kept", kept, 1, len(gram))
    length = gram.diagonal().clamp(min=0).sqrt()
    scale = torch.where(length > 0, length, 1.0)
    unit_gram, correlation = gram / scale[:, None] / scale, gram.sum(1) / scale
    low, high = 0.0, float(correlation.abs().max())  # at low enough many stay, at high nobody does
    best = solve_lasso(unit_gram, correlation, low, tolerance=1e-6)
    for _ in range(40):
        middle = (low + high) / 2
        beta = solve_lasso(unit_gram, correlation, middle, tolerance=1e-6)
        low, high, best = (middle, high, beta) if (beta != 0).sum() >= kept else (low, middle, best)
        if (best != 0).sum() == kept:
            break
    return best.abs().argsort(descending=True, stable=True)[:kept].sort().values


def select_thinet(gram: Tensor, kept: int) -> Tensor:
    r"""The channels that ThiNet keeps: greedily remove those whose contributions add up to least.

    .. math:: \arg\min_T\sum_i\Bigl(\sum_{j\in T}\hat x_{ij}\Bigr)^2
        =\arg\min_T\sum_{j,k\in T}G_{jk},\qquad |T|=n-\text{kept}

    Args, Returns: as :func:`select_lasso`.

    Source: J.-H. Luo, J. Wu, W. Lin, "ThiNet: A Filter Level Pruning Method for Deep Neural Network
        Compression", ICCV 2017, section 3.2.
    Differs: sums over all positions and outputs instead of a sample.

    Example:
        >>> x = torch.tensor([[1.0, -1.0, 3.0]])          # the first two cancel: nobody misses both
        >>> select_thinet(x.T @ x, 1)
        tensor([2])
    """
    check_int("kept", kept, 1, len(gram))
    gram = gram.double()
    removed = torch.zeros(len(gram), dtype=torch.bool)
    value, cross = torch.zeros((), dtype=torch.float64), torch.zeros(len(gram), dtype=torch.float64)
    for _ in range(len(gram) - kept):
        cost = (value + gram.diagonal() + 2 * cross).masked_fill(removed, torch.inf)
        j = int(cost.argmin())
        removed[j], value, cross = True, cost[j], cross + gram[j]
    return (~removed).nonzero().squeeze(1)


def rescale_channels(gram: Tensor, kept: Tensor) -> Tensor:
    r"""One factor per kept channel that brings the sum of contributions closest to the whole output.

    .. math:: \hat w=\arg\min_w\Bigl\|Y-\sum_{c\in S}w_cZ_c\Bigr\|^2=G_{SS}^{-1}G_{S\cdot}\mathbf 1

    Source: Luo et al., ICCV 2017, section 3.2 (minimizing the reconstruction error).
    """
    inside, target = gram[kept][:, kept], gram[kept].sum(1, keepdim=True)
    return torch.linalg.lstsq(inside, target, driver="gelsd").solution.squeeze(1)


def reconstruct_weight(weight: Tensor, moments: Tensor, kept_columns: Tensor, columns: Tensor) -> Tensor:
    r"""The weights on the kept columns that reproduce the old output best.

    .. math:: \arg\min_V\|X_AW_A^\top-X_SV^\top\|_F^2=W_AH_{AS}H_{SS}^{-1}

    Args:
        weight: ``W`` (O, I).
        moments: ``H`` (I, I).
        kept_columns: S, (s,).
        columns: A, (a,): the columns whose joint output is to be reproduced, S among them.

    Returns:
        ``V`` (O, s) float64.

    Source: He et al., ICCV 2017, section 3.1 (ii).
    """
    weight, moments = weight.double(), moments.double()
    target = moments[kept_columns][:, columns] @ weight[:, columns].T
    return torch.linalg.lstsq(moments[kept_columns][:, kept_columns], target, driver="gelsd").solution.T


SELECTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"lasso": select_lasso, "thinet": select_thinet}


def prune_reconstructed(
    model: nn.Module,
    example_input: Tensor,
    batches: Batches,
    ratio: float = 0.5,
    *,
    method: str = "lasso",
    keep: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` whose channels are chosen, and made up for, by the layer that reads them.

    It goes from the first layer to the last; each step sees the inputs that the network pruned so far
    produces. Groups that several layers read (residual streams), or a grouped convolution, stay whole.

    Args:
        model: any network that ``torch.fx`` can trace; not changed.
        example_input: an input (N, ...).
        batches: calibration inputs, or (x, y) pairs; a few hundred images.
        ratio: fraction in [0, 1] of the channels of each such group to remove; at least one stays.
        method: ``"lasso"`` reconstructs the reader's weights, ``"thinet"`` rescales them channel by channel.
        keep: names of layers to leave whole.

    Raises:
        ValueError: an unknown method, no group with a single reader, no data; else as ``trace_channels``.
    """
    check_fraction("ratio", ratio)
    if method not in SELECTIONS:
        raise ValueError(f"method must be one of {', '.join(SELECTIONS)}, got {method!r}")
    graph, small, batches = trace_channels(model, example_input, keep=keep), bake(model), list(batches)
    writers = [list(group.producers) for group in graph.groups if _reader(graph, group)]
    if not writers:
        network = type(model).__name__
        raise ValueError(f"nothing to reconstruct: no group of channels of {network} has one reader only")
    for own in writers:
        graph = trace_channels(small, example_input, keep=keep)
        group = next((group for group in graph.groups if list(group.producers) == own), None)
        if group is not None:
            small = _prune_group(small, graph, group, batches, ratio, method)
    return small


def _reader(graph: ChannelGraph, group: ChannelGroup) -> str | None:
    """The only layer that reads the group, if there is one and it has a full weight matrix."""
    if len(group.consumers) != 1:
        return None
    layer = next(iter(group.consumers))
    return None if layer in graph.grouped else layer


def _prune_group(
    model: nn.Module, graph: ChannelGraph, group: ChannelGroup, batches: Iterable, ratio: float, method: str
) -> nn.Module:
    reader = _reader(graph, group)
    layer = model.get_submodule(reader)
    moments = input_moments(model, [reader], batches)[reader].cpu()
    weight = layer.weight.detach().flatten(1).cpu()
    size = weight.shape[1] // layer.weight.shape[1]  # of the kernel
    columns = (group.consumers[reader].unsqueeze(2) * size + torch.arange(size)).flatten(1)  # (n, k)
    gram = contribution_gram(weight, moments, columns)
    kept = SELECTIONS[method](gram, max(1, len(group) - int(ratio * len(group) + 1e-9)))
    own = columns[kept].flatten()
    if method == "lasso":
        new = reconstruct_weight(weight, moments, own, columns.flatten())
    else:
        new = weight[:, own] * rescale_channels(gram, kept).repeat_interleave(columns.shape[1])
    weight[:, own] = new.to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight.view_as(layer.weight))
    stays = torch.zeros(len(group), dtype=torch.bool)
    stays[kept] = True
    gone = {name: channels[~stays].flatten().tolist() for name, channels in group.producers.items()}
    return remove_channels(model, graph, gone)
