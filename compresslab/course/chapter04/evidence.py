"""The long runs behind chapter 04: what a student of 20 thousand parameters gains from a teacher, and when.

``python -m compresslab evidence 04`` measures everything below; an entry is one training. A seed sets the
student's first weights and the order of the images, so runs of one seed are paired across methods. The teacher
is the shipped mobilenet; every student is judged on the same freshly drawn images.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from compresslab.core.measure import file_size
from compresslab.course.fresh import judge_fresh
from compresslab.data import Split, load_data
from compresslab.distillation import AttentionTransfer, Decoupled, Flow, Hint, Labels
from compresslab.distillation import RelationalAngle, RelationalDistance, SoftTargets, TeacherOutputs, Term
from compresslab.distillation import channel_regressor, distill, sharpness, shuffled_teacher, teacher_outputs, wrong_teacher
from compresslab.models import build_model, load_baseline

TEACHER = "mobilenet"
SEEDS = (0, 1, 2, 3, 4)
FEW_SEEDS = (0, 1, 2)
IMAGES = 4_000
JUDGES = 20_000
TRAINING = {"epochs": 25, "lr": 0.01, "batch_size": 64}  # chosen on validation images, for both alike
MIDDLE, LATE = ("stage2", "blocks.2"), ("stage3", "blocks.5")  # (student's layer, teacher's layer)
CHANNELS = {"stage2": 16, "blocks.2": 24, "stage3": 32, "blocks.5": 64}

Terms = list[tuple[float, Term]]


def _regressor(pair: tuple[str, str]) -> nn.Module:
    return channel_regressor(*(CHANNELS[layer] for layer in pair))


# What is transferred. The weights are those of the terms' docstrings; features come beside the labels, as in the papers.
METHODS: dict[str, Callable[[], Terms]] = {
    "labels": lambda: [(1.0, Labels())],
    "soft targets": lambda: [(1.0, SoftTargets(4.0))],
    "decoupled": lambda: [(1.0, Labels()), (1.0, Decoupled())],
    "hint": lambda: [(1.0, Labels()), (5.0, Hint(*LATE, _regressor(LATE)))],
    "attention": lambda: [(1.0, Labels()), (1.0, AttentionTransfer([MIDDLE, LATE]))],
    "flow": lambda: [(1.0, Labels()), (3.0, Flow(*zip(MIDDLE, LATE, strict=True), (_regressor(MIDDLE), _regressor(LATE))))],
    "relations": lambda: [(1.0, Labels()), (2.0, RelationalDistance(*LATE)), (4.0, RelationalAngle(*LATE))],
    # controls: is it the teacher's knowledge?
    "label smoothing": lambda: [(1.0, Labels(smoothing=0.1))],
    "shuffled non-targets": lambda: [(1.0, SoftTargets(4.0))],
    "wrong teacher": lambda: [(0.5, Labels()), (0.5, SoftTargets(4.0))],
}


@cache
def _split(images: int) -> Split:
    train = load_data("street_digits").train
    return train.take(min(images, len(train)))


@cache
def _outputs(images: int) -> TeacherOutputs:
    return teacher_outputs(load_baseline(TEACHER), _split(images), [MIDDLE[1], LATE[1]] if images == IMAGES else ())


def _teacher(method: str, images: int, seed: int) -> TeacherOutputs:
    outputs, labels = _outputs(images), _split(images).y
    if method == "shuffled non-targets":
        return shuffled_teacher(outputs, labels, seed=seed)
    return wrong_teacher(outputs, seed=seed) if method == "wrong teacher" else outputs


def new_student(seed: int) -> nn.Module:
    """An untrained ResNet-8 with 8, 16 and 32 channels: 19,802 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model("resnet", depth=8, width=8)


def student(experiment: str, method: str, seed: int, images: int = IMAGES, **training: Any) -> dict[str, Any]:
    """One student: how it was taught, and how good it is on fresh images."""
    settings = {**TRAINING, **training}
    trained = distill(new_student(seed), _teacher(method, images, seed), _split(images), METHODS[method](),
                      seed=seed, progress=False, **settings)  # fmt: skip
    judged = judge_fresh(trained, TEACHER, JUDGES)
    return {"experiment": experiment, "method": method, "seed": seed, "images": images, "epochs": settings["epochs"],
            "file_bytes": file_size(trained), "accuracy": judged["accuracy"], "behind_teacher": judged["loss"]}  # fmt: skip


def _paired() -> Iterable[tuple[str, Callable[[], dict[str, Any]]]]:
    for method in METHODS:
        for seed in SEEDS if method in ("labels", "soft targets") else FEW_SEEDS:
            yield f"{method}, seed {seed}", partial(student, "transfer", method, seed)


def _regimes() -> Iterable[tuple[str, Callable[[], dict[str, Any]]]]:
    for images, epochs, seeds in ((IMAGES, 8, SEEDS), (20_000, 10, FEW_SEEDS[:2])):
        for seed in seeds:
            for method in ("labels", "soft targets"):
                run = partial(student, "regime", method, seed, images, epochs=epochs)
                yield f"{images} images, {epochs} epochs, {method}, seed {seed}", run


def teacher() -> dict[str, Any]:
    """How sure the teacher is of its training images: 1 minus the entropy over log K, at several temperatures."""
    outputs = teacher_outputs(load_baseline(TEACHER), _split(2_000))
    right = (outputs.logits.argmax(1) == _split(2_000).y).double().mean().item()
    return {"experiment": "teacher", "network": TEACHER, "right": right,
            "sharpness": {str(t): round(sharpness(outputs.logits, t), 5) for t in (1.0, 2.0, 4.0, 8.0, 16.0)}}  # fmt: skip


ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    "teacher": teacher,
    **dict(_paired()),
    **dict(_regimes()),
}
