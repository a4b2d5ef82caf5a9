r"""Rotate the stream of a GPT: other weights, the same function.

Everything in a GPT that touches the stream is a matrix or an RMSNorm. RMSNorm divides by the length of a
vector, and a rotation changes no length; the weight of an RMSNorm is one number per channel and does not
commute with a rotation, but it can be multiplied into the matrices that read it. After that, every matrix
that writes to the stream can write a rotated vector and every matrix that reads can rotate it back:

.. math:: W_{reader} \leftarrow W_{reader}\, \mathrm{diag}(\gamma)\, Q^\top, \qquad
          W_{writer} \leftarrow Q\, W_{writer}
"""

from __future__ import annotations

import torch

from compresslab.core.modules import bake
from compresslab.quantization.hadamard import rotate_stream
from compresslab.sequence.compress_gpt import norm_readers
from compresslab.sequence.gpt import GPT


def fold_norms(model: GPT) -> GPT:
    r"""Copy of a GPT whose RMSNorms have the weight 1; the matrices behind them do that work.

    .. math:: W (\gamma \odot n) = (W\, \mathrm{diag}(\gamma))\, n

    Args:
        model: a plain GPT; masks are baked in. Coded ones must be decompressed before.

    Raises:
        ValueError: the output layer is tied to the embedding, which no RMSNorm stands before.

    Source: S. Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", NeurIPS 2024, and
        before it S. Ashkboos et al., "SliceGPT", ICLR 2024.
    """
    if model.head.weight is model.tokens.weight:
        raise ValueError("the last norm would get into the embedding: the output layer is tied to it")
    model = bake(model)
    with torch.no_grad():
        for norm, readers in [*norm_readers(model), ("norm", ("head",))]:
            weight = model.get_submodule(norm).weight
            for reader in readers:
                model.get_submodule(reader).weight.mul_(weight)
            weight.fill_(1.0)
    return model


def rotate_gpt(model: GPT, seed: int = 0) -> GPT:
    """Copy of a GPT whose stream is rotated by a random Hadamard matrix, its function unchanged.

    Args:
        model: a plain GPT of even width, not tied. seed: of the random signs.

    Raises:
        ValueError: a tied output layer, an odd width.

    Source: Ashkboos et al., NeurIPS 2024, section 4 (stage 1).
    Differs: the paper also rotates inside attention and the feed-forward part, and quantizes the cache.

    Example:
        >>> model, tokens = GPT(width=8, layers=1).eval(), torch.arange(5)[None]
        >>> rotated = rotate_gpt(model)
        >>> torch.allclose(rotated(tokens), model(tokens), atol=1e-5)
        True
        >>> torch.allclose(rotated.head.weight, model.head.weight)
        False
    """
    writers, readers = stream_layers(model)
    return rotate_stream(fold_norms(model), writers, readers, seed=seed)


def stream_layers(model: GPT) -> tuple[list[str], list[str]]:
    """The names of the layers that write to the stream of a GPT, and of those that read it.

    Example:
        >>> stream_layers(GPT(width=8, layers=1))[0]
        ['tokens', 'positions', 'blocks.0.o', 'blocks.0.down']
    """
    blocks = [f"blocks.{number}" for number in range(len(model.blocks))]
    writers = ["tokens", "positions", *(f"{block}.{kind}" for block in blocks for kind in ("o", "down"))]
    readers = [*(f"{block}.{kind}" for block in blocks for kind in ("q", "k", "v", "up")), "head"]
    return writers, readers
