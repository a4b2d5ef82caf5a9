r"""SmoothQuant: hand the outliers of the activations over to the weights.

Weights are easy to round to 8 bits, activations often are not: a few channels are a hundred times as large as
the rest, and one scale per tensor must cover them. A scale per channel would do, but inside a matrix product
the channels are summed, and integers of different scales cannot be. What can be done beforehand, in floats,
is to divide each channel of the activations by a number, and to multiply that channel's weights by it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, collect_inputs, find_layers
from compresslab.core.codes import check_weight
from compresslab.core.errors import check_fraction
from compresslab.core.modules import bake

_READERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)


def smooth_scale(absmax_x: Tensor, absmax_w: Tensor, alpha: float = 0.5) -> Tensor:
    r"""By how much each channel's activations are divided.

    .. math:: s_j = \frac{\max|X_j|^\alpha}{\max|W_j|^{1 - \alpha}}

    At :math:`\alpha = 1/2` activations and weights of a channel get the same range, :math:`\sqrt{\max|X_j|
    \max|W_j|}`; at 1 all activations have the range 1, at 0 all weights. A channel whose activations or
    weights are all zero keeps the scale 1.

    Args:
        absmax_x: :math:`\max|X_j|`, the largest magnitude of each input channel, (I,).
        absmax_w: :math:`\max|W_j|`, that of the weights it is multiplied by, (I,).
        alpha: :math:`\alpha`, how much of the difficulty moves to the weights, in [0, 1].

    Returns:
        (I,) float32, positive.

    Raises:
        TypeError, ValueError: ``alpha`` is no fraction; shapes differ; a magnitude is negative or not finite.

    Source: G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth, S. Han, "SmoothQuant: Accurate and Efficient
    Post-Training Quantization for Large Language Models", ICML 2023, section 4.

    Example:
        >>> smooth_scale(torch.tensor([64.0, 1.0]), torch.tensor([1.0, 1.0]))
        tensor([8., 1.])
    """
    check_fraction("alpha", alpha)
    x, w = absmax_x.detach().double(), absmax_w.detach().double()
    if x.shape != w.shape or x.ndim != 1:
        raise ValueError(
            f"absmax_x and absmax_w must have shape (I,), got {tuple(x.shape)} and {tuple(w.shape)}"
        )
    if not (torch.isfinite(x).all() and torch.isfinite(w).all() and (x >= 0).all() and (w >= 0).all()):
        raise ValueError("largest magnitudes must be finite and not negative")
    live = (x > 0) & (w > 0)
    scale = (torch.where(live, x, 1.0) ** alpha / torch.where(live, w, 1.0) ** (1 - alpha)).float()
    return torch.where(torch.isfinite(scale) & (scale > 0), scale, 1.0)


def smooth(weight: Tensor, absmax_x: Tensor, alpha: float = 0.5) -> tuple[Tensor, Tensor]:
    r"""The weight that goes with smoothed activations.

    .. math:: Y = (X\, \mathrm{diag}(s)^{-1})(\mathrm{diag}(s)\, W^\top)

    Args:
        weight: (O, I) or (O, I, ...).
        absmax_x: the largest magnitude of each input channel, (I,).
        alpha: as in :func:`smooth_scale`.

    Returns:
        the weight with input channel j multiplied by :math:`s_j`, float32, and :math:`s` (I,), by which
        whatever makes the activations has to divide them.

    Raises:
        TypeError, ValueError: as :func:`smooth_scale`; the weight has one dimension or is not finite.

    Source: Xiao et al., ICML 2023, section 4.

    Example:
        >>> smooth(torch.tensor([[1.0, -1.0]]), torch.tensor([64.0, 1.0]))
        (tensor([[ 8., -1.]]), tensor([8., 1.]))
    """
    weight = check_weight(weight)
    if weight.ndim < 2:
        raise ValueError(f"weight must have at least two axes, (O, I, ...), got shape {tuple(weight.shape)}")
    scale = smooth_scale(absmax_x, _absmax_w(weight), alpha)
    return weight * _along(scale, weight, 1), scale


def input_absmax(model: nn.Module, layers: Iterable[str], batches: Batches) -> dict[str, Tensor]:
    """The largest magnitude of each input channel of named layers over the data.

    Args:
        model, layers, batches: as in ``collect_inputs``.

    Returns:
        name -> (I,), for a convolution one number per channel.

    Raises:
        TypeError, ValueError: as ``collect_inputs``; no data, or a layer that they do not reach.
    """
    names, largest = list(layers), {}
    for batch in batches:
        if not len(batch if isinstance(batch, Tensor) else batch[0]):
            continue
        for name, rows in collect_inputs(model, names, [batch]).items():
            channels = model.get_submodule(name).weight.shape[1]
            here = rows.abs().amax(0).view(channels, -1).amax(1)
            largest[name] = torch.maximum(largest.get(name, here), here)
    if not largest:
        raise ValueError("no calibration data: batches is empty, or reaches none of the layers")
    missing = [name for name in names if name not in largest]
    if missing:
        raise ValueError(f"no calibration data reached layer '{missing[0]}'")
    return largest


def smooth_layers(
    model: nn.Module,
    batches: Batches,
    pairs: Iterable[tuple[str, str | tuple[str, ...]]],
    *,
    alpha: float = 0.5,
) -> nn.Module:
    r"""Copy of ``model`` with the same function and easier activations.

    Each pair names a layer that makes activations and the layers that read them. The first one's output
    channels are divided by :math:`s`, the others' input channels multiplied by it. In between there may be
    what passes a positive factor on: nothing, ReLU, dropout, pooling. That this is so, and that all readers
    are named, cannot be seen here: compare outputs.

    Args:
        model: the network; masks are baked in.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs.
        pairs: (writer, reader) or (writer, (reader, reader, ...)), names of layers. A writer is a Linear, a
            convolution, or a normalisation with weights; the readers of one share their scales.
        alpha: as in :func:`smooth_scale`.

    Returns:
        A plain network of the same shape.

    Raises:
        TypeError: a layer of another type.
        ValueError: an unknown name, numbers of channels that differ, a normalisation without weights, a
            grouped convolution as reader, no data, or a bad ``alpha``.

    Source: Xiao et al., ICML 2023, section 4.
    Differs: the paper smooths what LayerNorm hands to the linear layers of a transformer.

    Example:
        >>> model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3))
        >>> x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
        >>> smoothed = smooth_layers(model, [x], [("0", "1")])
        >>> torch.allclose(smoothed(x), model(x), atol=1e-6), torch.allclose(smoothed[0](x), model[0](x))
        (True, False)
    """
    model, batches = bake(model), list(batches)
    for writer, names in pairs:
        names = (names,) if isinstance(names, str) else tuple(names)
        source = find_layers(model, [writer], (*_READERS, *_NORMS))[writer]
        found = find_layers(model, names, _READERS)
        readers = [found[name] for name in names]
        _check_pair(writer, source, names, readers)
        largest = torch.stack(list(input_absmax(model, names, batches).values())).amax(0)
        weights = torch.stack([_absmax_w(reader.weight.detach()) for reader in readers]).amax(0)
        try:
            scale = smooth_scale(largest, weights.to(largest), alpha).to(weights)
        except ValueError as error:
            raise ValueError(f"{error}, between layer '{writer}' and layer '{names[0]}'") from error
        for weight in {id(reader.weight): reader.weight for reader in readers}.values():  # tied ones once
            weight.data *= _along(scale, weight, 1)
        source.weight.data /= _along(scale, source.weight, 0)
        if getattr(source, "bias", None) is not None:
            source.bias.data /= scale
    return model


def _absmax_w(weight: Tensor) -> Tensor:
    """The largest magnitude of each input channel's weights, (O, I, ...) -> (I,)."""
    columns = weight.abs().transpose(0, 1).flatten(1)
    return columns.amax(1) if columns.shape[1] else columns.new_zeros(len(columns))


def _along(scale: Tensor, weight: Tensor, axis: int) -> Tensor:
    """The scale with axes of size 1, so that it multiplies one axis of the weight."""
    return scale.view([-1 if i == axis else 1 for i in range(weight.ndim)])


def _check_pair(writer: str, source: nn.Module, names: tuple[str, ...], readers: list[nn.Module]) -> None:
    """Raise unless every reader has one input channel per output channel of the writer."""
    if not names:
        raise ValueError(f"name at least one layer that reads from layer '{writer}'")
    if source.weight is None:
        raise ValueError(f"the normalisation has no weight to divide in layer '{writer}'")
    for name, reader in zip(names, readers, strict=True):
        if getattr(reader, "groups", 1) != 1:
            raise ValueError(
                f"the inputs of a grouped convolution form no single matrix, "
                f"got groups={reader.groups} in layer '{name}'"
            )
        if reader.weight.shape[1] != source.weight.shape[0] or reader is source:
            raise ValueError(
                f"layer '{writer}' has {source.weight.shape[0]} output channels, "
                f"but layer '{name}' reads {reader.weight.shape[1]}"
            )
