r"""HashedNets: a hash decides which weights are one and the same number.

A small vector of shared values stands behind a large *virtual* weight. Which value a position uses is not
stored: a hash of the position says so, again and again, on every machine. So the size of a layer is chosen
freely, apart from its width, and the price is that weights that have nothing to do with each other must
agree. Whether that beats a narrower dense network of the same bytes is the question to ask.

A value is used in many places, so its gradient is the **sum** of theirs, which autograd finds by itself:
the backward pass of "look up" is "add into".
"""

import numpy as np
import torch
from torch import Tensor

from compresslab.core.codes import check_weight
from compresslab.core.errors import check_fraction, check_int
from compresslab.sharing.tables import TableCode

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, made odd: the step of splitmix64
LARGEST_SEED = 2**63 - 1


def splitmix64(n: int, seed: int = 0) -> np.ndarray:
    r"""The hash of the positions 0 ... n-1: 64 bits each, by whole-number arithmetic modulo :math:`2^{64}`.

    .. math:: z = s + (i + 1)\,\gamma, \quad z \leftarrow (z \oplus z \gg 30)\, a, \quad
              z \leftarrow (z \oplus z \gg 27)\, b, \quad h(i) = z \oplus z \gg 31

    with the constants of the generator of that name, of which these are the first n outputs. No floating
    point takes part, so every platform gets the same bits.

    Args:
        n: how many, at least 0.
        seed: :math:`s`, 0 to :math:`2^{63} - 1`.

    Returns:
        uint64, (n,).

    Raises:
        TypeError, ValueError: no whole numbers in these ranges.

    Source: G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.

    Example:
        >>> [hex(h) for h in splitmix64(2).tolist()]
        ['0xe220a8397b1dcdaf', '0x6e789e6aa1b965f4']
    """
    check_int("n", n, 0)
    steps = np.arange(1, n + 1, dtype=np.uint64)
    z = steps * np.uint64(GOLDEN) + np.uint64(check_int("seed", seed, 0, LARGEST_SEED))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hash_indices(
    shape: tuple[int, ...], buckets: int, seed: int = 0, *, injective: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Which bucket each position of a weight falls into, and with which sign.

    One hash of the row-major position i serves both: :math:`\xi(i)` is its lowest bit (0 is plus), and the
    bucket is :math:`\lfloor h(i) / 2 \rfloor \bmod K`. The sign makes two weights of a bucket as often
    opposite as equal, so that the errors of what collides cancel on average.

    Args:
        shape: of the weight.
        buckets: K, at least 1.
        seed: of the hash.
        injective: no two positions in one bucket: position i takes the bucket whose number is the rank of
            :math:`h(i)` among all. Needs a bucket for every position; with K equal to their number the
            table is a permutation, and nothing is shared.

    Returns:
        indices, int64, and signs, float32, both of ``shape``.

    Raises:
        TypeError, ValueError: ``buckets`` or ``seed`` out of range, or too few buckets to be injective.

    Source: W. Chen, J. Wilson, S. Tyree, K. Weinberger, Y. Chen, "Compressing Neural Networks with the
    Hashing Trick", ICML 2015, section 4.
    Differs: one hash (splitmix64) gives bucket and sign; the paper draws them from two.

    Example:
        >>> hash_indices((2, 3), buckets=2)
        (tensor([[1, 0, 1],
                [0, 1, 1]]), tensor([[-1.,  1., -1.],
                [ 1., -1.,  1.]]))
    """
    n = int(np.prod(shape, dtype=np.int64))
    check_int("buckets", buckets, 1)
    hashes = splitmix64(n, seed)
    if injective:
        _check_injective(n, buckets)
        indices = np.argsort(np.argsort(hashes, kind="stable"))
    else:
        indices = ((hashes >> np.uint64(1)) % np.uint64(buckets)).astype(np.int64)
    signs = 1 - 2 * (hashes & np.uint64(1)).astype(np.float32)
    return torch.from_numpy(indices).view(shape), torch.from_numpy(signs).view(shape)


def bucket_loads(indices: Tensor, buckets: int) -> Tensor:
    """How many weights fall into each bucket.

    Args:
        indices: int64, any shape, 0 to ``buckets - 1``.
        buckets: K, at least 1.

    Returns:
        int64, (K,); they sum to the number of weights.

    Raises:
        ValueError: an index is outside the buckets.

    Example:
        >>> bucket_loads(torch.tensor([2, 0, 2, 2]), buckets=4)
        tensor([1, 0, 3, 0])
    """
    check_int("buckets", buckets, 1)
    if indices.numel() and not 0 <= indices.min() <= indices.max() < buckets:
        raise ValueError(
            f"indices must lie between 0 and {buckets - 1}, got {indices.min()} to {indices.max()}"
        )
    return torch.bincount(indices.flatten(), minlength=buckets)


def collisions(loads: Tensor) -> int:
    r"""How many weights are not alone in their bucket.

    For n weights thrown into K buckets at random, :math:`n\,(1 - (1 - 1/K)^{n-1})` are expected: at K = n
    that is already 63 of 100, while 37 buckets of 100 stay empty.

    Args:
        loads: from ``bucket_loads``.

    Example:
        >>> collisions(torch.tensor([1, 0, 3, 0]))
        3
    """
    return int(loads[loads > 1].sum())


class HashedCode(TableCode):
    r"""A few trainable values, and a hash that says where each of them is used.

    .. math:: V_{ij} = \xi(i, j)\, w_{h(i, j)}, \qquad
              \frac{\partial L}{\partial w_k} = \sum_{h(i,j) = k} \xi(i,j) \frac{\partial L}{\partial V_{ij}}

    Only the K values are stored.

    Args:
        values: :math:`w`, floating-point, (K,).
        shape: shape of the weight.
        seed: of the hash, 0 to :math:`2^{63} - 1`.
        injective: as in ``hash_indices``; with K = the number of weights it is a dense layer.

    Raises:
        TypeError: ``values`` is not floating-point.
        ValueError: ``values`` is not one vector of 1 to numel entries, or a bad ``seed``.

    Source: W. Chen et al., "Compressing Neural Networks with the Hashing Trick", ICML 2015, section 4.

    Example:
        >>> HashedCode(torch.tensor([1.0, 5.0]), (2, 3)).decode().detach()  # the table of the example above
        tensor([[-5.,  1., -5.],
                [ 1., -5.,  5.]])
    """

    meta = ("shape", "seed", "injective")
    signed = True

    def __init__(self, values: Tensor, shape: tuple[int, ...], seed: int = 0, injective: bool = False):
        super().__init__(values, shape)
        self.seed, self.injective = check_int("seed", seed, 0, LARGEST_SEED), injective
        if values.ndim != 1 or not 1 <= len(values) <= max(1, self.numel):
            raise ValueError(
                f"values must have shape (K,) with K from 1 to {max(1, self.numel)}, "
                f"the number of weights, got {tuple(values.shape)}"
            )
        if injective:
            _check_injective(self.numel, len(values))
        self._make_table_()

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        buckets: int | None = None,
        *,
        fraction: float | None = None,
        seed: int = 0,
        injective: bool = False,
        keep_scale: bool = False,
    ) -> "HashedCode":
        r"""The nearest values to a weight: the mean of :math:`\xi V` over each bucket; 0 for an empty one.

        Args:
            weight: any shape.
            buckets: K, 1 to the number of weights.
            fraction: of the number of weights, in (0, 1], in the place of ``buckets``; one bucket at least.
            seed, injective: of the table.
            keep_scale: for weights to be trained from random ones; see ``TableCode.fit_``.

        Raises:
            TypeError, ValueError: not just one of ``buckets`` and ``fraction``, or out of range.
        """
        weight = check_weight(weight)
        n = max(1, weight.numel())
        if (buckets is None) == (fraction is None):
            raise ValueError(f"give buckets or fraction, one of the two, got {buckets} and {fraction}")
        if fraction is not None:
            if check_fraction("fraction", fraction) == 0:
                raise ValueError("fraction must be above 0, got 0: nothing would be stored")
            buckets = max(1, round(fraction * n))
        check_int("buckets", buckets, 1, n)
        code = cls(weight.new_zeros(buckets), weight.shape, seed, injective)
        code.fit_(weight, keep_scale)
        return code

    @property
    def indices(self) -> Tensor:
        """The bucket of each weight, int64, of ``shape``."""
        return (self.table % len(self.values)).view(self.shape)

    @property
    def signs(self) -> Tensor:
        """The sign of each weight, float32, of ``shape``."""
        return 1 - 2 * (self.table >= len(self.values)).float().view(self.shape)

    def make_table(self) -> Tensor:
        indices, signs = hash_indices(self.shape, len(self.values), self.seed, injective=self.injective)
        return (indices + len(self.values) * (signs < 0)).flatten()


def _check_injective(numel: int, buckets: int) -> None:
    if buckets < numel:
        raise ValueError(f"an injective table of {numel} weights needs as many buckets, got {buckets}")
