"""The one loop of distillation: a student, a teacher, and a weighted sum of what is transferred.

    L = sum_k  w_k L_k(what this step sees)

Every method of the family is a `Term` L_k: soft targets read the logits, hints and attention maps read the
outputs of named layers, relations compare the images of a batch. The loop itself is `core.train.train`; this
file gives each step what its terms need, through hooks that are gone afterwards.

A teacher that sees the same images in every epoch says the same every time, so its outputs are computed once
(`teacher_outputs`) and looked up by row number. With augmentation the images differ, and the teacher runs along.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import find_layers, watch
from compresslab.core.train import MakeOptimizer, channels_last, device_of, evaluating, train
from compresslab.data import Split


@dataclass(frozen=True)
class Seen:
    """What one training step sees: B images, and what student and teacher make of them.

    Args:
        x: images, (B, C, H, W). y: labels, int64 (B,). indices: their rows in the training split, int64 (B,).
        student_logits, teacher_logits: (B, K); the teacher's carry no gradient.
        student, teacher: {layer name: output of that layer}.
    """

    x: Tensor
    y: Tensor
    indices: Tensor
    student_logits: Tensor
    teacher_logits: Tensor
    student: dict[str, Tensor] = field(default_factory=dict)
    teacher: dict[str, Tensor] = field(default_factory=dict)


class Term(nn.Module):
    """One term of the loss: `forward(seen)` returns a scalar.

    A term may have parameters of its own, such as the regressor of a hint: they are trained with the student
    and thrown away. `student_layers` and `teacher_layers` name the layers whose outputs it wants to see.
    """

    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()

    def forward(self, seen: Seen) -> Tensor:
        raise TypeError(f"{type(self).__name__} defines no forward(seen)")


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher says of every image of a split, in the order of the split.

    Args:
        logits: float32, (N, K). features: {layer name: (N, ...)}.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logits)

    def rows(self, indices: Tensor) -> TeacherOutputs:
        """The outputs for some of the images."""
        return TeacherOutputs(self.logits[indices], {name: f[indices] for name, f in self.features.items()})


def teacher_outputs(
    teacher: nn.Module, split: Split, layers: Iterable[str] = (), batch_size: int = 256
) -> TeacherOutputs:
    """Run a teacher over a split once, in eval mode and without gradients.

    Args:
        teacher: the network; its mode and its batch-norm statistics are left as they were.
        split: the images, N of them.
        layers: whose outputs to keep too. They stay in memory: 32 channels of 16x16 are 33 kB per image.
    Returns:
        logits (N, K) and features (N, ...), on the CPU.
    Raises:
        ValueError: an unknown layer, or an empty split.
    """
    if len(split) == 0:
        raise ValueError("there is nothing to teach: the split is empty")
    parts, layers = [], tuple(layers)
    for x in split.batches(batch_size, labels=False):
        seen = _teach(teacher, x, layers)
        parts.append(TeacherOutputs(seen.logits.cpu(), {name: f.cpu() for name, f in seen.features.items()}))
    features = {name: torch.cat([part.features[name] for part in parts]) for name in parts[0].features}
    return TeacherOutputs(torch.cat([part.logits for part in parts]), features)


def _teach(teacher: nn.Module, x: Tensor, layers: tuple[str, ...]) -> TeacherOutputs:
    """The teacher's outputs for one batch."""
    with evaluating(teacher), watch(teacher, layers) as features:
        logits = teacher(channels_last(x.to(device_of(teacher))))
    _check_ran("teacher", layers, features)
    return TeacherOutputs(logits, dict(features))


def adamw(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW with a decay of 0.01: steps that do not grow with the loss, whatever its factor T^2 is.

    Source: Loshchilov, Hutter, Decoupled Weight Decay Regularization, 2019.
    """
    return torch.optim.AdamW(parameters, lr, weight_decay=0.01)


def distill(
    student: nn.Module,
    teacher: nn.Module | TeacherOutputs,
    split: Split,
    terms: Sequence[tuple[float, Term]],
    *,
    epochs: int,
    lr: float = 0.002,
    batch_size: int = 128,
    optimizer: MakeOptimizer = adamw,
    after_step: Callable[[nn.Module, int], None] | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    seed: int = 0,
    progress: bool = True,
    history: list[dict] | None = None,
) -> nn.Module:
    """Train a copy of the student under a teacher, and return it in eval mode.

    Args:
        student: the network to train; the one given is left as it was.
        teacher: a network, never changed; or its outputs for exactly this split, from `teacher_outputs`,
            which many students can share.
        split: the training images.
        terms: pairs (weight, term), such as [(0.1, Labels()), (0.9, SoftTargets(4.0))].
        epochs, lr, batch_size, optimizer, augment, seed, progress, history: as in `core.train.train`; with
            `augment` the teacher sees the changed images too, and must be a network.
        after_step: called as `after_step(student, step)` after every update, such as a `GradualPruning`.
    Returns:
        the trained copy: the student alone, without hooks and without the parts of the terms.
    Raises:
        ValueError: no terms, a weight that is negative or not finite, a layer that student or teacher does not
            have, outputs for another number of images, outputs together with `augment`; and as
            `core.train.train`.
        TypeError: a term that is no `Term`; a teacher that is neither a network nor `TeacherOutputs`.
    Example:
        >>> from compresslab.distillation.soft_targets import SoftTargets
        >>> images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
        >>> split = Split(images, torch.tensor([0, 1, 0, 1]), (0.0,), (1.0,))
        >>> student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(1, 2)) for _ in range(2))
        >>> trained = distill(student, teacher, split, [(1.0, SoftTargets(2.0))], epochs=1, progress=False)
        >>> trained
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=1, out_features=2, bias=True)
        )
    """
    terms = _checked(terms)
    student_layers = _layers(terms, "student_layers")
    teacher_layers = _layers(terms, "teacher_layers")
    find_layers(student, student_layers)
    if not isinstance(teacher, (nn.Module, TeacherOutputs)):
        raise TypeError(f"the teacher is a network or its TeacherOutputs, got {type(teacher).__name__}")
    if augment is not None and isinstance(teacher, TeacherOutputs):
        raise ValueError("with augment the teacher must see the changed images: give the network, not its outputs")
    if augment is None and isinstance(teacher, nn.Module):
        teacher = teacher_outputs(teacher, split, teacher_layers)
    if isinstance(teacher, TeacherOutputs):
        _check_outputs(teacher, split, teacher_layers)

    def loss(model: _Learner, x: Tensor, indices: Tensor) -> Tensor:
        rows = indices.cpu()
        if isinstance(teacher, TeacherOutputs):
            taught = teacher.rows(rows)
        else:
            taught = _teach(teacher, x, teacher_layers)
        with watch(model.student, student_layers) as features:
            logits = model.student(x)
        _check_ran("student", student_layers, features)
        seen = Seen(x, split.y[rows].to(x.device), rows, logits, taught.logits.to(x.device), features,
                    {name: f.to(x.device) for name, f in taught.features.items()})  # fmt: skip
        return sum(weight * term(seen) for weight, term in zip(weights, model.terms, strict=True))

    def student_step(model: _Learner, step: int) -> None:
        after_step(model.student, step)

    weights = [weight for weight, _ in terms]
    parts = copy.deepcopy(nn.ModuleList(term for _, term in terms)).to(device_of(student))
    learner = _Learner(student, parts)
    numbered = replace(split, labels=torch.arange(len(split)))  # a step learns which rows it has
    return train(learner, numbered, epochs=epochs, lr=lr, batch_size=batch_size, optimizer=optimizer, loss=loss,
                 after_step=after_step and student_step, augment=augment, seed=seed, progress=progress, history=history).student  # fmt: skip


class _Learner(nn.Module):
    """What is trained: the student, and the parts that only its training needs."""

    def __init__(self, student: nn.Module, terms: nn.ModuleList) -> None:
        super().__init__()
        self.student, self.terms = student, terms


def _checked(terms: Sequence[tuple[float, Term]]) -> list[tuple[float, Term]]:
    terms = list(terms)
    if not terms:
        raise ValueError("give at least one term, such as (1.0, SoftTargets())")
    for pair in terms:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Term)):
            raise TypeError(f"terms are pairs (weight, Term), got {pair!r}")
        if not (pair[0] >= 0 and pair[0] < float("inf")):
            raise ValueError(f"the weight of {type(pair[1]).__name__} must be finite and not negative, got {pair[0]}")
    return terms


def _layers(terms: Sequence[tuple[float, Term]], which: str) -> tuple[str, ...]:
    """The layers that any term wants, each once."""
    return tuple(dict.fromkeys(name for _, term in terms for name in getattr(term, which)))


def _check_ran(who: str, layers: tuple[str, ...], outputs: dict[str, Tensor]) -> None:
    for name in layers:
        if name not in outputs:
            raise ValueError(f"the {who} never ran its layer {name!r}")


def _check_outputs(outputs: TeacherOutputs, split: Split, layers: tuple[str, ...]) -> None:
    if len(outputs) != len(split):
        raise ValueError(f"the teacher's outputs are of {len(outputs)} images, the split has {len(split)}")
    for name in layers:
        if name not in outputs.features:
            has = ", ".join(outputs.features) or "none"
            raise ValueError(f"the teacher's outputs lack layer {name!r}; they have {has}: name it in teacher_outputs")
