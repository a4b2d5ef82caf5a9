r"""A cache of keys and values in few bits, packed.

While a transformer writes, its cache grows by one column per token, and every new token reads all of it. So the
cache is rounded, as weights are, but to groups that must be complete *now*: a token that has been read cannot be
calibrated on text to come. In a large model some channels of the keys are loud, for every token; so keys share
a grid along the tokens, one grid per channel, and values along the channels, one grid per token:

.. math:: q = \mathrm{round}\Big(\frac{x - m}{s}\Big), \qquad m = \min x, \qquad s = \frac{\max x - \min x}{2^b - 1},
          \qquad \hat x = s\,q + m

A grid per channel needs several tokens at once. Until `group` of them have come, they wait as they are.

Source: Z. Liu et al., "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", ICML 2024.
Differs: values wait as long as the keys do, and a value's group is the whole head, not 32 channels of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.bits import pack_bits, unpack_bits
from compresslab.core.errors import check_int, where
from compresslab.core.train import evaluating
from compresslab.sequence.gpt import KVCache
from compresslab.sequence.text import TextSplit

LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, eq=False)
class PackedGroup:
    """Numbers that share grids along one dimension, in `bits` bits each; a scale and a minimum of 16 bits per grid.

    Args:
        codes: uint8, packed. scale, low: float16, of size 1 in the shared dimension.
        shape: of the numbers. bits: per number.
    """

    codes: Tensor
    scale: Tensor
    low: Tensor
    shape: tuple[int, ...]
    bits: int

    @classmethod
    def from_dense(cls, x: Tensor, bits: int, dim: int) -> PackedGroup:
        r"""Round numbers to the grids of :math:`2^b` levels from their minimum to their maximum along `dim`.

        No number moves by more than half a step, apart from what 16 bits cost the minimum:
        :math:`|x - \hat x| \le s / 2 + 2^{-11} |m|`, for steps s of at least 2^-14.

        Raises:
            ValueError: bits not from 1 to 8, or numbers that are not finite or too large for float16.

        Example:
            >>> x = torch.tensor([[0.0, 1.0, 3.2], [5.0, 5.0, 5.0]])
            >>> PackedGroup.from_dense(x, bits=2, dim=1).decode()
            tensor([[0.0000, 1.0664, 3.1992],
                    [5.0000, 5.0000, 5.0000]])
        """
        levels = 2 ** check_int("bits", bits, 1, 8) - 1
        if x.numel() and not x.abs().max() <= LARGEST:  # also where it is nan
            raise ValueError(f"numbers must be finite and at most {LARGEST:,.0f} in size, got {x.abs().max().item():g}")
        low = x.amin(dim, keepdim=True).half()
        scale = ((x.amax(dim, keepdim=True).float() - low.float()) / levels).clamp(0, LARGEST).half()
        q = ((x.float() - low.float()) / torch.where(scale > 0, scale, 1.0).float()).round().clamp(0, levels)
        return cls(pack_bits(q.to(torch.uint8), bits), scale, low, tuple(x.shape), bits)

    def decode(self) -> Tensor:
        """The numbers, float32, of `shape`."""
        n = torch.Size(self.shape).numel()
        q = unpack_bits(self.codes, self.bits, n).view(self.shape).float()
        return q * self.scale.float() + self.low.float()

    def count_bytes(self) -> int:
        """The bytes of codes, scales and minima."""
        return sum(t.numel() * t.element_size() for t in (self.codes, self.scale, self.low))


class QuantizedKVCache(KVCache):
    """A `KVCache` that holds all but the newest tokens in `bits` bits; give it to `model.step` in its place.

    A group of tokens is rounded after it was used: what is appended is returned as it came, behind what is held.
    So reading one token at a time, or any part of a group at once, gives the same numbers.

    Args:
        bits: per key and value, 1 to 8; None keeps everything as it is.
        group: tokens that are rounded together.
        window: the newest tokens that are never rounded, at least; `window` to `window + group - 1` of them wait.
        keys: "channel", one grid per channel for the `group` tokens; or "token", one per token, as for values.

    Raises:
        TypeError, ValueError: a number out of range, another word, a batch that changes.

    Example:
        >>> cache = QuantizedKVCache(bits=1, group=2)
        >>> for step in range(3):
        ...     held, _ = cache.append(0, torch.full((1, 1, 1, 4), float(step)), torch.ones(1, 1, 1, 4))
        >>> held[0, 0, :, 0].tolist(), cache.length, cache.rounded
        ([0.0, 1.0, 2.0], 3, 2)
    """

    def __init__(self, bits: int | None = 4, *, group: int = 32, window: int = 0, keys: str = "channel") -> None:
        super().__init__()
        if bits is not None:
            check_int("bits", bits, 1, 8)
        if keys not in ("channel", "token"):
            raise ValueError(f'keys must be "channel" or "token", got {keys!r}')
        self.bits, self.key_dim = bits, 2 if keys == "channel" else 3
        self.group, self.window = check_int("group", group, 1), check_int("window", window, 0)
        self.packed: dict[int, list[tuple[PackedGroup, PackedGroup]]] = {}  # layer -> (keys, values) of each group

    @property
    def length(self) -> int:
        """The number of tokens that every layer has seen."""
        return min((self._rounded(layer) + keys.shape[2] for layer, keys in self.keys.items()), default=0)

    @property
    def rounded(self) -> int:
        """The number of tokens that are held in few bits."""
        return min(map(self._rounded, self.keys), default=0)

    def _rounded(self, layer: int) -> int:
        return self.group * len(self.packed.get(layer, []))

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new columns (B, heads, new, size) of a layer; returns all of them (B, heads, length, size)."""
        held = self.keys.get(layer)
        if held is not None and (held.shape[:2], held.shape[3]) != (keys.shape[:2], keys.shape[3]):
            raise ValueError(
                f"a cache belongs to one batch: it holds (B, heads, ., size) {tuple(held.shape)}, got "
                f"{tuple(keys.shape)}{where(f'blocks.{layer}')}"
            )
        KVCache.append(self, layer, keys, values)
        whole = self._decode(layer)
        while self.bits is not None and self.keys[layer].shape[2] >= self.group + self.window:
            self._pack(layer)
        return whole

    def _decode(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, in the order of the tokens."""
        packed, waiting = self.packed.get(layer, []), (self.keys[layer], self.values[layer])
        if not packed:
            return waiting
        return tuple(
            torch.cat([*(pair[side].decode().to(rest.dtype) for pair in packed), rest], dim=2)
            for side, rest in enumerate(waiting)
        )

    def _pack(self, layer: int) -> None:
        """Round the oldest group that waits."""
        keys, values = self.keys[layer], self.values[layer]
        pair = (
            PackedGroup.from_dense(keys[:, :, : self.group], self.bits, self.key_dim),
            PackedGroup.from_dense(values[:, :, : self.group], self.bits, 3),
        )
        self.packed.setdefault(layer, []).append(pair)
        self.keys[layer], self.values[layer] = keys[:, :, self.group :].clone(), values[:, :, self.group :].clone()

    def cut(self, length: int) -> None:
        """Forget all tokens after the first `length`.

        A group that is cut in two waits again, as the numbers that it was rounded to. With a `window` as long as
        the cuts are deep no group is cut.
        """
        check_int("length", length, 0, self.length)
        for layer in self.keys:
            packed, reopened = self.packed.get(layer, []), []
            while packed and self.group * len(packed) > length:
                reopened.insert(0, packed.pop())
            for side, held in enumerate((self.keys, self.values)):
                parts = [pair[side].decode().to(held[layer].dtype) for pair in reopened]
                held[layer] = torch.cat([*parts, held[layer]], dim=2)[:, :, : length - self._rounded(layer)]

    def count_bytes(self) -> int:
        """The bytes of the packed groups with their scales and minima, and of the tokens that wait."""
        return super().count_bytes() + sum(
            side.count_bytes() for packed in self.packed.values() for pair in packed for side in pair
        )


def cached_window_bits(
    model: nn.Module, split: TextSplit, make_cache: Callable[[], KVCache] = KVCache, *, chunk: int = 16
) -> Tensor:
    """`window_bits` of a model that reads each window through a cache, `chunk` tokens at a time; (windows,).

    With a plain `KVCache` it is `window_bits`, up to rounding. A `QuantizedKVCache` whose `group` is a multiple of
    `chunk` gives what reading one token at a time would give.

    Args:
        model: a `GPT`. split: the text. make_cache: makes an empty cache, such as `partial(QuantizedKVCache, 4)`.
        chunk: tokens per step, at least 1.

    Raises:
        TypeError, ValueError: `chunk` is no whole number of at least 1.
    """
    check_int("chunk", chunk, 1)
    rows = []
    with evaluating(model):
        for x, y in split.batches(64):
            memory = make_cache()
            logits = torch.cat([model.step(part, memory)[0] for part in x.split(chunk, dim=1)], dim=1)
            nats = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), reduction="none")
            rows.append(nats.view(y.shape).double().mean(1) / log(2))
    return torch.cat(rows)
