"""Exercise 3.13: a network for ink_digits with 20,000 parameters and a million multiply-accumulates, designed by the learner."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

TASK = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_parameters=20_000, max_macs=1_000_000,
                  min_accuracy=0.95, images=4000)


def stack(*widths: int, stem: int = 12, stride: int = 2, kind: str = "separable") -> dict[str, Any]:
    """A stem, blocks of one kind, the second and the last of stride 2, a linear layer on what is left of the image."""
    layers: list[list] = [["conv", {"out_channels": stem, "kernel_size": 3, "stride": stride, "padding": 1, "bias": False}],
                          ["batch_norm"], ["relu"]]
    for place, width in enumerate(widths):
        layers.append([kind, {"out_channels": width, "stride": 2 if place in (1, len(widths) - 1) else 1}])
    return {"input": [1, 28, 28], "layers": [*layers, ["flatten"], ["linear", {"out_features": 10}]]}


SPEC = stack(24, 40, 40, 64)


def _trained(spec: dict[str, Any], images: int = 6000) -> nn.Module:
    from compresslab.core.train import train
    from compresslab.data import load_data
    from compresslab.models import from_spec
    torch.manual_seed(0)
    ink = load_data("ink_digits").train.take(images)
    return train(from_spec(spec), ink, epochs=2, lr=0.1, batch_size=64, progress=False)


_saved = partial(saved_beside, "3.13")


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    with torch.random.fork_rng(devices=[]):
        return _saved(_trained(SPEC, 3000 if mode.quick() else 6000), "reference")


def untrained_file() -> str:
    """The right network, with random weights."""
    from compresslab.models import from_spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _saved(from_spec(SPEC).eval(), "untrained")


def fresh_file(spec: dict[str, Any], name: str) -> str:
    """An untrained network of this specification: too large or too slow, so nobody looks at its answers."""
    from compresslab.models import from_spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _saved(from_spec(spec).eval(), name)


def unnamed_file() -> str:
    """Good layers in an nn.Sequential of one's own: the file cannot say what they are."""
    return _saved(nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 13 * 13, 10)), "unnamed")


def baseline_file() -> str:
    """The course's LeNet-300-100, which has the accuracy."""
    from compresslab.models import load_baseline
    return _saved(load_baseline("lenet300"), "lenet300")


def _broken_file(path: str) -> bool:
    return TASK.breaks("file")(path)


def _says_nothing(path: str) -> bool:
    return _broken_file(path) and "which network" in TASK.report(path).problem


def _pickle(path: str) -> bool:
    return _broken_file(path) and not _says_nothing(path) and Path(path).read_bytes()[:2] == b"PK"


def _both(path: str) -> bool:
    report = TASK.report(path)
    return report.parameters > TASK.max_parameters and report.macs > TASK.max_macs


def _no_better_than_chance(path: str) -> bool:
    return TASK.breaks("accuracy", high=0.3)(path)


EXERCISE = Exercise(
    id="3.13", name="my_file", title="Your network", dots=4, minutes=30, points=5, track="core", value=True,
    misconception="a small network is a large network with fewer of everything",
    reference=reference_file, verify=TASK.verify,
    mistakes=(
        Mistake("no specification", unnamed_file,
                "the file does not say which network it holds: build it with from_spec(...), whose networks carry their specification, then train and save that",
                when=_says_nothing),
        Mistake("pickle", lambda: pickled_beside("3.13"), "this is no file of `save`: a pickle can run code, and no check will open it", when=_pickle),
        Mistake("both", lambda: fresh_file({"model": "resnet", "depth": 8, "width": 16, "in_channels": 1}, "both"),
                "too many parameters AND too many MACs: start from half the channels, halve the image in the first layer, and replace 3x3 "
                "convolutions by separable ones", when=_both),
        Mistake("too many parameters", baseline_file,
                "too many parameters: print them by layer; a linear layer on a flattened image, or a dense 3x3 between many channels, holds most of them",
                when=TASK.breaks("parameters")),
        Mistake("too many MACs", lambda: fresh_file(stack(24, 24, 24, 24, stem=24, stride=1), "slow"),
                "few parameters, too many MACs: each weight is used at every pixel, so halve the image early (stride 2 in the first layer)",
                when=TASK.breaks("macs")),
        Mistake("not trained", untrained_file, "small and fast enough, but it guesses: train the network before you save it (`train` returns a trained COPY)",
                when=_no_better_than_chance),
        Mistake("not good enough", lambda: fresh_file_trained_little(),
                "the budget is kept, the accuracy is not: there is room for more channels, for one more block, or for one more epoch",
                when=TASK.breaks("accuracy"))),
    hints=("Halve the image in the first layer: MACs fall by four. Spend parameters where the image is small, in pointwise convolutions.",
           "A separable block from M to N channels has 9 M + M N weights (and 2 (M + N) of batch norm), and takes them H' W' times. "
           "Widths of 12, 24, 40, 40, 64 at 14, 14, 7, 7 and 4 pixels have about 17,000 parameters and 0.3 million MACs; two epochs on 6,000 images are enough.",
           "spec = {'input': [1, 28, 28], 'layers': [\n    ['conv', {'out_channels': 12, 'kernel_size': 3, 'stride': 2, 'padding': 1, 'bias': False}], ['batch_norm'], ['relu'],\n"
           "    ['separable', {'out_channels': 24}], ['separable', {'out_channels': ..., 'stride': 2}], ...,\n    ['flatten'], ['linear', {'out_features': 10}]]}\n"
           "network = train(from_spec(spec), ink.train.take(6000), epochs=2, lr=0.1, batch_size=64, progress=False)\n"
           "save(network, submission_path('3.13'))\nmy_file = str(submission_path('3.13'))"))


def fresh_file_trained_little() -> str:
    """A tenth of the effort, and a network with a tenth of the budget."""
    with torch.random.fork_rng(devices=[]):
        return _saved(_trained(stack(4, 4, 4, stem=4), 2000), "small")
