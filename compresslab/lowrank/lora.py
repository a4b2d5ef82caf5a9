r"""LoRA: train a low-rank change of a frozen layer, and add it to the weight when done.

.. math:: y = W x + b + \frac{\alpha}{r} B A x

The cousin of the decompositions of this chapter: they replace a weight by something of low rank; here the
weight stays, and what *training adds to it* is of low rank. So nothing is smaller in use, but few numbers are
trained, stored per task, and given memory for gradients and optimizer state.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from compresslab.core.errors import check_int, naming
from compresslab.core.layers import CodedLinear
from compresslab.core.modules import as_parameter, map_layers, named_layers

LINEAR = (nn.Linear, CodedLinear)


class LoRALinear(nn.Module):
    r"""A frozen linear layer and a trainable low-rank term: :math:`y = W x + b + \frac{\alpha}{r} B A x`.

    B starts at zero, so at first the layer computes what it did.

    Args:
        layer: an ``nn.Linear`` or a ``CodedLinear``: the frozen weight may be quantized. It is taken over,
            not copied, and frozen in place.
        rank: r, 1 to the smaller of its sizes.
        alpha: :math:`\alpha`, above 0; None for r, a factor of 1.
        a: A (r, in_features), if it is known; normal of variance 1 / in_features otherwise.
        b: B (out_features, r), if it is known; zero otherwise.
        seed: of A.

    Shape: (..., in_features) -> (..., out_features).

    Raises:
        TypeError: ``layer`` is none of these, the rank no whole number, or alpha no number.
        ValueError: the rank, alpha, or the shape of A or B is out of its range.

    Source:
        E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1.

    Example:
        >>> layer = LoRALinear(nn.Linear(10, 6), rank=2)
        >>> [name for name, p in layer.named_parameters() if p.requires_grad], trainable_parameters(layer)
        (['a', 'b'], 32)
    """

    meta = ("rank", "alpha")

    def __init__(
        self,
        layer: nn.Module,
        rank: int,
        alpha: float | None = None,
        a: Tensor | None = None,
        b: Tensor | None = None,
        *,
        seed: int = 0,
    ):
        super().__init__()
        if not isinstance(layer, LINEAR):
            raise TypeError(f"expected an nn.Linear or a CodedLinear, got {type(layer).__name__}")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.rank = check_int("rank", rank, 1, min(self.in_features, self.out_features))
        self.alpha = _check_alpha(self.rank if alpha is None else alpha)
        self.layer = layer.requires_grad_(False)
        if a is None:
            a = torch.randn(rank, self.in_features, generator=torch.Generator().manual_seed(seed))
            a = _like(layer, a / self.in_features**0.5)
        b = _like(layer, torch.zeros(self.out_features, rank)) if b is None else b
        shapes = {"a": (rank, self.in_features), "b": (self.out_features, rank)}
        for name, value in (("a", a), ("b", b)):
            if tuple(value.shape) != shapes[name]:
                raise ValueError(f"{name} must have shape {shapes[name]}, got {tuple(value.shape)}")
            self.register_parameter(name, as_parameter(value))

    @property
    def scale(self) -> float:
        r"""The factor of the low-rank term, :math:`\alpha / r`."""
        return self.alpha / self.rank

    @property
    def weight(self) -> Tensor:
        r"""The weight it stands for, :math:`W + \frac{\alpha}{r} B A`; attention reads it."""
        return self.layer.weight + self.scale * self.b @ self.a

    @property
    def bias(self) -> Tensor | None:
        """The frozen layer's bias."""
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * F.linear(F.linear(x, self.a), self.b)

    def count_macs(self, inputs: tuple, output: Tensor) -> int:
        """The multiplications of the low-rank term; the frozen layer is a child, and counted as such."""
        rows = output.numel() // self.out_features
        return rows * self.rank * (self.in_features + self.out_features)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"


def add_lora(
    model: nn.Module,
    rank: int,
    *,
    alpha: float | None = None,
    only: Collection[str] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of the model whose linear layers are ``LoRALinear``; all other parameters are frozen.

    A file holds numbers, not what is frozen: after ``core.store.load`` the layers inside the adapters are
    frozen again, but all else (norms, other layers) is as the skeleton has it. Freeze it before training on.

    Args:
        model: with at least one linear layer, plain or coded; it is not changed.
        rank, alpha: of every adapter.
        only: names of the layers to adapt; None for all linear ones.
        seed: each layer has random numbers of its own that follow from it.

    Raises:
        TypeError, ValueError: there is no linear layer, ``only`` names none, there are adapters already, or
            the rank or alpha is out of a layer's range; then the message ends with the layer's name.

    Example:
        >>> adapted = add_lora(nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 5)), 2)
        >>> trainable_parameters(adapted)  # 2 * (20 + 10) + 2 * (10 + 5), where 265 were
        90
    """
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError("the model has adapters already; merge_lora makes plain layers of them")
    chosen = list(named_layers(model, LINEAR, only=only))
    if not chosen:
        raise ValueError("the model has no linear layer to adapt")

    def adapt(name: str, layer: nn.Module) -> nn.Module | None:
        if name not in chosen:
            return None
        with naming(name):
            return LoRALinear(layer, rank, alpha, seed=seed + chosen.index(name)).train(layer.training)

    adapted = map_layers(model, LINEAR, adapt).requires_grad_(False)
    for module in adapted.modules():
        if isinstance(module, LoRALinear):
            module.a.requires_grad_(True)
            module.b.requires_grad_(True)
    return adapted


def merge_lora(model: nn.Module) -> nn.Module:
    """Return a copy with plain linear layers of weight W + (alpha / r) B A, all of it trainable again.

    The outputs are the same, up to rounding; nothing tells any more that there was an adapter.

    Example:
        >>> adapted = add_lora(nn.Sequential(nn.Linear(4, 3)), 1)
        >>> merge_lora(adapted)
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
        )
    """

    def merge(name: str, layer: LoRALinear) -> nn.Linear:
        like = {"device": layer.a.device, "dtype": layer.a.dtype}
        biased = layer.bias is not None
        plain = skip_init(nn.Linear, layer.in_features, layer.out_features, bias=biased, **like)
        with torch.no_grad():
            plain.weight.copy_(layer.weight)
            if biased:
                plain.bias.copy_(layer.bias)
        return plain.train(layer.training)

    return map_layers(model, LoRALinear, merge).requires_grad_(True)


def trainable_parameters(model: nn.Module) -> int:
    """How many numbers training may change; shared ones count once.

    Example:
        >>> trainable_parameters(nn.Linear(3, 2)), trainable_parameters(nn.Linear(3, 2).requires_grad_(False))
        (8, 0)
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _check_alpha(alpha: float) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise TypeError(f"alpha must be a number above 0, got {alpha!r}")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be a number above 0, got {alpha:g}")
    return float(alpha)


def _like(layer: nn.Module, values: Tensor) -> Tensor:
    """The values on the device and in the dtype of a layer's weight."""
    return values.to(layer.weight)
