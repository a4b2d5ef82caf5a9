r"""AdaRound: round each weight up or down so that the layer's output suffers least, not the weight.

Rounding to nearest is best for each weight alone. For a row of weights it is not: errors of opposite sign can
cancel in the sum, and which do depends on how the inputs go together, :math:`H = XX^\top`. A row of n weights
has :math:`2^n` roundings, too many to try, so AdaRound learns them: it makes the choice continuous, between 0
and 1, follows the gradient, and lets a regularizer drive every choice to one of the ends.
"""

import itertools
from collections.abc import Collection

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, input_moments
from compresslab.core.codes import UniformCode, check_weight
from compresslab.core.errors import check_int, naming
from compresslab.core.layers import encode
from compresslab.core.modules import bake, named_layers
from compresslab.core.uniform import FindRange, Grid, choose_scale, dequantize, min_max, to_rows

GAMMA, ZETA = -0.1, 1.1  # the sigmoid is stretched to (GAMMA, ZETA) and cut off at 0 and 1
MOST_ENUMERATED = 16


def rounding_error(weight: Tensor, q: Tensor, H: Tensor, grid: Grid) -> Tensor:
    r"""The error in a layer's outputs, row by row.

    .. math:: \|wX - \hat wX\|^2 = (w - \hat w)\,H\,(w - \hat w)^\top, \qquad \hat w = s\,(q - Z)

    Args:
        weight: (O, I).
        q: (O, I), the integers that stand for it.
        H: (I, I), :math:`XX^\top` of the inputs.
        grid: with a scale that broadcasts against ``weight``.

    Returns:
        (O,) float64.

    Example:
        >>> W, H = torch.tensor([[0.5, 0.5]]), torch.ones(2, 2)  # the two inputs are always equal
        >>> grid = choose_scale(-7.0, 7.0, bits=4, symmetric=True)
        >>> [rounding_error(W, torch.tensor([q]), H, grid).item() for q in ([0, 0], [0, 1])]
        [1.0, 0.0]
    """
    error = dequantize(q, grid).double() - weight.detach().double()
    return ((error @ H.double()) * error).sum(1)


def best_rounding(row: Tensor, scale: float, H: Tensor) -> tuple[Tensor, float]:
    r"""Try all :math:`2^n` ways to round a row up or down, and return the one of least output error.

    Args:
        row: (n,), at most 16 weights.
        scale: of the grid, symmetric and unbounded.
        H: (n, n), :math:`XX^\top` of the inputs.

    Returns:
        the integers, (n,) int32, and their error.

    Raises:
        ValueError: the row is too long, or shapes do not match.

    Example:
        >>> best_rounding(torch.tensor([0.5, 0.5, 0.25]), 1.0, torch.ones(3, 3))  # 1.25 in all: 1 is closest
        (tensor([1, 0, 0], dtype=torch.int32), 0.0625)
    """
    if row.ndim != 1 or not 0 < len(row) <= MOST_ENUMERATED or H.shape != (len(row),) * 2:
        shapes = f"{tuple(row.shape)} and {tuple(H.shape)}"
        raise ValueError(f"a row (n,) of 1 to {MOST_ENUMERATED} weights needs H (n, n), got {shapes}")
    row = row.detach().double()
    choices = torch.tensor(list(itertools.product((1, 0), repeat=len(row))), dtype=torch.float64)  # (2^n, n)
    q = torch.floor(row / scale) + choices
    error = q * scale - row
    cost = ((error @ H.double()) * error).sum(1)
    best = int(cost.argmin())
    return q[best].int(), cost[best].item()


def rectified_sigmoid(V: Tensor) -> Tensor:
    r""":math:`h(V) = \mathrm{clip}(\sigma(V)(\zeta - \gamma) + \gamma, 0, 1)`, which reaches 0 and 1.

    Example:
        >>> rectified_sigmoid(torch.tensor([-9.0, 0.0, 9.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    return (torch.sigmoid(V) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def adaround(
    weight: Tensor,
    H: Tensor,
    grid: Grid,
    *,
    steps: int = 500,
    lr: float = 0.02,
    lam: float = 10.0,
    beta: tuple[float, float] = (20.0, 2.0),
    warmup: float = 0.2,
) -> Tensor:
    r"""Choose for every weight whether to round it up or down.

    .. math:: \min_V \|WX - \hat W X\|_F^2 + \lambda \sum_{ij} \left(1 - |2 h(V_{ij}) - 1|^\beta\right),
              \qquad \hat W = s\,\mathrm{clip}\left(\lfloor W / s \rfloor + h(V), q_{min}, q_{max}\right)

    ``V`` starts where :math:`\hat W = W`. :math:`\beta` falls, so that the regularizer leaves the middle
    alone at first and no choice open in the end. With :math:`H = XX^\top` a step costs one product (O, I)
    (I, I), however many inputs there were.

    Args:
        weight: :math:`W`, (O, I).
        H: (I, I), from :func:`compresslab.core.calibrate.input_moments`.
        grid: its scale :math:`s` broadcasts against ``weight``: (O, 1) for one per row.
        steps: of Adam.
        lr: its learning rate.
        lam: :math:`\lambda`, where each row's error is measured in units of that of rounding to nearest, and
            the regularizer is a mean over the row.
        beta: first and last :math:`\beta`.
        warmup: fraction of the steps without regularizer.

    Returns:
        the integers, (O, I) int32. A row that nearest rounding serves better keeps it: none gets worse.

    Raises:
        ValueError: shapes that do not match; H not finite; ``steps`` below 0.

    Source: M. Nagel, R. A. Amjad, M. van Baalen, C. Louizos, T. Blankevoort, "Up or Down? Adaptive Rounding
        for Post-Training Quantization", ICML 2020, section 3.
    Differs: second moments in place of batches of inputs; the units of :math:`\lambda`; never worse than
        nearest; the activation function after the layer is not in the objective.

    Example:
        >>> W, H = torch.tensor([[0.45, 0.35]]), torch.ones(2, 2)  # the inputs are equal: only the sum counts
        >>> adaround(W, H, choose_scale(-7.0, 7.0, bits=4, symmetric=True), steps=100, lr=0.1)
        tensor([[1, 0]], dtype=torch.int32)
    """
    if weight.ndim != 2 or H.shape != (weight.shape[1],) * 2:
        raise ValueError(f"weight (O, I) needs H (I, I), got {tuple(weight.shape)} and {tuple(H.shape)}")
    if not torch.isfinite(H).all():
        raise ValueError("H must be finite, got nan or inf; check the calibration inputs")
    check_int("steps", steps, 0)
    ratio = check_weight(weight) / grid.scale
    nearest = _clip(torch.round(ratio), grid)
    cost = rounding_error(weight, nearest.int(), H, grid)
    fraction = ratio - torch.floor(ratio)
    V = torch.logit((fraction - GAMMA) / (ZETA - GAMMA)).requires_grad_()  # h(V) = fraction
    optimizer = torch.optim.Adam([V], lr=lr)
    H_float, unit = H.float(), cost.clamp(min=torch.finfo(torch.float32).tiny).float()
    for step in range(steps):
        h = rectified_sigmoid(V) * (fraction > 0)  # a weight that is on the grid stays there
        error = (_clip(torch.floor(ratio) + h, grid) - grid.zero_point - ratio) * grid.scale
        loss = (((error @ H_float) * error).sum(1) / unit).sum()
        done = (step / steps - warmup) / (1 - warmup) if warmup < 1 else 0.0
        if done >= 0:
            exponent = beta[1] + (beta[0] - beta[1]) * (1 - done)
            loss = loss + lam * (1 - (2 * h - 1).abs().pow(exponent)).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    up = (rectified_sigmoid(V.detach()) >= 0.5) & (fraction > 0)
    learned = _clip(torch.floor(ratio) + up, grid)
    better = rounding_error(weight, learned.int(), H, grid) < cost
    return torch.where(better.unsqueeze(1), learned, nearest).int()


def _clip(whole: Tensor, grid: Grid) -> Tensor:
    """Add the zero point and stay on the grid."""
    return torch.clamp(whole + grid.zero_point, grid.qmin, grid.qmax)


def encode_adaround(
    model: nn.Module,
    batches: Batches,
    bits: int = 4,
    *,
    group_size: int | None = None,
    symmetric: bool = True,
    find_range: FindRange = min_max,
    steps: int = 500,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` with weights coded by AdaRound, layer after layer.

    Each layer is fitted to its own output on the inputs that it gets in the network quantized so far.

    Args:
        model: a trained network; fold batch norm first for fewer parameters. Masks are baked in; zeros stay.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs; gone through once per layer.
        bits: 2 to 8.
        group_size: weights of a row that share a scale; None: one scale per output channel.
        symmetric, find_range: as in ``UniformCode.from_dense``.
        steps: of :func:`adaround` in each layer.
        only, skip: names of layers to code, or to leave. In a grouped convolution no two groups share inputs:
            such layers are rounded to nearest, on the same grid.

    Returns:
        a network whose Linear, Conv1d and Conv2d layers hold a ``UniformCode``.

    Raises:
        ValueError: an unknown layer name, ``bits`` or ``group_size`` out of range, no data, or none that
            reach a layer.

    Source: Nagel et al., ICML 2020.
    Differs: the target is the layer's output for the quantized network's inputs (the paper takes the original
        network's output, after the activation function).
    """
    current, batches = bake(model), list(batches)
    if not batches:
        raise ValueError("no calibration data: batches is empty")
    together: dict[int, list[str]] = {}  # layers that share a weight are rounded for the inputs of all
    for name, layer in named_layers(current, only=only, skip=skip).items():
        together.setdefault(id(layer.weight), []).append(name)
    codes: dict[str, UniformCode] = {}
    for first, *others in together.values():
        layer = current.get_submodule(first)
        options = {"group_size": group_size, "symmetric": symmetric, "find_range": find_range}
        H = None
        if getattr(layer, "groups", 1) == 1 and layer.weight.numel():
            moments = input_moments(current, [first, *others], batches)
            if not moments:
                raise ValueError(f"no calibration data reached layer '{first}'; skip it")
            H = sum(moments.values())
        code = _encode(first, layer.weight, H, bits, steps, **options)
        layer.weight.data.copy_(code.decode())
        codes[first] = code
    stored = {name: codes[names[0]] for names in together.values() for name in names}
    return encode(current, {name: lambda _, code=code: code for name, code in stored.items()})


def _encode(
    name: str,
    weight: Tensor,
    H: Tensor | None,
    bits: int,
    steps: int,
    *,
    group_size: int | None,
    symmetric: bool,
    find_range: FindRange,
) -> UniformCode:
    """The code of one weight; without ``H``, of its nearest integers."""
    with naming(name):
        if H is None:
            options = {"group_size": group_size, "symmetric": symmetric, "find_range": find_range}
            return UniformCode.from_dense(weight, bits, axis=0, **options)
        rows = to_rows(check_weight(weight), 0, group_size)  # (rows that share a scale, m)
        grid = choose_scale(*find_range(rows), bits, symmetric=symmetric)
        matrix = weight.detach().flatten(1)
        wide = [part.expand(rows.shape).reshape(matrix.shape) for part in grid[:2]]
        q = adaround(matrix, H, Grid(*wide, *grid[2:]), steps=steps)
        return UniformCode.from_rows(q.view(rows.shape), grid, weight.shape, axis=0)
