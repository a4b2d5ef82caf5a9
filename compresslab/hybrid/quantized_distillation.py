r"""A teacher watches while the student's weights are rounded: quantized distillation, and levels that learn.

Two ways to make a small network that is quantized, too. *Quantized distillation* trains the weights: the
student is run with rounded ones, its loss is that of distillation, and the gradient goes straight through the
rounding. *Differentiable quantization* leaves the weights alone and trains the levels, whose gradient is
exact.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from compresslab.core.codes import check_weight
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.kmeans import kmeans_1d
from compresslab.core.prepare import Simulated, convert, prepare, straight_through
from compresslab.data import Split
from compresslab.distillation import Labels, SoftTargets, TeacherOutputs, distill
from compresslab.hybrid.buckets import (
    BucketCode,
    at_points,
    bucket_ranges,
    nearest_points,
    scale_to_buckets,
    uniform_points,
)

Teacher = nn.Module | TeacherOutputs


class BucketQuantize(Simulated):
    r"""A weight rounded to evenly spaced levels over the range of its bucket, trained straight through.

    Args:
        bits: 1 to 8.
        bucket: weights per bucket, at least 1.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source:
        A. Polino, R. Pascanu, D. Alistarh, "Model Compression via Distillation and Quantization", ICLR 2018,
        sections 2 and 3.
    Differs:
        Rounding to the nearest level only; the paper also has a stochastic one.

    Example:
        >>> BucketQuantize(bits=1, bucket=2)(torch.tensor([0.0, 1.0, 5.0, 9.0]))
        tensor([0., 1., 5., 9.])
    """

    def __init__(self, bits: int = 4, bucket: int = 256):
        super().__init__()
        self.bits, self.bucket = check_int("bits", bits, 1, 8), check_int("bucket", bucket, 1)
        self.register_buffer("points", uniform_points(bits))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            scale, offset = bucket_ranges(weight, self.bucket)
            indices = nearest_points(weight, self.points, scale, offset, self.bucket)
            value = at_points(self.points, indices, scale, offset, self.bucket)
        return straight_through(weight, value.view(weight.shape))

    def to_code(self, weight: Tensor) -> BucketCode:
        return BucketCode.from_dense(weight, self.bits, bucket=self.bucket, points=self.points)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, bucket={self.bucket}"


class DifferentiableQuantization(Simulated):
    r"""Weights that stay, levels that learn: the points of a layer are its only parameters.

    .. math:: Q(v, p)_i = \alpha_{k(i)}\, p_{a(i)} + \beta_{k(i)}, \qquad
              \frac{\partial L}{\partial p_j} = \sum_{i : a(i) = j} \alpha_{k(i)}\, g_i, \qquad
              g_i = \frac{\partial L}{\partial Q(v, p)_i}

    Each weight is at its nearest point, and goes over to another when that comes nearer. Between such jumps
    the gradient is exact: nothing is straight through here.

    Args:
        weight: the weight :math:`v` whose points are to be found.
        bits: 1 to 8; there are ``2**bits`` points, or as many as there are weights.
        bucket: weights per bucket, at least 1.

    Raises:
        TypeError, ValueError: no finite floating-point weight, or an empty one; an argument out of its range.

    Source:
        Polino, Pascanu, Alistarh, ICLR 2018, section 4.
    Differs:
        The points start at the k-means centres of the scaled weights. All weights of a layer share the
        points.

    Example:
        >>> levels = DifferentiableQuantization(torch.tensor([0.0, 1.0, 0.0, 4.0]), bits=1, bucket=2)
        >>> levels(torch.tensor([0.0, 1.0, 0.0, 4.0])).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> levels.points.grad  # 1 * 1 + 4 * 3 at point 0, 1 * 2 + 4 * 4 at point 1
        tensor([13., 18.])
    """

    def __init__(self, weight: Tensor, bits: int = 4, bucket: int = 256):
        super().__init__()
        self.bits, self.bucket = check_int("bits", bits, 1, 8), check_int("bucket", bucket, 1)
        weight = check_weight(weight)
        if weight.numel() == 0:
            raise ValueError("a weight whose points are to be found needs at least one entry, got none")
        scaled = scale_to_buckets(weight, *bucket_ranges(weight, bucket), bucket)
        self.points = nn.Parameter(kmeans_1d(scaled, min(2**bits, weight.numel()))[0])

    def forward(self, weight: Tensor) -> Tensor:
        weight = weight.detach()
        scale, offset = bucket_ranges(weight, self.bucket)
        indices = nearest_points(weight, self.points, scale, offset, self.bucket)
        return at_points(self.points, indices, scale, offset, self.bucket).view(weight.shape)

    def to_code(self, weight: Tensor) -> BucketCode:
        return BucketCode.from_dense(weight, self.bits, bucket=self.bucket, points=self.points)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, bucket={self.bucket}"


def quantized_distillation(
    student: nn.Module,
    teacher: Teacher,
    split: Split,
    *,
    bits: int = 4,
    bucket: int = 256,
    temperature: float = 4.0,
    alpha: float = 0.9,
    epochs: int,
    lr: float = 0.002,
    skip: Collection[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    r"""Train a student with rounded weights under a teacher, and store the rounded weights.

    .. math:: L = (1 - \alpha)\,CE + \alpha\,T^2\,KL(p_t^T \,\|\, p_s^T), \qquad
              w \leftarrow w - \eta\,\nabla L\big(Q(w)\big)

    With :math:`\alpha = 0` the teacher is silent: this is quantization-aware training.

    Args:
        student: a trained network, or one to be trained; it is not changed.
        teacher: a network, or its ``TeacherOutputs`` for this split.
        split: the training images.
        bits, bucket: as in :class:`BucketQuantize`, for every layer.
        temperature: T, positive.
        alpha: weight of the soft targets, in [0, 1]; the labels have the rest.
        epochs, lr, seed, progress: of the training (AdamW), as in ``core.train.train``.
        skip: names of layers to leave in floats.

    Returns:
        a coded network.

    Raises:
        TypeError, ValueError: an argument out of its range, an unknown layer, a student that is simulated
            already.

    Source:
        Polino, Pascanu, Alistarh, ICLR 2018, section 3.
    """
    prepared = prepare(student, lambda weight: BucketQuantize(bits, bucket), skip=skip)
    return _distil_and_convert(prepared, teacher, split, temperature, alpha, epochs=epochs, lr=lr, seed=seed,
                               progress=progress)  # fmt: skip


def differentiable_quantization(
    model: nn.Module,
    teacher: Teacher,
    split: Split,
    *,
    bits: int = 4,
    bucket: int = 256,
    temperature: float = 4.0,
    alpha: float = 0.9,
    epochs: int,
    lr: float = 0.0003,
    skip: Collection[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """Train the points of every layer (and the biases) under a teacher, and store the weights at them.

    Args, Returns, Raises:
        as :func:`quantized_distillation`; the weights behind the points stay what they are in ``model``.
        ``lr`` is smaller, for a point moves many weights at once.

    Source:
        Polino, Pascanu, Alistarh, ICLR 2018, section 4.
    """
    prepared = prepare(model, lambda weight: DifferentiableQuantization(weight, bits, bucket), skip=skip)
    return _distil_and_convert(prepared, teacher, split, temperature, alpha, epochs=epochs, lr=lr, seed=seed,
                               progress=progress)  # fmt: skip


def compact_distil_quantize(
    make_student: Callable[[], nn.Module],
    teacher: Teacher,
    split: Split,
    *,
    bits: int = 4,
    bucket: int = 256,
    temperature: float = 4.0,
    alpha: float = 0.9,
    epochs: int,
    quantize_epochs: int = 2,
    lr: float = 0.002,
    skip: Collection[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """The whole recipe: a compact student from scratch, distilled in floats, then distilled in few bits.

    Args:
        make_student: builds an untrained network, such as ``partial(build_model, "compact")``; its random
            weights are drawn with ``seed``.
        epochs: in floats. quantize_epochs: with rounded weights, at half the learning rate.
        teacher, split, bits, bucket, temperature, alpha, lr, skip, seed, progress: as in
            :func:`quantized_distillation`.

    Returns:
        a coded network.

    Raises:
        TypeError: ``make_student`` returns no network. And as :func:`quantized_distillation`.

    Source:
        Polino, Pascanu, Alistarh, ICLR 2018 (a shallower student, distilled and quantized).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = make_student()
    if not isinstance(student, nn.Module):
        raise TypeError(f"make_student must return a network, got {type(student).__name__}")
    student = distill(student, teacher, split, _terms(temperature, alpha), epochs=epochs, lr=lr, seed=seed,
                      progress=progress)  # fmt: skip
    return quantized_distillation(
        student, teacher, split, bits=bits, bucket=bucket, temperature=temperature, alpha=alpha,
        epochs=quantize_epochs, lr=lr / 2, skip=skip, seed=seed + 1, progress=progress,
    )  # fmt: skip


def _terms(temperature: float, alpha: float) -> list:
    """The labels' and the teacher's part of the loss."""
    check_fraction("alpha", alpha)
    return [(1 - alpha, Labels()), (alpha, SoftTargets(temperature))]


def _distil_and_convert(
    prepared: nn.Module, teacher: Teacher, split: Split, temperature: float, alpha: float, **training: object
) -> nn.Module:
    """Train what is simulated, then store it."""
    return convert(distill(prepared, teacher, split, _terms(temperature, alpha), **training))
