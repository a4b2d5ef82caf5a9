r"""Bias correction: rounded weights shift the mean of each output; shift it back.

Rounding errors have no mean over many weights, but one channel has few, and its inputs are positive after a
ReLU: :math:`E[\hat y] - E[y] = (\hat W - W)\,E[x]` is seldom zero. A bias costs nothing at inference, so it
can carry the correction. The mean is measured on calibration inputs, or read off the batch norm before the
layer, which knows the mean and deviation of what it puts out.
"""

import copy
import math
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compresslab.core.calibrate import Batches
from compresslab.core.layers import CodedConv1d, CodedConv2d, CodedLayer, CodedLinear
from compresslab.core.modules import WEIGHT_LAYERS, named_layers
from compresslab.core.train import evaluating
from compresslab.quantization.graph import Add, SpatialMean, as_layer, node_before, trace

LAYERS = (*WEIGHT_LAYERS, CodedLinear, CodedConv1d, CodedConv2d)


def correct_bias(
    model: nn.Module,
    reference: nn.Module,
    batches: Batches,
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    r"""Copy of ``model`` whose layers put out the reference's means on the calibration inputs.

    .. math:: b \leftarrow b - (E[\hat y] - E[y])

    per output channel, layer after layer, each measured behind those already corrected: so the means of every
    corrected layer are equal in the end, whatever the layers before it do to its inputs.

    Args:
        model: the quantized network: coded, prepared, or with rounded weights.
        reference: the network it was made from. Layers are matched by name.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs; gone through once per layer.
        only, skip: names of layers to correct, or to leave.

    Returns:
        a copy; layers that had no bias have one.

    Raises:
        ValueError: an unknown layer name, a layer that the reference has not, or not with as many outputs; no
            data; outputs that are nan or inf.

    Source: M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight
        Equalization and Bias Correction", ICCV 2019, section 4.2 and appendix D (empirical).
    Differs: means before the activation function, with the quantized network's own inputs.
    """
    model, batches = copy.deepcopy(model), list(batches)
    names = list(named_layers(model, LAYERS, only=only, skip=skip))
    wanted = _output_means(reference, names, batches)
    for name in names:
        found = _output_means(model, [name], batches)[name]
        if found.shape != wanted[name].shape:
            raise ValueError(
                f"the reference must have as many output channels, "
                f"got {len(wanted[name])} for {len(found)} in layer '{name}'"
            )
        shift = wanted[name] - found
        if not torch.isfinite(shift).all():
            raise ValueError(f"outputs must be finite, got nan or inf in layer '{name}'")
        add_bias_(model.get_submodule(name), shift)
    return model


def clipped_normal_mean(mean: Tensor, std: Tensor, low: float = 0.0, high: float = float("inf")) -> Tensor:
    r"""The mean of a normal variable after clipping; by default after a ReLU.

    .. math:: E[\min(\max(x, a), b)] = \mu\,(\Phi(\beta) - \Phi(\alpha))
              + \sigma\,(\phi(\alpha) - \phi(\beta)) + a\,\Phi(\alpha) + b\,(1 - \Phi(\beta))

    with :math:`\alpha = (a - \mu) / \sigma,\ \beta = (b - \mu) / \sigma`.

    Args:
        mean: :math:`\mu`, any shape.
        std: :math:`\sigma`, >= 0, of the shape of ``mean``; where it is 0 the mean itself is clipped.
        low, high: :math:`a, b`; 0 and 6 for ReLU6.

    Returns:
        float64, the shape of ``mean``.

    Source: Nagel et al., ICCV 2019, section 4.2.1 and appendix C.

    Example:
        >>> clipped_normal_mean(torch.tensor([0.0]), torch.tensor([1.0]))  # 1 / sqrt(2 pi)
        tensor([0.3989], dtype=torch.float64)
    """
    mean, std = mean.detach().double(), std.detach().double()
    alive = std > 0
    unit = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0, validate_args=False)
    alpha, beta = ((bound - mean) / torch.where(alive, std, 1.0) for bound in (low, high))
    below, above = unit.cdf(alpha), unit.cdf(-beta)
    density = torch.exp(unit.log_prob(alpha)) - torch.exp(unit.log_prob(beta))
    clipped = mean * (1 - above - below) + std * density
    clipped = clipped + sum(b * p for b, p in ((low, below), (high, above)) if math.isfinite(b))
    return torch.where(alive, clipped, mean.clamp(low, high))


def expected_inputs(model: nn.Module) -> dict[str, Tensor]:
    r"""The mean of each layer's input channels, from batch norm alone, without data.

    A batch norm puts out mean :math:`\beta` and deviation :math:`|\gamma|` in each channel; taken as normal,
    its mean after ReLU or ReLU6 is :func:`clipped_normal_mean`. Means add in residual sums, and averaging
    keeps them. What they are after a maximum, or after the ReLU of a sum, cannot be said: layers behind that
    are left out, and so are layers that run more than once.

    Args:
        model: the trained network, before its batch norms are folded.

    Returns:
        layer name -> (input channels,) float64.

    Source: Nagel et al., ICCV 2019, section 4.2.1.

    Example:
        >>> expected_inputs(nn.Sequential(nn.BatchNorm1d(2), nn.Identity(), nn.Linear(2, 3)))
        {'2': tensor([0., 0.], dtype=torch.float64)}
    """
    graph = trace(model)
    means: dict[fx.Node, Tensor] = {}  # of the channels of a node's value
    normals: dict[fx.Node, tuple[Tensor, Tensor]] = {}  # mean and deviation, where known
    found: dict[str, Tensor] = {}
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        layer, before = as_layer(model, node), node_before(node)
        if isinstance(layer, LAYERS):
            if before in means and calls[node.target] == 1:
                found[node.target] = means[before]
        elif isinstance(layer, _BatchNorm) and layer.affine:
            normals[node] = layer.bias.detach().double(), layer.weight.detach().double().abs()
            means[node] = normals[node][0]
        elif isinstance(layer, (nn.ReLU, nn.ReLU6)) and before in normals:
            high = 6.0 if isinstance(layer, nn.ReLU6) else float("inf")
            means[node] = clipped_normal_mean(*normals[before], 0.0, high)
        elif isinstance(layer, Add) and all(summand in means for summand in node.args):
            means[node] = means[node.args[0]] + means[node.args[1]]
        elif isinstance(layer, (nn.Identity, nn.AdaptiveAvgPool2d, SpatialMean)) and before in means:
            means[node] = means[before]
            if isinstance(layer, nn.Identity) and before in normals:
                normals[node] = normals[before]
    fits = {name: _in_channels(model.get_submodule(name)) == len(mean) for name, mean in found.items()}
    return {name: mean for name, mean in found.items() if fits[name]}


def correct_bias_data_free(model: nn.Module, reference: nn.Module, means: dict[str, Tensor]) -> nn.Module:
    r"""Copy of ``model`` with biases corrected for known means of the inputs.

    .. math:: b \leftarrow b - (\hat W - W)\,E[x]

    summed over the positions of a kernel.

    Args:
        model: the quantized network.
        reference: the network it was made from, folded if that was: its weights are :math:`W`.
        means: layer name -> :math:`E[x]`, (input channels,), such as :func:`expected_inputs` of the network
            before folding. The other layers stay as they are. Not after equalization, which rescales inputs.

    Returns:
        a copy; layers that had no bias have one.

    Raises:
        ValueError: an unknown layer name; means that are not finite, or of another number than the layer's
            input channels; a weight of another shape than the reference's, or with nan or inf.

    Source: Nagel et al., ICCV 2019, section 4.2.
    Differs: what padding adds at the border counts as if it had the mean of the channel.
    """
    model = copy.deepcopy(model)
    for name, layer in named_layers(model, LAYERS, only=list(means)).items():
        before, after = _find(reference, name).weight.detach(), layer.weight.detach()
        if before.shape != after.shape:
            raise ValueError(
                f"the reference must have a weight of this shape, "
                f"got {tuple(before.shape)} for {tuple(after.shape)} in layer '{name}'"
            )
        change = (after - before).double()
        channels, groups = _in_channels(layer), getattr(layer, "groups", 1)
        if means[name].shape != (channels,):
            shape = tuple(means[name].shape)
            wanted = f"({channels},), one per input channel"
            raise ValueError(f"means must have shape {wanted}, got {shape} in layer '{name}'")
        per_group = change.flatten(2).sum(2) if change.ndim > 2 else change  # (O, I / groups)
        per_group = per_group.view(groups, -1, channels // groups)
        shift = torch.einsum("goi,gi->go", per_group, means[name].double().view(groups, -1))
        if not torch.isfinite(shift).all():
            raise ValueError(f"weights and means must be finite, got nan or inf in layer '{name}'")
        add_bias_(layer, -shift.flatten())
    return model


@torch.no_grad()
def add_bias_(layer: nn.Module, shift: Tensor) -> None:
    """Add ``shift`` (O,) to the bias of a plain or coded layer, in place; a layer without a bias gets one."""
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() + shift)
        return
    if isinstance(layer, CodedLayer):
        layer.geometry.pop("bias", None)
    layer.bias = nn.Parameter(shift.to(layer.weight.dtype))


def _output_means(model: nn.Module, names: list[str], batches: list[Any]) -> dict[str, Tensor]:
    """Mean output per channel of named layers in eval mode, float64 (O,)."""
    sums: dict[str, tuple[Tensor, int]] = {}

    def add(name: str, layer: nn.Module, y: Tensor) -> None:
        positions = 0 if isinstance(layer, (nn.Linear, CodedLinear)) else len(layer.kernel_size)
        axis = y.ndim - 1 - positions
        rows = y.detach().movedim(axis, -1).flatten(0, -2).double()
        total, count = sums.get(name, (0.0, 0))
        sums[name] = total + rows.sum(0), count + len(rows)

    hooks = [
        _find(model, name).register_forward_hook(lambda layer, _, y, name=name: add(name, layer, y))
        for name in names
    ]
    try:
        with evaluating(model):
            for batch in batches:
                model(batch if isinstance(batch, Tensor) else batch[0])
    finally:
        for hook in hooks:
            hook.remove()
    if not batches:
        raise ValueError("no calibration data: batches is empty")
    silent = [name for name in names if name not in sums or sums[name][1] == 0]
    if silent:
        raise ValueError(f"the calibration data never reach layer '{silent[0]}'")
    return {name: total / count for name, (total, count) in sums.items()}


def _find(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"the reference has no layer '{name}'") from error


def _in_channels(layer: nn.Module) -> int:
    return layer.in_features if isinstance(layer, (nn.Linear, CodedLinear)) else layer.in_channels
