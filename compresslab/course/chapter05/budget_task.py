"""Exercise 5.14: LeNet-5 in 100 kB and 450,000 MACs."""

from __future__ import annotations

from functools import partial

from torch import nn

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

SPEC = {"model": "lenet5", "num_classes": 10}
TASK = BudgetTask(dataset="ink_digits", spec=SPEC, input_shape=(1, 28, 28), max_bytes=100_000, max_macs=450_000, min_accuracy=0.97, images=4000)
RANKS = {"conv1": 3, "conv2": 8, "fc1": 8}


def _decomposed(ranks: dict[str, int], method: str = "spatial") -> nn.Module:
    from compresslab.lowrank.decompose import decompose
    from compresslab.models import load_baseline
    return decompose(load_baseline("lenet5"), ranks, method=method)


def _tuned(network: nn.Module, images: int, epochs: int) -> nn.Module:
    from compresslab.core.train import train
    from compresslab.data import load_data
    return train(network, load_data("ink_digits").train.take(images), epochs=epochs, lr=0.01, batch_size=64, progress=False)


_saved = partial(saved_beside, "5.14")


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    return _saved(_tuned(_decomposed(RANKS), 1000 if mode.quick() else 4000, 1 if mode.quick() else 2), "reference")


def not_decomposed() -> str:
    from compresslab.models import load_baseline
    return _saved(load_baseline("lenet5"), "dense")


def not_tuned() -> str:
    return _saved(_decomposed(RANKS), "untuned")


def too_hard() -> str:
    return _saved(_tuned(_decomposed({"conv1": 1, "conv2": 1, "fc1": 1}), 640, 1), "hard")


def linear_layer_only() -> str:
    """The largest layer, and no other."""
    return _saved(_decomposed({"fc1": 8}), "linear")


def first_left_alone() -> str:
    """All layers but conv1, the smallest of them and the second dearest."""
    return _saved(_decomposed({"conv2": 8, "fc1": 8}), "first")


def convolutions_only() -> str:
    """Few operations, and nearly as large as before."""
    return _saved(_decomposed({"conv1": 3, "conv2": 8}), "convolutions")


EXERCISE = Exercise(
    id="5.14", name="my_file", title="Two limits, two kinds of layers", dots=3, minutes=20, points=5, track="core", value=True,
    misconception="the layer with most weights is the layer that costs most",
    reference=reference_file, verify=TASK.verify,
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("5.14"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("not decomposed", not_decomposed, "that is LeNet-5 as it was, or nearly: decompose it, and save what comes back", when=TASK.breaks("bytes", 1_720_000)),
        Mistake("convolutions only", convolutions_only, "the convolutions are small now; the bytes are in fc1, 400,000 of 431,080 weights", when=TASK.breaks("bytes", 1_500_000, 1_720_000)),
        Mistake("fc1 only", linear_layer_only, "you made fc1 small, and left conv2 as it was: its 25,000 weights alone take 100 kB, and most of the operations",
                when=lambda path: TASK.breaks("bytes", high=1_500_000)(path) and TASK.report(path).macs > 1_500_000),
        Mistake("a little too large", lambda: _saved(_decomposed({"conv1": 3, "conv2": 8, "fc1": 20}), "large"),
                "the file is over the budget: a rank of fc1 costs 1,300 weights, 5,200 bytes", when=TASK.breaks("bytes", high=1_500_000)),
        Mistake("conv1 left alone", first_left_alone,
                "the operations are over the budget: each weight of a convolution is used at every pixel, so conv1 with its 500 weights takes 288,000 MACs; decompose it, too",
                when=TASK.breaks("macs")),
        Mistake("too hard", too_hard, "small enough, with room to spare, and it knows little: use the budget, the limits allow a rank of 8 in conv2 and in fc1",
                when=TASK.breaks("accuracy", high=0.7)),
        Mistake("not fine-tuned", not_tuned, "small enough; not yet good enough: two passes over 4,000 training images bring back most of what was lost (or the ranks lie in the wrong layer)",
                when=TASK.breaks("accuracy", 0.7))),
    hints=("Print count_macs(lenet5, (1, 28, 28)).by_layer beside the weights of each layer: one limit is about the convolutions, the other about fc1.",
           "The 'spatial' method; for conv2 and fc1 a rank of about 8, for conv1 (a 5 x 100 matrix: rank 5 at most) 3. Then train with lr = 0.01, batches of 64, two passes over 4,000 images.",
           "small = decompose(lenet5, {'conv1': ..., 'conv2': ..., 'fc1': ...}, method='spatial')\nsmall = train(small, ink.train.take(4000), epochs=2, lr=0.01, batch_size=64, progress=False)\n"
           "save(small, submission_path('5.14'))\nmy_file = str(submission_path('5.14'))"))
