r"""CLIP-Q: prune and quantize anew in every step of the training, beside a weight in full precision.

Deep Compression prunes for good, and then clusters for good. Here neither decision is ever final: the network
computes with a clipped and partitioned weight, the gradient goes to the full one behind it, and the next step
clips and partitions that afresh. A weight that was pruned too early grows until it is back.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from compresslab.core.bits import pack_bits
from compresslab.core.codes import CodebookCode, DenseCode, WeightCode, check_weight
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.prepare import Simulated, convert, prepare, straight_through
from compresslab.core.sparse import GapSparseCode
from compresslab.core.train import train
from compresslab.data import Split
from compresslab.distillation import adamw
from compresslab.pruning import keep_mask


def clip_partition(weight: Tensor, fraction: float, bits: int | None = 4) -> Tensor:
    r"""The weight as the network sees it in one step: the smallest entries at zero, the rest at few values.

    .. math:: \hat w_i = 0 \text{ for the fraction } p \text{ of smallest } |w_i|, \qquad
              \hat w_i = \frac{1}{|I_j|} \sum_{l \in I_j} w_l \text{ for } w_i \text{ in interval } j

    The surviving values lie between their smallest and their largest; that range is divided into
    :math:`2^b - 1` intervals of equal width, each open at its lower and closed at its upper end (the first
    one at both). Zero is the level number :math:`2^b`.

    Args:
        weight: any shape of at least one dimension, floating-point, finite.
        fraction: :math:`p`, in [0, 1]: exactly round(p n) entries are clipped; of equal magnitudes the first.
        bits: :math:`b`, 1 to 16; None means infinitely many intervals, so that the survivors stay as they
            are.

    Returns:
        float32, the shape of ``weight``.

    Raises:
        TypeError, ValueError: no finite floating-point weight, no fraction, bits out of range.

    Source:
        F. Tung, G. Mori, "CLIP-Q: Deep Network Compression Learning by In-Parallel Pruning-Quantization",
        CVPR 2018, section 3: clipping, (linear) partitioning, quantizing.

    Example:
        >>> clip_partition(torch.tensor([0.1, -0.2, 1.0, 2.0, 3.0, 7.0]), fraction=0.5, bits=1)
        tensor([0., 0., 0., 4., 4., 4.])
        >>> clip_partition(torch.tensor([0.1, -0.2, 1.0, 2.0, 3.0, 7.0]), fraction=0.5, bits=2)
        tensor([0.0000, 0.0000, 0.0000, 2.5000, 2.5000, 7.0000])
    """
    weight = check_weight(weight)
    kept = keep_mask(weight.abs(), check_fraction("fraction", fraction))
    left = weight[kept]
    if bits is not None and check_int("bits", bits, 1, 16) and len(left):
        left = _interval_means(left, 2**bits - 1)
    shown = torch.zeros_like(weight)
    shown[kept] = left
    return shown


def _interval_means(values: Tensor, intervals: int) -> Tensor:
    """Each value, (n,), replaced by the mean of all in its interval; in float64, then rounded once."""
    edges = torch.linspace(values.min().item(), values.max().item(), intervals + 1, device=values.device)
    interval = torch.bucketize(values, edges[1:-1])
    sums = values.new_zeros(intervals, dtype=torch.float64).index_add(0, interval, values.double())
    return (sums / interval.bincount(minlength=intervals))[interval].float()


class ClipQ(Simulated):
    r"""A weight that is clipped and partitioned in every step, over a master in full precision.

    Forward :func:`clip_partition`; backward the gradient passes straight to the master, to clipped entries
    too.

    Args:
        fraction: :math:`p`, in [0, 1], of the weights to clip; 0 is pure quantization.
        bits: :math:`b`, 1 to 8; None is pure pruning.
        index_bits: of a gap in the file, 2 to 8, as in ``core.sparse.GapSparseCode``.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source:
        Tung, Mori, CVPR 2018, section 3.
    Differs:
        p and b of each layer are given; the paper finds them by Bayesian optimisation.

    Example:
        >>> weight = torch.tensor([0.1, -0.2, 3.0, 7.0], requires_grad=True)
        >>> ClipQ(0.5, bits=1)(weight).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> weight.grad  # what is clipped learns as well
        tensor([1., 2., 3., 4.])
    """

    def __init__(self, fraction: float, bits: int | None = 4, *, index_bits: int = 8):
        super().__init__()
        self.fraction = check_fraction("fraction", fraction)
        self.bits = bits if bits is None else check_int("bits", bits, 1, 8)
        self.index_bits = check_int("index_bits", index_bits, 2, 8)

    def forward(self, weight: Tensor) -> Tensor:
        shown = clip_partition(weight.detach(), self.fraction, self.bits)
        return straight_through(weight, shown.to(weight.dtype))

    def to_code(self, weight: Tensor) -> WeightCode:
        """Gaps and a code book; without clipping a code book alone; without partitioning gaps and floats."""
        shown = clip_partition(weight, self.fraction, self.bits)
        if self.fraction == 0:
            return self._values(shown)
        return GapSparseCode.from_dense(shown, self._values, index_bits=self.index_bits)

    def _values(self, shown: Tensor) -> WeightCode:
        """The code of weights that stand at their levels already."""
        if self.bits is None:
            return DenseCode.from_dense(shown)
        levels, indices = shown.flatten().unique(return_inverse=True)
        return CodebookCode(pack_bits(indices, self.bits), levels, shown.shape, self.bits)

    def extra_repr(self) -> str:
        return f"fraction={self.fraction}, bits={self.bits}"


def clip_q(
    model: nn.Module,
    split: Split,
    fraction: float,
    bits: int | None = 4,
    *,
    epochs: int,
    lr: float = 0.002,
    skip: Collection[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """Train a copy of a network under CLIP-Q, and store what it ends with.

    Args:
        model: a trained network; it is not changed.
        split: the training images.
        fraction, bits: of every layer, as in :class:`ClipQ`.
        epochs, lr, seed, progress: of the training (AdamW), as in ``core.train.train``.
        skip: names of layers to leave as they are.

    Returns:
        a coded network, for ``save(..., entropy=True)``.

    Raises:
        TypeError, ValueError: as :class:`ClipQ`, ``core.prepare.prepare`` and ``core.train.train``.
    """
    simulated = ClipQ(fraction, bits)  # fires its checks once, before anything runs
    prepared = prepare(model, lambda weight: ClipQ(simulated.fraction, simulated.bits), skip=skip)
    trained = train(prepared, split, epochs=epochs, lr=lr, optimizer=adamw, seed=seed, progress=progress)
    return convert(trained)
