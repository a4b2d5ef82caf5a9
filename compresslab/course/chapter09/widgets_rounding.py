"""What the slider of section 4 computes: a layer in 8 bits for every alpha. Pure, and fast enough to be dragged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Smooth = Callable[[Tensor, list[Tensor], Tensor, float], tuple[Tensor, list[Tensor]]]


class SmoothLook:
    """Ranges and output error of one norm and the matrices behind it, input and weights rounded to 8 bits.

    Args:
        smooth: the function of exercise 9.6.
        gamma: (I,), the norm's weight. readers: (O, I) each. normed: (N, I), what gamma is multiplied by.
    """

    def __init__(self, smooth: Smooth, gamma: Tensor, readers: list[Tensor], normed: Tensor) -> None:
        self.smooth, self.gamma, self.readers, self.normed = smooth, gamma, readers, normed
        self.absmax = (normed * gamma).abs().amax(0)
        self.wanted = (normed * gamma) @ torch.cat(list(readers)).T
        self.as_given = self._error(gamma, readers)
        self.alphas = [step / 10 for step in range(11)]
        self.errors = [self.error(alpha) for alpha in self.alphas]

    def error(self, alpha: float) -> float:
        """|| round(X) round(W)^T - X W^T || / || X W^T ||, one scale for X, one for each row of W."""
        return self._error(*self.smooth(self.gamma, self.readers, self.absmax, alpha))

    def _error(self, gamma: Tensor, readers: list[Tensor]) -> float:
        x, W = self.normed * gamma, torch.cat(list(readers))
        got = round_to(x, x.abs().max()) @ round_to(W, W.abs().amax(1, keepdim=True)).T
        return ((got - self.wanted).norm() / self.wanted.norm()).item()

    def __call__(self, alpha: float) -> dict[str, Any]:
        gamma, readers = self.smooth(self.gamma, self.readers, self.absmax, alpha)
        x, w = (self.normed * gamma).abs().amax(0), torch.cat(list(readers)).abs().amax(0)
        return {"alpha": alpha, "x": x, "w": w, "error": self.error(alpha), "alphas": self.alphas, "errors": self.errors}


def round_to(x: Tensor, largest: Tensor, bits: int = 8) -> Tensor:
    """To the nearest of 2^bits - 1 levels between -largest and largest.

    Example:
        >>> round_to(torch.tensor([0.4, 3.0]), torch.tensor(3.0), bits=3)
        tensor([0., 3.])
    """
    step = largest / (2 ** (bits - 1) - 1)
    return torch.round(x / step) * step
