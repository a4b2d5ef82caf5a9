r"""AWQ: make the weights of loud inputs larger before rounding, and smaller again afterwards.

About one input channel in a hundred carries most of the signal, and an error in its weights costs most.
Storing those weights in more bits would help, but mixes two formats. Multiplied by :math:`s > 1` before
rounding and divided by it afterwards, a weight keeps its value, while its rounding error shrinks by
:math:`s`: the step stays about what it was, as long as the weight is not the largest of its group.
"""

import math
from collections.abc import Collection
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, collect_inputs
from compresslab.core.codes import MakeCode, UniformCode, WeightCode, check_weight
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.layers import encode
from compresslab.core.modules import bake
from compresslab.quantization.gptq import layers_to_code, weight_holders


class InputScaledCode(WeightCode):
    r"""A weight stored as the code of a better conditioned one, and a scale for each input channel.

    .. math:: \hat W = Q(W\, \mathrm{diag}(s))\, \mathrm{diag}(s)^{-1}

    The scales take 32 bits per input channel. In a network where a normalisation or a linear layer comes just
    before, they could be folded into that and cost nothing; this code asks nothing of the layer before.

    Args:
        scaled: any code of :math:`W\, \mathrm{diag}(s)`, of shape ``shape``.
        input_scale: :math:`s`, floating-point, (I,), positive.
        shape: shape of the weight, (O, I) or (O, I, ...).

    Raises:
        ValueError: ``scaled`` has another shape, or ``input_scale`` is not one positive number per input.

    Source: J. Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration",
    MLSys 2024, section 3.

    Example:
        >>> code = InputScaledCode.from_dense(torch.tensor([[7.0, 0.2]]), torch.tensor([1.0, 4.0]))
        >>> code.decode()  # 0.2 would be rounded to 0; 0.8 is rounded to 1
        tensor([[7.0000, 0.2500]])
    """

    roles = {"input_scale": "scales"}

    def __init__(self, scaled: WeightCode, input_scale: Tensor, shape: tuple[int, ...]):
        super().__init__(shape)
        if scaled.shape != self.shape:
            raise ValueError(f"scaled must be a code of shape {self.shape}, got {scaled.shape}")
        if len(self.shape) < 2 or tuple(input_scale.shape) != self.shape[1:2]:
            raise ValueError(
                f"input_scale must have one number per input of a weight (O, I, ...), "
                f"got {tuple(input_scale.shape)} for {self.shape}"
            )
        self.scaled = scaled
        self.register_buffer("input_scale", input_scale)

    @classmethod
    def from_dense(
        cls, weight: Tensor, input_scale: Tensor, make_code: MakeCode = UniformCode.from_dense
    ) -> "InputScaledCode":
        """Multiply each input channel by its scale, and code the result.

        Args:
            weight: (O, I) or (O, I, ...).
            input_scale: (I,), positive and finite.
            make_code: computes the code of the scaled weight.

        Raises:
            ValueError: a scale is not positive and finite, or there is not one per input.
        """
        weight, input_scale = check_weight(weight), input_scale.detach().float().clone()
        if not (torch.isfinite(input_scale).all() and (input_scale > 0).all()):
            raise ValueError("input_scale must be positive and finite")
        if weight.ndim < 2 or tuple(input_scale.shape) != weight.shape[1:2]:
            raise ValueError(
                f"input_scale must have one number per input of a weight (O, I, ...), "
                f"got {tuple(input_scale.shape)} for {tuple(weight.shape)}"
            )
        return cls(make_code(weight * _along_inputs(input_scale, weight)), input_scale, weight.shape)

    def decode(self) -> Tensor:
        scaled = self.scaled.decode()
        return scaled / _along_inputs(self.input_scale.float(), scaled)


class AWQSearch(NamedTuple):
    """What :func:`search_awq` tried: the best exponent, its scales (I,), and the error at every exponent."""

    alpha: float
    input_scale: Tensor
    alphas: tuple[float, ...]
    errors: tuple[float, ...]


def awq_scale(magnitude: Tensor, alpha: float) -> Tensor:
    r"""The scales of the input channels for one exponent.

    .. math:: s = s_X^\alpha, \qquad \text{then divided by } \sqrt{\max s \cdot \min s}

    so that the scaled weights stay about as large as they were. An input that is always zero counts as the
    quietest that is not.

    Args:
        magnitude: :math:`s_X`, the mean absolute value of each input channel, (I,).
        alpha: :math:`\alpha` in [0, 1]; 0 gives ones.

    Returns:
        (I,) float32, positive.

    Raises:
        TypeError, ValueError: ``alpha`` is no fraction, or a magnitude is negative or not finite.

    Source: Lin et al., MLSys 2024, section 3.2.

    Example:
        >>> awq_scale(torch.tensor([1.0, 16.0]), alpha=0.5)
        tensor([0.5000, 2.0000])
    """
    check_fraction("alpha", alpha)
    magnitude = magnitude.detach().double()
    if not (torch.isfinite(magnitude).all() and (magnitude >= 0).all()):
        raise ValueError("magnitude must be finite and not negative")
    live = magnitude > 0
    if not live.any():
        return torch.ones_like(magnitude, dtype=torch.float32)
    scale = torch.where(live, magnitude, magnitude[live].min()) ** alpha
    return (scale / (scale.max().sqrt() * scale.min().sqrt())).float()


def search_awq(
    weight: Tensor, inputs: Tensor, make_code: MakeCode = UniformCode.from_dense, *, grid: int = 20
) -> AWQSearch:
    r"""Try exponents between 0 and 1, and keep the one whose layer output is nearest to the true one.

    .. math:: \min_\alpha \| Q(W \mathrm{diag}(s))\, \mathrm{diag}(s)^{-1} X - W X \|^2, \qquad s = s_X^\alpha

    At :math:`\alpha = 0` this is plain rounding, so on these inputs the choice is never worse than that.

    Args:
        weight: (O, I) or (O, I, ...).
        inputs: :math:`X^\top`, one input of the layer per row, (N, I), or (N, I * kh * kw) as
            ``collect_inputs`` gives the patches of a convolution.
        make_code: computes the code of a scaled weight, :math:`Q`.
        grid: how many steps of :math:`\alpha` from 0 to 1, at least 1; ``grid + 1`` exponents are tried.

    Returns:
        the best exponent (the smallest of equals), its scales, and all exponents with their squared errors.

    Raises:
        TypeError: ``grid`` is no whole number.
        ValueError: no inputs, inputs of another width, nan or inf among them, or ``grid`` below 1.

    Source: Lin et al., MLSys 2024, section 3.2.
    Differs: the paper also searches for a clipping of each group.
    """
    check_int("grid", grid, 1)
    weight = check_weight(weight)
    matrix = weight.flatten(1).double()  # (O, I * kernel)
    if inputs.ndim != 2 or inputs.shape[1] != matrix.shape[1] or len(inputs) == 0:
        raise ValueError(
            f"inputs must have shape (N, {matrix.shape[1]}) with N >= 1, got {tuple(inputs.shape)}"
        )
    X = inputs.detach().double()
    if not torch.isfinite(X).all():
        raise ValueError("inputs must be finite, got nan or inf; check the calibration data")
    H = X.T @ X  # the error of a row d of the weight is d H d^T: no need to go through the inputs again
    magnitude = X.abs().mean(0).view(weight.shape[1], math.prod(weight.shape[2:])).mean(1)
    alphas = [step / grid for step in range(grid + 1)]
    errors = []
    for alpha in alphas:
        code = InputScaledCode.from_dense(weight, awq_scale(magnitude, alpha), make_code)
        off = code.decode().flatten(1).double() - matrix
        errors.append(float(((off @ H) * off).sum()))
    best = errors.index(min(errors))
    return AWQSearch(alphas[best], awq_scale(magnitude, alphas[best]), tuple(alphas), tuple(errors))


def encode_awq(
    model: nn.Module,
    batches: Batches,
    make_code: MakeCode = UniformCode.from_dense,
    *,
    grid: int = 20,
    max_rows: int | None = 512,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` whose weights are scaled by AWQ, rounded and stored.

    Every layer is calibrated on the inputs that it has in the float network, and on those it loses no more
    than by plain rounding. Of the network's output that is not promised: the errors of layers add up.

    Args:
        model: a trained network; masks are baked in.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs; a few hundred examples do.
        make_code: the code of a scaled weight, such as ``partial(UniformCode.from_dense, bits=4, axis=0)``.
        grid: as in :func:`search_awq`.
        max_rows: use at most this many input rows (of a convolution: patches) of each batch; None uses all.
        only, skip: names of layers to code, or to leave as they are. Grouped convolutions must be skipped,
            and so must layers that other modules use without calling them.

    Returns:
        A coded copy, of ``InputScaledCode``; where plain rounding was best the code of ``make_code``, without
        scales. A weight that several layers share is scaled once, for the inputs of the first.

    Raises:
        TypeError, ValueError: as :func:`search_awq`, with the layer's name; an unknown layer name, nothing to
            code, a grouped convolution, no data.

    Source: Lin et al., MLSys 2024.
    Differs: the scales are stored with the weight, where the paper folds them into the layer before.
    """
    original, batches = bake(model), list(batches)
    coded = original

    def code(weight: Tensor, inputs: Tensor) -> WeightCode:
        found = search_awq(weight, inputs, make_code, grid=grid)
        if found.alpha == 0:
            return make_code(weight)
        return InputScaledCode.from_dense(weight, found.input_scale, make_code)

    for name in layers_to_code(original, only, skip):
        holders = weight_holders(coded, name)
        if holders:
            inputs = collect_inputs(original, [name], batches, max_rows=max_rows).get(name)
            if inputs is None:
                raise ValueError(f"no calibration data reached layer '{name}'; skip it")
            coded = encode(coded, partial(code, inputs=inputs), only=holders)
    return coded


def _along_inputs(scale: Tensor, weight: Tensor) -> Tensor:
    """The scales (I,) with axes of size 1, so that they multiply axis 1 of the weight."""
    return scale.view(1, -1, *[1] * (weight.ndim - 2))
