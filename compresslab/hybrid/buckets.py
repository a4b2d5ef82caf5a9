r"""Bucketed scaling: every few hundred weights have a range of their own, and all of them share the levels.

.. math:: \hat w_i = \alpha_{k(i)}\, p_{a(i)} + \beta_{k(i)}, \qquad
          \alpha_k = \max_k w - \min_k w, \quad \beta_k = \min_k w, \quad p_j \in [0, 1]

Bucket k holds consecutive weights, whatever row they are in. An outlier then spoils the scale of its own
bucket alone, for two floats a bucket: at 256 weights a quarter of a bit per weight.
"""

import torch
from torch import Tensor

from compresslab.core.bits import check_packed, pack_bits, unpack_bits
from compresslab.core.codes import WeightCode, check_weight
from compresslab.core.errors import check_int


def bucket_ranges(weight: Tensor, bucket: int) -> tuple[Tensor, Tensor]:
    r"""The scale and the offset of every bucket of the flattened weight.

    Args:
        weight: any shape, n entries.
        bucket: weights per bucket, at least 1; the last bucket holds what is left.

    Returns:
        :math:`\alpha` and :math:`\beta`, both (ceil(n / bucket),).

    Example:
        >>> bucket_ranges(torch.tensor([1.0, 4.0, -2.0, 0.0, 7.0]), bucket=2)
        (tensor([3., 2., 0.]), tensor([ 1., -2.,  7.]))
    """
    check_int("bucket", bucket, 1)
    flat = weight.flatten()
    count = -(-len(flat) // bucket)
    rows = torch.cat([flat, flat[-1:].expand(count * bucket - len(flat))]).view(count, bucket)
    if count == 0:
        return flat.clone(), flat.clone()
    low = rows.amin(1)
    return rows.amax(1) - low, low


def scale_to_buckets(weight: Tensor, scale: Tensor, offset: Tensor, bucket: int) -> Tensor:
    r""":math:`(w_i - \beta_{k(i)}) / \alpha_{k(i)}`, (n,), between 0 and 1; 0 in a bucket without extent.

    Example:
        >>> scale_to_buckets(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0]), torch.tensor([1.0]), 3)
        tensor([0.0000, 0.5000, 1.0000])
    """
    flat = weight.flatten()
    alpha, beta = (_spread(values, bucket, len(flat)) for values in (scale, offset))
    return (flat - beta) / torch.where(alpha > 0, alpha, 1.0)


def nearest_points(weight: Tensor, points: Tensor, scale: Tensor, offset: Tensor, bucket: int) -> Tensor:
    """For each weight the number of the nearest point: int64 (n,); of two equally near the lower value.

    Args:
        weight: any shape, n entries. points: :math:`p` (K,), in any order.
        scale, offset, bucket: of :func:`bucket_ranges`; a bucket without extent counts as all at its lower
            end.

    Example:
        >>> nearest_points(torch.tensor([0.0, 3.0, 10.0]), torch.tensor([0.5, 0.0, 1.0]), *bucket_ranges(
        ...     torch.tensor([0.0, 3.0, 10.0]), 3), 3)
        tensor([1, 0, 2])
    """
    x = scale_to_buckets(weight, scale, offset, bucket)
    ordered, order = points.detach().sort(stable=True)
    return order[torch.bucketize(x, (ordered[1:] + ordered[:-1]) / 2)]


def at_points(points: Tensor, indices: Tensor, scale: Tensor, offset: Tensor, bucket: int) -> Tensor:
    r""":math:`\alpha_{k(i)}\, p_{a(i)} + \beta_{k(i)}`, (n,), differentiable in the points.

    Example:
        >>> at_points(torch.tensor([0.0, 0.5]), torch.tensor([0, 1, 1]), torch.tensor([4.0, 2.0]),
        ...           torch.tensor([1.0, 0.0]), bucket=2)
        tensor([1., 3., 1.])
    """
    alpha, beta = (_spread(values, bucket, len(indices)) for values in (scale, offset))
    return points.index_select(0, indices) * alpha + beta


def _spread(values: Tensor, bucket: int, numel: int) -> Tensor:
    """One value per bucket to one per weight: (ceil(n / bucket),) to (n,)."""
    return values.repeat_interleave(bucket)[:numel]


class BucketCode(WeightCode):
    r"""An index into shared points per weight, a scale and an offset per bucket.

    Args:
        packed: uint8, ``pack_bits`` of the indices :math:`a(i)`, n of them.
        points: :math:`p`, floating-point, (K,), at most ``2**bits``.
        scale, offset: :math:`\alpha` and :math:`\beta`, floating-point, (ceil(n / bucket),).
        shape: shape of the weight.
        bits: 1 to 8.
        bucket: weights per bucket, at least 1.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or size.

    Source:
        A. Polino, R. Pascanu, D. Alistarh, "Model Compression via Distillation and Quantization", ICLR 2018
        (its scaling function, applied to buckets).

    Example:
        >>> BucketCode.from_dense(torch.tensor([0.0, 0.2, 1.0, -8.0, 1.0, 8.0]), bits=1, bucket=3).decode()
        tensor([ 0.,  0.,  1., -8.,  8.,  8.])
    """

    meta = ("shape", "bits", "bucket")
    roles = {"packed": "indices", "points": "codebook", "scale": "scales", "offset": "scales"}

    def __init__(
        self,
        packed: Tensor,
        points: Tensor,
        scale: Tensor,
        offset: Tensor,
        shape: tuple[int, ...],
        bits: int,
        bucket: int,
    ):
        super().__init__(shape)
        self.bits, self.bucket = check_int("bits", bits, 1, 8), check_int("bucket", bucket, 1)
        check_packed(packed, bits, self.numel)
        if points.ndim != 1 or not 1 <= len(points) <= 2**bits:
            allowed = f"(K,) with 1 <= K <= {2**bits}"
            raise ValueError(f"points must have shape {allowed}, got {tuple(points.shape)}")
        buckets = -(-self.numel // bucket)
        for name, values in (("scale", scale), ("offset", offset)):
            if values.shape != (buckets,):
                got = tuple(values.shape)
                raise ValueError(f"{name} must have shape ({buckets},), one per bucket, got {got}")
        self.register_buffer("packed", packed)
        self.register_buffer("points", points)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    @classmethod
    def from_dense(
        cls, weight: Tensor, bits: int = 4, *, bucket: int = 256, points: Tensor | None = None
    ) -> "BucketCode":
        """Round every weight to the nearest point of its bucket.

        Args:
            weight: any shape of at least one dimension.
            bits: 1 to 8.
            bucket: weights per bucket.
            points: (K,), ``2**bits`` evenly spaced from 0 to 1 where None: uniform quantization.
        """
        check_int("bits", bits, 1, 8)
        weight = check_weight(weight)
        points = uniform_points(bits).to(weight.device) if points is None else points.detach().float().clone()
        scale, offset = bucket_ranges(weight, bucket)
        indices = nearest_points(weight, points, scale, offset, bucket)
        return cls(pack_bits(indices, bits), points, scale, offset, weight.shape, bits, bucket)

    def decode(self) -> Tensor:
        indices = unpack_bits(self.packed, self.bits, self.numel).long()
        parts = self.points.float(), indices, self.scale.float(), self.offset.float()
        return at_points(*parts, self.bucket).view(self.shape)


def uniform_points(bits: int) -> Tensor:
    """``2**bits`` points evenly spaced from 0 to 1, both included.

    Example:
        >>> uniform_points(1)
        tensor([0., 1.])
    """
    return torch.linspace(0.0, 1.0, 2 ** check_int("bits", bits, 1, 8))
