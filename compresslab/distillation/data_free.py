r"""Images from a teacher alone: what its batch norm still remembers of the data.

The training images are gone, or secret, but every batch-norm layer kept two numbers per channel: the mean and
the variance of what flowed in. Start from noise and follow the gradient *of the pixels* until the teacher
calls the images what we ask for, and what they send through the network has those means and variances:

.. math:: \hat x = \arg\min_x\; \mathrm{CE}(y, f(x)) + a_{bn} R_{bn}(x) + a_{tv} R_{tv}(x) + a_2 \|x\|^2

The result is no photograph; it is enough to distil from. Read it as a warning too: weights are not anonymous.

Source: H. Yin, P. Molchanov, J. M. Alvarez, Z. Li, A. Mallya, D. Hoiem, N. K. Jha, J. Kautz, "Dreaming to
    Distill: Data-free Knowledge Transfer via DeepInversion", CVPR 2020, section 3; images from a
    network's stored statistics: R. G. Lopes, S. Fenu, T. Starner, "Data-Free Knowledge Distillation for Deep
    Neural Networks", 2017.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.calibrate import watch
from compresslab.core.errors import check_int
from compresslab.core.progress import progress_bar
from compresslab.core.train import device_of, evaluating
from compresslab.data import Split
from compresslab.distillation.soft_targets import check_labels

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch-norm layers that kept their statistics, by name.

    Raises:
        ValueError: there is none: this network remembers nothing that could be inverted.
    """
    found = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, BATCH_NORMS) and layer.running_mean is not None
    }
    if not found:
        raise ValueError("the network has no batch norm with running statistics: there is nothing to invert")
    return found


def watch_batch_norms(model: nn.Module) -> AbstractContextManager[dict[str, Tensor]]:
    """Inside, a dictionary keeps the latest input of every batch norm, gradients attached, (N, C, ...)."""
    return watch(model, batch_norms(model), inputs=True)


def statistics_distance(x: Tensor, layer: nn.Module) -> Tensor:
    r"""How far a batch that enters a batch norm is from the batches it was trained on.

    .. math:: \| \mu(x) - \mu_{bn} \|_2 + \| \sigma^2(x) - \sigma^2_{bn} \|_2

    Args:
        x: what enters the layer, (N, C, ...), with 2 or more numbers per channel.
        layer: the batch norm.

    Returns:
        a scalar; 0 for the very batch the statistics were taken from.

    Raises:
        ValueError: one number per channel, which has no variance.

    Source: Yin et al., CVPR 2020, section 3.

    Example:
        >>> layer = nn.BatchNorm1d(1)  # mean 0, variance 1
        >>> statistics_distance(torch.tensor([[2.0], [4.0]]), layer).item()  # mean 3, variance 2
        4.0
    """
    rows = x.transpose(0, 1).flatten(1)  # (C, everything else)
    if rows.shape[1] < 2:
        raise ValueError(f"a variance takes 2 numbers per channel or more, got shape {tuple(x.shape)}")
    mean = torch.linalg.vector_norm(rows.mean(1) - layer.running_mean)
    return mean + torch.linalg.vector_norm(rows.var(1, correction=1) - layer.running_var)


def total_variation(x: Tensor) -> Tensor:
    r"""Mean squared difference of neighbouring pixels, down plus right: small for smooth images.

    Args:
        x: (N, C, H, W).

    Returns:
        a scalar; 0 for an image of a single colour, and for one of a single pixel.

    Example:
        >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])).item()
        1.0
    """
    steps = x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]
    return sum((step.square().mean() for step in steps if step.numel()), x.new_zeros(()))


def invert(
    teacher: nn.Module,
    labels: Tensor,
    shape: tuple[int, int, int],
    *,
    steps: int = 200,
    lr: float = 0.1,
    statistics: float = 1.0,
    smoothness: float = 0.1,
    decay: float = 0.001,
    seed: int = 0,
    progress: bool = True,
    history: list[dict] | None = None,
) -> Tensor:
    r"""Find images that the teacher gives these labels, and that look to its batch norms like training data.

    Args:
        teacher: a trained network with batch norm; it is left as it was.
        labels: int64 (N,), the classes to draw; N of 32 or more gives useful statistics.
        shape: of one image, (C, H, W), as in ``split.shape``.
        steps: of Adam on the pixels, >= 0.
        lr: its step size, > 0, on the scale of normalised images.
        statistics, smoothness, decay: :math:`a_{bn}, a_{tv}, a_2 \ge 0`; 0 leaves a term out.
        seed: of the noise to begin with.
        progress: show a bar.
        history: a list that receives {"step", "labels", "statistics"} per step: the cross-entropy and
            :math:`R_{bn}`.

    Returns:
        normalised float32 images, (N, C, H, W), on the CPU.

    Raises:
        TypeError, ValueError: labels that are no class numbers of the teacher, a shape that is not three
            whole numbers, a teacher without batch norm, ``steps`` or ``lr`` out of range, a negative weight.

    Source: Yin et al., CVPR 2020, section 3.
    Differs: no jitter and no flips; total variation and norm are squared and averaged over the pixels; no
        competition between teacher and student.
    """
    _check(labels, shape, steps, lr, statistics=statistics, smoothness=smoothness, decay=decay)
    device, norms, generator = device_of(teacher), batch_norms(teacher), torch.Generator().manual_seed(seed)
    x, labels = torch.randn(len(labels), *shape, generator=generator).to(device), labels.to(device)
    updates = torch.optim.Adam([x.requires_grad_()], lr)
    with evaluating(teacher), torch.enable_grad(), watch_batch_norms(teacher) as inputs:
        check_labels(labels, teacher(x))
        for step in progress_bar(range(steps), "inverting", unit="step", show=progress):
            wrong = F.cross_entropy(teacher(x), labels)
            far = sum(statistics_distance(seen, norms[name]) for name, seen in inputs.items())  # of those that ran
            loss = wrong + statistics * far + smoothness * total_variation(x) + decay * x.square().mean()
            (x.grad,) = torch.autograd.grad(loss, x)
            updates.step()
            if history is not None:
                history.append({"step": step, "labels": wrong.item(), "statistics": far.item()})
    return x.detach().cpu()


def as_split(images: Tensor, labels: Tensor, like: Split) -> Split:
    """Invented images as a split, which `distill` takes in place of data: rounded to bytes, cut to [0, 255].

    Args:
        images: normalised, (N, C, H, W), from :func:`invert`.
        labels: int64 (N,).
        like: a split with the mean and the std that the teacher was trained with.

    Returns:
        N images.

    Example:
        >>> black = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
        >>> like = Split(black, torch.tensor([0]), mean=(0.5,), std=(0.5,))
        >>> images = torch.tensor([-1.0, 0.0, 9.0]).view(3, 1, 1, 1)
        >>> as_split(images, torch.tensor([0, 1, 2]), like).images.flatten()
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (like.mean, like.std))
    pixels = ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return Split(pixels, labels, like.mean, like.std)


def _check(labels: Tensor, shape: tuple[int, ...], steps: int, lr: float, **weights: float) -> None:
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels must be (N,), one per image, N at least 1, got shape {tuple(labels.shape)}")
    if len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), of one image, got {tuple(shape)}")
    for size in shape:
        check_int("every size in shape", size, 1)
    check_int("steps", steps, 0)
    if not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}")
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name} must be finite and not negative, got {weight}")
