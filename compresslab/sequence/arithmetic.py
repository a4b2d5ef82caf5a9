r"""What it costs to write one more token: bytes that are read, multiplications, and the speed that they allow.

A model that writes reads every weight once per step, however many texts it writes at a time, and for each text
the whole cache of keys and values. A step can be no faster than its bytes through the memory, nor than its
multiply-accumulates through the processor:

.. math:: t \ge \max\Big(\frac{\text{weights} + B \cdot \text{cache}}{\text{bandwidth}},\
                         \frac{B \cdot \text{MACs}}{\text{MACs per second}}\Big),
          \qquad \text{tokens per second} \le \frac{B}{t}

At batch size B = 1 the first term rules, by far. Weights of 4 bits then help because they are fewer bytes; they are
multiplied in 16 bits or more, as before.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model for Multicore
Architectures", Communications of the ACM, 2009; R. Pope et al., "Efficiently Scaling Transformer Inference",
MLSys 2023.
Differs: activations are not counted, nor caches that fit into the processor, nor the cost of starting a kernel. A
bound, not a forecast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from compresslab.core.errors import check_int
from compresslab.core.macs import count_macs
from compresslab.core.size import storage_report
from compresslab.core.train import device_of


def kv_cache_bytes(layers: int, kv_heads: int, head_size: int, length: int, bits: float = 16, batch: int = 1) -> int:
    r"""The bytes of the keys and values of `length` tokens.

    .. math:: 2 \cdot \text{layers} \cdot \text{heads} \cdot \text{size} \cdot \text{length} \cdot B \cdot b / 8

    Args:
        layers, head_size: of the model. kv_heads: heads that have keys and values of their own; with grouped-query
            attention fewer than query heads.
        length: tokens held. bits: per number, with the share of its scale. batch: texts.

    Raises:
        TypeError, ValueError: a number below 1, bits that are not positive.

    Example:
        >>> kv_cache_bytes(layers=32, kv_heads=32, head_size=128, length=1)  # half a megabyte for every token
        524288
    """
    sizes = {"layers": layers, "kv_heads": kv_heads, "head_size": head_size, "length": length, "batch": batch}
    numbers = 2
    for name, value in sizes.items():
        numbers *= check_int(name, value, 1)
    if not bits > 0:
        raise ValueError(f"bits must be positive, got {bits}")
    return round(numbers * bits / 8)


@dataclass(frozen=True)
class DecodeStep:
    """What one step costs that writes one token for each text of a batch.

    Args:
        weight_bytes: of all that is read once for the batch. text_bytes: read for each text, its cache above all.
        macs: multiply-accumulates for each text. batch: texts.
    """

    weight_bytes: int
    text_bytes: int
    macs: int
    batch: int = 1

    @property
    def bytes(self) -> int:
        """All that is read in the step."""
        return self.weight_bytes + self.batch * self.text_bytes

    @property
    def intensity(self) -> float:
        """Multiply-accumulates per byte read."""
        return self.batch * self.macs / self.bytes

    def tokens_per_second(self, bandwidth: float, macs_per_second: float = float("inf")) -> float:
        """The most tokens per second, of all texts together, on a machine with these two limits.

        Args:
            bandwidth: bytes per second from the memory that holds the weights.
            macs_per_second: of the processor, in the format that it multiplies in.

        Raises:
            ValueError: one of them is not positive.

        Example:
            >>> step = DecodeStep(weight_bytes=800, text_bytes=100, macs=1000, batch=2)
            >>> step.tokens_per_second(bandwidth=1000), step.tokens_per_second(1000, macs_per_second=500)
            (2.0, 0.5)
        """
        for name, value in (("bandwidth", bandwidth), ("macs_per_second", macs_per_second)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        return self.batch / max(self.bytes / bandwidth, self.batch * self.macs / macs_per_second)


def decode_arithmetic(model: nn.Module, length: int = 1, *, batch: int = 1, cache_bits: float = 32) -> DecodeStep:
    """Count what a model reads and multiplies to write one token after `length` tokens.

    Weights count with the bits they are stored in, scales and norms included. Of an embedding only one row per
    text is read. A GPT also reads its cache of `length` tokens; an LSTM the state h and c.

    Args:
        model: `GPT` or `CharLSTM`, dense or coded.
        length: tokens in the cache, at least 1. batch: texts. cache_bits: per key and value.

    Returns:
        a `DecodeStep`.

    Raises:
        TypeError, ValueError: a model that is neither, a number below 1.

    Example:
        >>> from compresslab.sequence.gpt import GPT
        >>> small = GPT(vocabulary=5, width=8, layers=1, context=16, heads=2, head_size=4, hidden=16)
        >>> decode_arithmetic(small, length=10)  # 40 + 512 weights and 3 norms; two rows of 8, the cache of 2 x 8 x 10
        DecodeStep(weight_bytes=2304, text_bytes=704, macs=712, batch=1)
    """
    check_int("length", length, 1)
    check_int("batch", batch, 1)
    if not hasattr(model, "blocks") and not hasattr(model, "lstm"):
        raise TypeError(f"the model must be a GPT or a CharLSTM, got {type(model).__name__}")
    weights, rows = _stored_bytes(model)
    macs = count_macs(model, torch.zeros(1, 1, dtype=torch.int64, device=device_of(model))).total
    if hasattr(model, "blocks"):
        columns = sum(block.heads * block.head_size for block in model.blocks)  # of keys, and as many of values
        held = round(2 * columns * length * cache_bits / 8)
        macs += 2 * columns * (length - 1)  # the token's own column is counted already
    else:
        lstm = model.lstm
        held = 4 * lstm.num_layers * (lstm.hidden_size + (lstm.proj_size or lstm.hidden_size))
    return DecodeStep(weights, rows + held, macs, batch)


def _stored_bytes(model: nn.Module) -> tuple[int, int]:
    """(bytes read once per step, bytes of the embedding rows that each text reads).

    An embedding that the output layer shares is read as a whole.
    """
    by_layer = storage_report(model).by_layer
    shared, rows = getattr(model, "spec", {}).get("tied", False), 0
    for name in ("tokens", "positions", "embedding"):
        if name in by_layer and not (name == "tokens" and shared):
            table = model.get_submodule(name)
            rows += -(-by_layer.pop(name) // (8 * table.num_embeddings))
    return sum(by_layer.values()) // 8, rows
