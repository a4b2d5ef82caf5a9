r"""Outlier channels: how large they are, and how to put them into a network that has none.

In language models of some billion parameters a few channels of the stream are many times larger than all
others, in every layer and for almost every token. One scale per tensor must then cover them, and hardly any
level is left for the rest. A network of one million parameters has no such channels. To study cures here, the
disease is planted: the same function is written in other weights, so that whatever happens after rounding
comes from the outliers alone.
"""

from __future__ import annotations

import torch

from compresslab.core.calibrate import Batches
from compresslab.core.errors import check_int
from compresslab.core.modules import bake
from compresslab.quantization.smoothquant import input_absmax
from compresslab.sequence.compress_gpt import norm_readers
from compresslab.sequence.gpt import GPT, block_layers


def measure_outliers(model: GPT, batches: Batches) -> dict[str, float]:
    r"""How far the loudest input channel of each matrix stands out.

    .. math:: \max_j \max|X_j| \;/\; \mathrm{median}_j \max|X_j|

    Args:
        model: a plain GPT.
        batches: calibration tokens (B, L).

    Returns:
        name of a matrix inside the blocks -> ratio, at least 1; infinite where more than half of the channels
        are always zero and another is not.

    Raises:
        ValueError: no data.
    """
    largest = input_absmax(model, block_layers(model), batches)
    return {name: (absmax.max() / absmax.median()).item() for name, absmax in largest.items()}


def plant_outliers(model: GPT, factor: float = 30.0, *, channels: int = 6, seed: int = 0) -> GPT:
    r"""Copy of a GPT with the same function, whose RMSNorms inside the blocks make a few channels loud.

    .. math:: \gamma_j \leftarrow f\,\gamma_j, \qquad W_{\cdot j} \leftarrow W_{\cdot j} / f

    for the same channels `j` everywhere, and the matrices `W` that read them.

    Args:
        model: a plain GPT; masks are baked in.
        factor: `f`, positive; 1 changes nothing.
        channels: how many, from 0 to the width.
        seed: of the choice of channels.

    Raises:
        TypeError, ValueError: a factor that is not positive and finite, channels out of range.

    Source: the outliers are described in T. Dettmers, M. Lewis, Y. Belkada, L. Zettlemoyer, "LLM.int8():
        8-bit Matrix Multiplication for Transformers at Scale", NeurIPS 2022.
    Differs: there they arise by training, and in the stream itself; here they are planted where the stream is
        read, which is what the matrices see.

    Example:
        >>> model, tokens = GPT(width=8, layers=1).eval(), torch.arange(5)[None]
        >>> loud = plant_outliers(model, channels=1)
        >>> loud.blocks[0].norm1.weight.max().item(), torch.allclose(loud(tokens), model(tokens), atol=1e-5)
        (30.0, True)
    """
    check_int("channels", channels, 0, model.norm.weight.numel())
    if not 0 < factor < float("inf"):
        raise ValueError(f"factor must be positive and finite, got {factor}")
    model, scale = bake(model), torch.ones_like(model.norm.weight)
    chosen = torch.randperm(len(scale), generator=torch.Generator().manual_seed(seed))[:channels]
    with torch.no_grad():
        scale[chosen] = factor
        for norm, readers in norm_readers(model):
            model.get_submodule(norm).weight.mul_(scale)
            for reader in readers:
                model.get_submodule(reader).weight.div_(scale)
    return model
