"""Counting multiply-accumulates: what a network computes, before any clock is asked.

One multiply-accumulate (MAC) is one multiplication and one addition. Per image, with bias, activation and
normalisation left out, as the usual counters do:

    convolution   H_out W_out * C_out * (C_in / groups) * k_h k_w
    linear        rows * in * out                                          rows: tokens, 1 for a vector
    attention     L_q E E + L_k (E_k + E_v) E + L_q E E + 2 L_q L_k E      projections, output, scores and sum
    LSTM, GRU     steps * (elements of all weight matrices)                every matrix is used once a step

A layer with a forward of its own says what it costs by a method `count_macs(inputs, output) -> int`.
Papers that report "FLOPs" mean MACs more often than not, and sometimes twice as many.

Source: the convention of torchvision's published model tables, which divide torch's flop counter by two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence

from compresslab.core.modules import bake
from compresslab.core.train import device_of, evaluating

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class MacReport:
    """MACs of one image: `total`, and `by_layer`, which sums to it; a layer called twice counts twice."""

    total: int
    by_layer: dict[str, int]


def count_macs(model: nn.Module, example: Sequence[int] | Tensor) -> MacReport:
    """Count the multiply-accumulates of one input.

    A masked or coded network counts like the dense network that it stands for: zeros are multiplied, too.

    Args:
        model: any network; it is run once in eval mode, a masked or coded one as a copy.
        example: the shape of one input without the batch axis, such as (3, 32, 32), or an input tensor whose
            first axis is the batch (token numbers for a language model); its MACs are divided by the batch
            size.
    Returns:
        a `MacReport`.
    Example:
        >>> count_macs(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,))
        MacReport(total=18, by_layer={'0': 12, '2': 6})
    """
    model = plain(model) if _is_compressed(model) else model
    x = example if isinstance(example, Tensor) else torch.zeros(1, *example)
    counts: dict[str, int] = {}

    def hook(layer: nn.Module, inputs: tuple, named: dict, output: object) -> None:
        if macs := layer_macs(layer, (*inputs, *named.values()), output):
            counts[names[layer]] = counts.get(names[layer], 0) + macs

    names = {layer: name for name, layer in reversed(list(model.named_modules()))}
    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in names]
    try:
        with evaluating(model):
            model(x.to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    by_layer = {name: macs // len(x) for name, macs in counts.items()}
    return MacReport(sum(by_layer.values()), by_layer)


def plain(model: nn.Module) -> nn.Module:
    """The dense network that a masked, simulated or coded one stands for, as a copy in plain layers."""
    from compresslab.core.layers import decompress

    return bake(decompress(model))


def _is_compressed(model: nn.Module) -> bool:
    """Whether a layer is masked, simulated or coded, so that ``plain`` would change it."""
    from compresslab.core.layers import CodedLayer

    return any(isinstance(layer, CodedLayer) or parametrize.is_parametrized(layer) for layer in model.modules())


def layer_macs(layer: nn.Module, inputs: tuple, output: object) -> int:
    """The MACs of one call of one layer, over the batch; 0 for layers that multiply no matrix."""
    if hasattr(layer, "count_macs"):
        return layer.count_macs(inputs, output)
    if isinstance(layer, CONVOLUTIONS):
        return output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, TRANSPOSED):
        return inputs[0].numel() * layer.out_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    if isinstance(layer, nn.MultiheadAttention):
        return _attention_macs(layer, *inputs[:3])
    if isinstance(layer, nn.RNNBase):
        return _recurrent_macs(layer, inputs[0])
    return 0


def _attention_macs(layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> int:
    width = layer.embed_dim
    queries, keys = query.numel() // width, key.numel() // layer.kdim  # tokens, over the batch
    batch = 1 if query.ndim == 2 else query.shape[0 if layer.batch_first else 1]
    projections = 2 * queries * width * width + keys * (layer.kdim + layer.vdim) * width
    return projections + 2 * queries * (keys // batch) * width


def _recurrent_macs(layer: nn.RNNBase, x: Tensor | PackedSequence) -> int:
    data = x.data if isinstance(x, PackedSequence) else x
    steps = data.numel() // layer.input_size  # time steps, over the batch
    return steps * sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)
