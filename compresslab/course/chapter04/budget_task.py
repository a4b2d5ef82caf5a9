"""Exercise 4.14: a network in 12 kB, from 200 labels, a teacher, and a pile of images that nobody labelled."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake
from compresslab.data import Split

TASK = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_bytes=12_000, min_accuracy=0.95, images=4000)
STUDENT = {"input": [1, 28, 28], "layers": [
    ["conv", {"out_channels": 8, "kernel_size": 5, "stride": 2, "padding": 2, "bias": False}], ["batch_norm"], ["relu"],
    ["conv", {"out_channels": 12, "kernel_size": 3, "stride": 2, "padding": 1, "bias": False}], ["batch_norm"], ["relu"],
    ["max_pool"], ["flatten"], ["linear", {"out_features": 10}]]}


def labelled_and_pile() -> tuple[Split, Split]:
    """200 images with labels; 6,000 whose labels are gone (all 0)."""
    from compresslab.data import load_data
    images = load_data("ink_digits").train
    pile = images.take(1500 if mode.quick() else 6000)
    return images.take(200), replace(pile, labels=torch.zeros(len(pile), dtype=torch.int64))


def _student() -> nn.Module:
    from compresslab.models import from_spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return from_spec(STUDENT)


def _taught(images: Split, terms: list, epochs: int, lr: float = 0.01) -> nn.Module:
    """The student, trained with the library's loop under LeNet-5."""
    from compresslab.distillation.distill import distill
    from compresslab.models import load_baseline
    return distill(_student(), load_baseline("lenet5"), images, terms, epochs=epochs, lr=lr, batch_size=64, progress=False)


_saved = partial(saved_beside, "4.14")


def _soft() -> tuple:
    from compresslab.distillation.soft_targets import SoftTargets
    return 1.0, SoftTargets(4.0)


def _labels() -> tuple:
    from compresslab.distillation.soft_targets import Labels
    return 1.0, Labels()


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    return _saved(_taught(labelled_and_pile()[1], [_soft()], 1 if mode.quick() else 3, lr=0.02), "reference")


def labels_only() -> str:
    """200 labels, many passes."""
    return _saved(_taught(labelled_and_pile()[0], [_labels()], 15), "labels")


def labels_of_the_pile() -> str:
    """The pile's labels, which are all 0, believed."""
    return _saved(_taught(labelled_and_pile()[1].take(640), [_soft(), (10.0, _labels()[1])], 3), "zeros")


def too_short() -> str:
    """The right idea, a fraction of the pile."""
    return _saved(_taught(labelled_and_pile()[1].take(1500), [_soft()], 3), "short")


def the_teacher() -> str:
    from compresslab.models import load_baseline
    return _saved(load_baseline("lenet5"), "teacher")


def too_wide() -> str:
    from compresslab.models import from_spec
    wide = {**STUDENT, "layers": [[kind, {**options[0], "out_channels": 20}] if kind == "conv" else [kind, *options]
                                  for kind, *options in STUDENT["layers"]]}
    return _saved(from_spec(wide), "wide")


EXERCISE = Exercise(
    id="4.14", name="my_file", title="A pile without labels", dots=4, minutes=25, points=5, track="stretch", value=True,
    misconception="without labels there is nothing to learn from",
    reference=reference_file, verify=TASK.verify,
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("4.14"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("the teacher", the_teacher, "you saved the teacher, or something as large: the student goes into the file",
                when=TASK.breaks("bytes", 500_000)),
        Mistake("pile's labels believed", labels_of_the_pile,
                "your student answers 0 to nearly everything, or is not trained: the labels of the pile are gone (all 0), leave them out of its loss",
                when=TASK.breaks("accuracy", high=0.25)),
        Mistake("200 labels only", labels_only,
                "200 labels do not carry that far, however often you show them: let the teacher answer the 6,000 images of the pile",
                when=TASK.breaks("accuracy", 0.25, 0.8)),
        Mistake("too short", too_short, "the right way, and not far enough: the whole pile, a few passes more, a larger learning rate or small batches",
                when=TASK.breaks("accuracy", 0.8)),
        Mistake("too large", too_wide, "the file is over the budget: 12,000 bytes hold some 2,500 weights of 32 bits and the header; count with storage_report",
                when=TASK.breaks("bytes"))),
    hints=("The teacher does not ask for labels. What it says of the pile is all that soft targets need.",
           "Two small convolutions with stride 2 (8 and 12 channels), batch norms, a pooling and one linear layer take 10 kB. Soft targets alone, T = 4, "
           "AdamW with lr = 0.02, batches of 64, three passes over the pile. If you are short of bytes: chapter 02.",
           "student = from_spec({'input': [1, 28, 28], 'layers': [['conv', {'out_channels': 8, ...}], ['batch_norm'], ['relu'], ...]})\n"
           "student = distill(student, lenet, pile, [(1.0, SoftTargets(4.0))], epochs=3, lr=0.02, batch_size=64, progress=False)\n"
           "save(student, submission_path('4.14'))\nmy_file = str(submission_path('4.14'))"))
