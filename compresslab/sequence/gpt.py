r"""A small GPT: a transformer decoder that predicts the next token, with a cache of keys and values.

    x_0 = tokens' embeddings + positions' embeddings
    x   = x + o(attention(q(n), k(n), v(n))),   n = RMSNorm(x)
    x   = x + down(GELU(up(n))),                n = RMSNorm(x)
    logits = head(RMSNorm(x))

Every matrix is an `nn.Linear` of its own (q, k, v, o, up, down), so that each method of the course finds it by
its name, such as `blocks.0.up`. No biases: RMSNorm and linear layers only, which makes the network's stream
rotatable.

Source: A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019 (GPT-2).
Differs: RMSNorm instead of LayerNorm (B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS
2019), no biases, characters as tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_int
from compresslab.sequence.text import VOCABULARY


class KVCache:
    """The keys and values of the tokens read so far, so that a new token costs one column, not all of them.

    A cache belongs to one batch of texts. `append` is called once per layer and step.

    Example:
        >>> cache = KVCache()
        >>> keys, values = cache.append(0, torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
        >>> cache.append(0, torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))[0].shape, cache.length
        (torch.Size([1, 2, 4, 4]), 4)
    """

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    @property
    def length(self) -> int:
        """The number of tokens that every layer has seen."""
        return min((keys.shape[2] for keys in self.keys.values()), default=0)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new columns (B, heads, new, size) of a layer; returns all of them (B, heads, length, size)."""
        if layer in self.keys:
            keys = torch.cat([self.keys[layer], keys], dim=2)
            values = torch.cat([self.values[layer], values], dim=2)
        self.keys[layer], self.values[layer] = keys, values
        return keys, values

    def cut(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        check_int("length", length, 0, self.length)
        for held in (self.keys, self.values):
            for layer, tensor in held.items():
                held[layer] = tensor[:, :, :length]

    def count_bytes(self) -> int:
        """The bytes of the keys and values."""
        return sum(t.numel() * t.element_size() for held in (self.keys, self.values) for t in held.values())


class CausalAttention(nn.Module):
    r"""softmax(q k^T / sqrt(d)) v, where a token sees itself and what came before it; no parameters."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B, heads, new, d), k and v (B, heads, all, d), the new tokens last -> (B, heads, new, d)."""
        new, length = q.shape[2], k.shape[2]
        if new == length:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        seen = torch.ones(new, length, dtype=torch.bool, device=q.device).tril(length - new)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    def count_macs(self, inputs: tuple[Tensor, ...], output: Tensor) -> int:
        q, k, v = inputs
        return q.numel() * k.shape[2] + output.numel() * k.shape[2]


class Block(nn.Module):
    """One layer of the transformer: attention, then a feed-forward part; both add to the stream x.

    `heads` and `hidden` may differ from layer to layer: heads and hidden units can be removed.
    """

    def __init__(self, number: int, width: int, heads: int, head_size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.number, self.heads, self.head_size = number, heads, head_size
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q, self.k, self.v = (nn.Linear(width, heads * head_size, bias=False) for _ in range(3))
        self.o = nn.Linear(heads * head_size, width, bias=False)
        self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.attention, self.dropout = CausalAttention(), nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        n = self.norm1(x)  # (B, L, width)
        q, k, v = (self._split(layer(n)) for layer in (self.q, self.k, self.v))
        if cache is not None:
            k, v = cache.append(self.number, k, v)
        mixed = self.attention(q, k, v)  # (B, heads, L, head_size)
        x = x + self.dropout(self.o(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, heads * head_size) -> (B, heads, L, head_size)"""
        return x.unflatten(2, (self.heads, self.head_size)).transpose(1, 2)


class GPT(nn.Module):
    """A small GPT over characters.

    Args:
        vocabulary: number of tokens. width: numbers per token in the stream. layers: blocks. context: the
            largest number of tokens it can read.
        heads: per layer; one number for all layers, or a list. head_size: width / 4 where None.
        hidden: units of the feed-forward part, one number or a list; 4 * width where None.
        tied: the output layer uses the weight of the embedding.
        dropout: during training.

    Shape: tokens int64 (B, L) -> logits (B, L, vocabulary), L <= context.

    Raises:
        ValueError: a number out of range, or a list that has not one entry per layer.

    Example:
        >>> model = GPT(width=8, layers=2)
        >>> model(torch.zeros(1, 5, dtype=torch.int64)).shape
        torch.Size([1, 5, 97])
    """

    def __init__(
        self,
        vocabulary: int = len(VOCABULARY),
        width: int = 128,
        layers: int = 4,
        context: int = 128,
        heads: int | list[int] = 4,
        head_size: int | None = None,
        hidden: int | list[int] | None = None,
        tied: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("vocabulary", vocabulary), ("width", width), ("layers", layers), ("context", context)):
            check_int(name, value, 1, 65_536)
        self.context = context
        head_size = check_int("head_size", max(1, width // 4) if head_size is None else head_size, 1, 65_536)
        heads = _per_layer("heads", heads, layers)
        hidden = _per_layer("hidden", 4 * width if hidden is None else hidden, layers)
        self.spec = {
            "model": "gpt", "vocabulary": vocabulary, "width": width, "layers": layers, "context": context,
            "heads": heads, "head_size": head_size, "hidden": hidden, "tied": bool(tied), "dropout": dropout,
        }  # fmt: skip
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(number, width, heads[number], head_size, hidden[number], dropout) for number in range(layers)
        )
        self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, L, vocabulary) of the token after each; with a cache, `tokens` continue what it holds."""
        start = 0 if cache is None else cache.length
        if start + tokens.shape[1] > self.context:
            raise ValueError(f"the context is {self.context} tokens, got {start + tokens.shape[1]}")
        x = self.tokens(tokens) + self.positions(torch.arange(start, start + tokens.shape[1], device=tokens.device))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, cache)
        return self.head(self.norm(x))

    def step(self, tokens: Tensor, memory: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """Read tokens (B, L) after those in `memory` (None: none yet); returns logits (B, L, V) and memory."""
        memory = KVCache() if memory is None else memory
        return self(tokens, memory), memory


def _per_layer(name: str, value: int | list[int], layers: int) -> list[int]:
    values = [value] * layers if isinstance(value, int) else list(value)
    if len(values) != layers:
        raise ValueError(f"{name} needs one number per layer, {layers} of them, got {len(values)}")
    return [check_int(name, each, 1, 65_536, layer=f"blocks.{number}") for number, each in enumerate(values)]


def block_layers(model: GPT, *, kinds: tuple[str, ...] = ("q", "k", "v", "o", "up", "down")) -> list[str]:
    """The names of the matrices inside the blocks, in the order in which a token meets them.

    Example:
        >>> block_layers(GPT(width=8, layers=1))
        ['blocks.0.q', 'blocks.0.k', 'blocks.0.v', 'blocks.0.o', 'blocks.0.up', 'blocks.0.down']
    """
    return [f"blocks.{number}.{kind}" for number in range(len(model.blocks)) for kind in kinds]
