r"""Fastfood: a dense random matrix imitated by diagonals, Hadamard transforms and a permutation.

Three diagonals of n numbers and two fast transforms behave like an n x n matrix of normal numbers: a
transform mixes every input into every output, the diagonals make the mixture irregular, the permutation keeps
the two transforms from cancelling. It costs n log n additions and 3 n products. Made to approximate kernels
with random diagonals; with *learned* ones it is a layer that replaces a fully connected one ("deep fried").
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int
from compresslab.core.hadamard import hadamard_transform
from compresslab.core.modules import as_parameter
from compresslab.sharing.hashing import LARGEST_SEED, hash_indices
from compresslab.sharing.tables import to_keep


class FastfoodLinear(nn.Module):
    r"""A linear layer of three learned diagonals per n outputs.

    .. math:: y = S\, H\, G\, \Pi\, H\, B\, x + c, \qquad H H^\top = I, \quad n = 2^k \ge \text{inputs}

    The input is padded with zeros to n entries. More than n outputs come from several such stacks, one below
    the other, each with diagonals and a permutation of its own; outputs that are too many are left out. The
    permutations follow from the seed (see ``hash_indices``) and are not stored.

    Args:
        b, g, s: the diagonals, floating-point, (stacks, n) each.
        in_features: 1 to n, and above n / 2.
        out_features: 1 to stacks n, and above (stacks - 1) n.
        bias: c, (out_features,), or None.
        seed: of the permutations.

    Shape: (..., in_features) -> (..., out_features).

    Raises:
        TypeError: a diagonal is not floating-point.
        ValueError: the arrays do not fit each other or the sizes; in ``forward``: an input of another size.

    Source: Z. Yang, M. Moczulski, M. Denil, N. de Freitas, A. Smola, L. Song, Z. Wang, "Deep Fried Convnets",
    ICCV 2015; after Q. Le, T. Sarlos, A. Smola, "Fastfood - Approximating Kernel Expansions in Loglinear
    Time", ICML 2013.
    Differs: each H is divided by the square root of n, so that all three diagonals are about 1 in size.

    Example:
        >>> ones = torch.ones(1, 4)  # nothing but H P H is left
        >>> FastfoodLinear(ones, ones, ones, 4, 4)(torch.tensor([1.0, 1.0, 1.0, 1.0])).detach()
        tensor([ 1.,  1., -1., -1.])
    """

    meta = ("in_features", "out_features", "seed")

    def __init__(
        self,
        b: Tensor,
        g: Tensor,
        s: Tensor,
        in_features: int,
        out_features: int,
        bias: Tensor | None = None,
        seed: int = 0,
    ):
        super().__init__()
        stacks, n = _sizes(in_features, out_features)
        for name, diagonal in (("b", b), ("g", g), ("s", s)):
            if not diagonal.is_floating_point():
                raise TypeError(f"{name} must be floating-point, got {diagonal.dtype}")
            if tuple(diagonal.shape) != (stacks, n):
                raise ValueError(
                    f"{name} must have shape {(stacks, n)} for {in_features} inputs and "
                    f"{out_features} outputs, got {tuple(diagonal.shape)}"
                )
            setattr(self, name, as_parameter(diagonal))
        if bias is not None and tuple(bias.shape) != (out_features,):
            raise ValueError(f"bias must have shape ({out_features},), got {tuple(bias.shape)}")
        self.bias = as_parameter(bias)
        self.in_features, self.out_features, self.seed = in_features, out_features, seed
        check_int("seed", seed, 0, LARGEST_SEED - stacks)
        orders = [hash_indices((n,), n, seed + stack, injective=True)[0] for stack in range(stacks)]
        self._order = to_keep(lambda: torch.stack(orders).to(b.device))  # no buffer: it follows from the seed

    @classmethod
    def random(
        cls, in_features: int, out_features: int, *, bias: bool = True, seed: int = 0
    ) -> "FastfoodLinear":
        r"""A layer to be trained, whose matrix looks like one of normal numbers of variance 1 / (3 inputs).

        B holds random signs, G normal numbers. S holds lengths of normal vectors, divided by the length of
        G's diagonal: rows of the product before it all have that length. The variance is the one that
        ``nn.Linear`` begins with.

        Args:
            in_features, out_features: at least 1.
            bias: whether the layer has one; it begins as in ``nn.Linear``.
            seed: of the permutations and of the numbers.

        Raises:
            TypeError, ValueError: no whole numbers of at least 1, or a negative seed.
        """
        stacks, n = _sizes(in_features, out_features)
        rng = np.random.default_rng(check_int("seed", seed, 0, LARGEST_SEED - stacks))
        b = rng.choice([-1.0, 1.0], size=(stacks, n))
        g = rng.standard_normal((stacks, n))
        lengths = np.sqrt(rng.chisquare(n, size=(stacks, n)))  # of normal vectors of n entries
        s = lengths / np.linalg.norm(g, axis=1, keepdims=True) * math.sqrt(n / (3 * in_features))
        c = rng.uniform(-1, 1, size=out_features) / math.sqrt(in_features)
        b, g, s, c = (torch.from_numpy(array).float() for array in (b, g, s, c))
        return cls(b, g, s, in_features, out_features, c if bias else None, seed)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"the input must end in {self.in_features} features, got {tuple(x.shape)}")
        n = self.b.shape[1]
        if self._order.device != x.device:
            self._order = to_keep(lambda: self._order.to(x.device))
        padded = nn.functional.pad(x, (0, n - self.in_features)).unsqueeze(-2)  # (..., 1, n)
        mixed = hadamard_transform(self.b * padded)  # (..., stacks, n)
        mixed = self.g * mixed.gather(-1, self._order.expand(mixed.shape))
        y = self.s * hadamard_transform(mixed) / n  # a square root of n for each transform
        y = y.flatten(-2)[..., : self.out_features]
        return y if self.bias is None else y + self.bias

    def to_dense(self) -> nn.Linear:
        """The plain layer with the same outputs."""
        layer = nn.utils.skip_init(
            nn.Linear, self.in_features, self.out_features, self.bias is not None,
            device=self.b.device, dtype=self.b.dtype,
        )  # fmt: skip
        with torch.no_grad():
            columns = self(torch.eye(self.in_features, device=self.b.device, dtype=self.b.dtype))
            layer.weight.copy_((columns if self.bias is None else columns - self.bias).T)
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer.train(self.training)

    def count_macs(self, inputs: tuple, output: Tensor) -> int:
        r"""Per stack, two transforms of :math:`n \log_2 n` additions (counted as MACs), and 3 n products."""
        stacks, n = self.b.shape
        return output.numel() // self.out_features * stacks * (2 * n * (n.bit_length() - 1) + 3 * n)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, seed={self.seed}"
        )


def _sizes(in_features: int, out_features: int) -> tuple[int, int]:
    """(stacks, n): the power of two that holds the inputs, and how many of them hold the outputs."""
    n = 1 << (check_int("in_features", in_features, 1) - 1).bit_length()
    return -(-check_int("out_features", out_features, 1) // n), n
