"""Exercise 10.11: a classifier of ink digits in a file of at most 2,048 bytes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from compresslab.course import mode
from compresslab.course.budget import pickled_beside, submission_path
from compresslab.course.budget_arrays import ArraysTask, pooled_features
from compresslab.course.exercise import Exercise, Mistake

TASK = ArraysTask(dataset="ink_digits", input_shape=(1, 28, 28), max_bytes=2048, min_accuracy=0.78, images=4000)
POINTS = 6000


@cache
def _points(count: int) -> tuple[Any, Any]:
    from compresslab.data import load_data

    return pooled_features(load_data("ink_digits").train.take(count))


def _saved(model: Any, name: str) -> str:
    from compresslab.classical.size import save_model

    path: Path = submission_path("10.11")
    path = path.with_name(f"{path.stem}-{name}.safetensors")
    save_model(model, path)
    return str(path)


@cache
def _protonn(count: int = POINTS, **settings: Any) -> Any:
    from compresslab.classical.prototypes import ProtoNNClassifier

    return ProtoNNClassifier(**{"epochs": 20, "batch_size": 128} | settings).fit(*_points(count))


def reference_file() -> str:
    """Prototypes of five bits; a smaller effort where notebooks are only tried."""
    count, epochs = (5000, 16) if mode.quick() else (POINTS, 20)
    return _saved(_protonn(count, dimensions=14, per_class=6, bits=5, epochs=epochs), "reference")


def eight_bits_file() -> str:
    """Fewer prototypes, of eight bits each."""
    return _saved(_protonn(dimensions=10, per_class=4, bits=8), "eight-bits")


def condensed_file() -> str:
    from compresslab.classical.condensed import CondensedNeighborsClassifier

    return _saved(CondensedNeighborsClassifier().fit(*_points(2000)), "condensed")


def floats_file() -> str:
    return _saved(_protonn(2000, dimensions=10, per_class=4, bits=32, epochs=2), "floats")


def nearly_file() -> str:
    return _saved(_protonn(2000, dimensions=14, per_class=6, bits=8, epochs=2), "nearly")


def few_prototypes_file() -> str:
    """Three directions see too little."""
    return _saved(_protonn(2000, dimensions=4, per_class=2, epochs=8), "few")


def untrained_file() -> str:
    """Two bits, and no training that could get used to them."""
    return _saved(_protonn(2000, dimensions=10, per_class=4, bits=2, epochs=0), "untrained")


EXERCISE = Exercise(
    id="10.11", name="my_model", title="A model in two kilobytes", dots=4, minutes=30, points=5, track="stretch", value=True,
    misconception="a classifier needs megabytes, or at least its training set",
    reference=reference_file, verify=TASK.verify, alternatives=(eight_bits_file,),
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("10.11"), "this is no file of `save_model`: such a file can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("training points", condensed_file, "most of the file is training points: learn prototypes, which need not be training points, and few of them",
                when=TASK.breaks("bytes", 12_000)),
        Mistake("floats", floats_file, "the right kind of model with four bytes for each number: set `bits`", when=TASK.breaks("bytes", 4_000, 12_000)),
        Mistake("nearly", nearly_file, "nearly: fewer bits, fewer prototypes, or fewer directions; the file's names and shapes take some hundred bytes, too",
                when=TASK.breaks("bytes", high=4_000)),
        Mistake("too coarse", untrained_file, "hardly better than guessing: was it trained at all, and trained *with* its few bits?", when=TASK.breaks("accuracy", high=0.5)),
        Mistake("too little", few_prototypes_file, "it fits, and has room to spare or training to gain: more directions, more prototypes, more points or epochs",
                when=TASK.breaks("accuracy", 0.5))),
    hints=("A number of 5 bits costs a sixth of a float. So first choose the bits, then spend the bytes on directions (W) and prototypes (B, Z), and let it train in these bits.",
           "bytes = header (300 to 400) + bits / 8 * (49 d + m d + 10 m) for d directions and m prototypes: d = 14, m = 60 and 5 bits, or d = 10, m = 40 and 8 bits.",
           "model = ProtoNNClassifier(dimensions=..., per_class=..., bits=..., epochs=20, batch_size=128).fit(points, labels)\n"
           "save_model(model, submission_path('10.11'))\nmy_model = str(submission_path('10.11'))"))
