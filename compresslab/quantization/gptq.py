r"""GPTQ: round one column after the other, and let the columns to come make up for the error.

Rounding to the nearest integer is best for each weight alone. But the weights of a row are summed over
correlated inputs, and what one of them loses the next can partly win back. GPTQ is Optimal Brain Surgeon with
one line changed: where SparseGPT sets a weight to zero, GPTQ sets it to its nearest grid point. The order of
the columns is fixed, so that all rows share one inverse Hessian, and one Cholesky factor holds it for all
columns.
"""

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, input_moments
from compresslab.core.codes import UniformCode, check_weight
from compresslab.core.errors import check_int
from compresslab.core.layers import CODED_LAYERS, encode
from compresslab.core.linalg import inverse_factor
from compresslab.core.modules import bake, named_layers
from compresslab.core.uniform import Grid, choose_scale, dequantize, min_max, quantize, to_rows


def gptq(
    weight: Tensor,
    H: Tensor,
    bits: int = 4,
    *,
    axis: int | None = 0,
    group_size: int | None = None,
    symmetric: bool = True,
    order: str | None = None,
    block: int = 128,
    damp: float = 0.01,
) -> tuple[Tensor, Grid]:
    r"""Round one weight matrix, column by column, with compensation in the columns to come.

    .. math:: w_{j:} \leftarrow w_{j:} - \frac{w_j - Q(w_j)}{U_{jj}} U_{j,j:}, \qquad H^{-1} = U^\top U

    The grid of a group is laid over its weights as they are when the group begins, updated by all before. If
    ``H`` is diagonal nothing is passed on, and this is rounding to the nearest.

    Args:
        weight: (O, I).
        H: (I, I), :math:`XX^\top` of the layer's inputs. An input that is always zero is left out of the
            compensation.
        bits: 2 to 8.
        axis: 0 for one scale per output row, None for one in all.
        group_size: one scale per ``group_size`` consecutive columns of each row.
        symmetric: as many grid points below zero as above it; else the grid has a zero point.
        order: None goes from left to right. ``"activation"`` takes the columns with the largest
            :math:`H_{jj}` first, while many are left to compensate; all grids are then laid over the
            original weights, as a group's columns come up at different times.
        block: columns between two updates of the rest of the matrix; rounded to a multiple of ``group_size``.
            It changes the speed, not the result.
        damp: share of the mean diagonal of ``H`` added to it.

    Returns:
        ``q`` (R, m), int32: the integers, one row per scale as ``to_rows`` has them, and their grid with
        ``scale`` (R, 1). ``UniformCode.from_rows(q, grid, weight.shape)`` stores them.

    Raises:
        TypeError: ``bits``, ``block`` or ``group_size`` is no whole number.
        ValueError: one of them is out of range, ``group_size`` does not divide I, another ``axis`` or
            ``order``, shapes that do not match, nan or inf, ``H`` not positive definite.

    Source: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate Post-Training Quantization for
    Generative Pre-trained Transformers", ICLR 2023, section 3 and algorithm 1. The order by activation came
    with the authors' code, after the paper.

    Example:
        >>> W, H = torch.tensor([[0.4, 0.4, 3.0]]), torch.ones(3, 3)  # three inputs that are always equal
        >>> q, grid = gptq(W, H, bits=3, damp=0.01)  # 0.4 -> 0: what is lost makes 0.8 of the second, 1
        >>> q, grid.scale
        (tensor([[0, 1, 3]], dtype=torch.int32), tensor([[1.]]))
    """
    W = _check(weight, H, bits, axis, order)
    width = max(W.shape[1], 1) if group_size is None else group_size
    rows = to_rows(W, axis, group_size)
    if W.numel() == 0:
        return rows.int(), choose_scale(*min_max(rows), bits, symmetric=symmetric)

    def lay_grid(part: Tensor) -> Grid:  # (O, columns of one group) -> a grid with scale (O, 1) or (1, 1)
        together = to_rows(part.float(), axis if group_size is None else 0)
        return choose_scale(*min_max(together), bits, symmetric=symmetric)

    grids = [lay_grid(part) for part in W.split(width, 1)]
    columns = torch.arange(W.shape[1], device=W.device)
    if order == "activation":
        columns = H.diagonal().argsort(descending=True, stable=True)
    elif group_size is not None:  # a group must have all that is owed to it when it begins
        block = max(check_int("block", block, 1) // width, 1) * width
    U = inverse_factor(_revive(H)[columns][:, columns], damp)
    renew = lay_grid if order is None else None
    q = _round_columns(W, U, columns, grids, renew, width, check_int("block", block, 1))
    scale = torch.cat([grid.scale for grid in grids], 1).view(-1, 1)
    zero_point = torch.cat([grid.zero_point for grid in grids], 1).view(-1, 1)
    return to_rows(q, axis, group_size), grids[0]._replace(scale=scale, zero_point=zero_point)


def _round_columns(
    W: Tensor,
    U: Tensor,
    columns: Tensor,
    grids: list[Grid],
    renew: Callable[[Tensor], Grid] | None,
    width: int,
    block: int,
) -> Tensor:
    """The loop of :func:`gptq`: integers (O, I), int32; ``renew`` lays ``grids`` anew where groups begin."""
    W, q = W[:, columns].double(), torch.zeros_like(W, dtype=torch.int32)
    for start in range(0, W.shape[1], block):
        stop = min(start + block, W.shape[1])
        errors = W.new_zeros(len(W), stop - start)
        for j in range(start, stop):
            if renew is not None and j % width == 0:
                grids[j // width] = renew(W[:, j : j + width])
            column = int(columns[j])
            grid = grids[column // width]
            q[:, column] = quantize(W[:, j : j + 1].float(), grid).flatten()
            rounded = dequantize(q[:, column : column + 1], grid).flatten()
            errors[:, j - start] = (W[:, j] - rounded) / U[j, j]
            W[:, j:stop] -= torch.outer(errors[:, j - start], U[j, j:stop])
        W[:, stop:] -= errors @ U[start:stop, stop:]  # the lazy update: all that this block owes to the right
    return q


def encode_gptq(
    model: nn.Module,
    batches: Batches,
    bits: int = 4,
    *,
    axis: int | None = 0,
    group_size: int | None = None,
    symmetric: bool = True,
    order: str | None = None,
    damp: float = 0.01,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` whose weights are rounded by GPTQ and stored.

    Layers go in order, each calibrated behind those already coded.

    Args:
        model: a trained network; masks are baked in.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs. More rows than inputs of the widest
            layer, or ``H`` rests on ``damp`` alone.
        bits, axis, group_size, symmetric, order, damp: as in :func:`gptq`, for the weight as a matrix (O, I)
            or (O, I * kh * kw).
        only, skip: names of layers to code, or to leave as they are. Grouped convolutions must be skipped,
            and so must layers that other modules use without calling them.

    Returns:
        A coded copy, of ``UniformCode``. A weight that several layers share is rounded once, for the inputs
        of the first.

    Raises:
        TypeError, ValueError: as :func:`gptq`, with the layer's name; an unknown layer name, nothing to code,
            a grouped convolution, no data.

    Source: Frantar et al., ICLR 2023.
    Differs: the paper rounds the linear layers of language models; a convolution counts as a linear layer on
    patches.
    """
    model, batches = bake(model), list(batches)

    def make_code(weight: Tensor, H: Tensor) -> UniformCode:
        q, grid = gptq(
            weight.flatten(1), H, bits,
            axis=axis, group_size=group_size, symmetric=symmetric, order=order, damp=damp,
        )  # fmt: skip
        return UniformCode.from_rows(q, grid, weight.shape)

    for name in layers_to_code(model, only, skip):
        holders = weight_holders(model, name)
        if holders:
            H = input_moments(model, [name], batches).get(name)
            if H is None:
                raise ValueError(f"no calibration data reached layer '{name}'; skip it")
            model = encode(model, partial(make_code, H=H), only=holders)
    return model


def layers_to_code(model: nn.Module, only: Collection[str] | None, skip: Collection[str]) -> list[str]:
    """The names of the linear and convolutional layers to code, in the model's order.

    Raises:
        ValueError: an unknown name, or nothing left to code.
    """
    names = list(named_layers(model, only=only, skip=skip))
    if not names:
        raise ValueError("nothing to code: no Linear, Conv1d or Conv2d layer is left by only and skip")
    return names


def weight_holders(model: nn.Module, name: str) -> list[str]:
    """The layers that hold the weight of this one, itself included; none where it is coded already."""
    layers = named_layers(model, tuple(CODED_LAYERS))
    if name not in layers:
        return []
    weight = layers[name].weight
    return [other for other, layer in layers.items() if getattr(layer, "weight", None) is weight]


def _revive(H: Tensor) -> Tensor:
    """``H`` with a positive diagonal where an input is always zero: nothing is passed on to or from there."""
    diagonal = H.diagonal()
    typical = diagonal.mean() if diagonal.any() else torch.ones_like(diagonal[0])
    return H + torch.diag(torch.where(diagonal == 0, typical, 0.0))


def _check(weight: Tensor, H: Tensor, bits: int, axis: int | None, order: str | None) -> Tensor:
    """The weight as float32, if :func:`gptq` can work with these."""
    check_int("bits", bits, 2, 8)
    weight = check_weight(weight)
    if weight.ndim != 2 or H.shape != (weight.shape[1],) * 2:
        raise ValueError(f"weight (O, I) needs H (I, I), got {tuple(weight.shape)} and {tuple(H.shape)}")
    if axis not in (0, None):
        raise ValueError(f"axis must be 0, a scale per output row, or None, got {axis!r}")
    if order not in (None, "activation"):
        raise ValueError(f'order must be None or "activation", got {order!r}')
    return weight
