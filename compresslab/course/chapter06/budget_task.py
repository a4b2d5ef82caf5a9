"""Exercise 6.13: LeNet-5 in a tenth of its file, by its classifier head alone, and a tenth of the head's multiplications."""

from __future__ import annotations

import copy
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

TASK = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_bytes=165_000, max_macs=1_928_500, min_accuracy=0.989, images=4000)


@cache
def _lenet5() -> nn.Module:
    from compresslab.models import load_baseline
    return load_baseline("lenet5")


@cache
def features(count: int) -> tuple[Tensor, Tensor]:
    """What the convolutions say of training images, (N, 800), and the labels, (N,)."""
    from compresslab.data import load_data
    network, images = copy.deepcopy(_lenet5()), load_data("ink_digits").train.take(count)
    network.fc1 = network.fc2 = nn.Identity()
    with torch.no_grad():
        return torch.cat([network(x) for x, _ in images.batches(500)]).relu(), images.y


def fit(head: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, lr: float = 0.006) -> nn.Module:
    """A trained copy of a head; the learning rate rises and falls."""
    head, generator = copy.deepcopy(head).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(head.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * -(-len(inputs) // 100))
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(100):
            loss = F.cross_entropy(head(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()


def _circulant_head(block: int, seed: int | None = 0) -> nn.Sequential:
    from compresslab.sharing.circulant import CirculantLinear
    lenet5 = _lenet5()
    return nn.Sequential(CirculantLinear.from_dense(lenet5.fc1, block, seed=seed, keep_scale=True), nn.ReLU(), copy.deepcopy(lenet5.fc2))


_saved = partial(saved_beside, "6.13")


def _with_head(head: nn.Sequential, name: str) -> str:
    network = copy.deepcopy(_lenet5())
    network.fc1, network.fc2 = head[0], head[2]
    return _saved(network, name)


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    count, epochs = (1000, 2) if mode.quick() else (6000, 10)
    return _with_head(fit(_circulant_head(50), *features(count), epochs), "reference")


def rounder_file() -> str:
    """Blocks of 100: half the numbers."""
    return _with_head(fit(_circulant_head(100), *features(6000), 10), "rounder")


def projected_only() -> str:
    return _with_head(_circulant_head(50), "projected")


def projected_without_signs() -> str:
    return _with_head(_circulant_head(100, seed=None), "silent")


def trained_briefly() -> str:
    return _with_head(fit(_circulant_head(100), *features(400), 3), "briefly")


def unpacked() -> str:
    """The circulant head, saved as the dense layer that it stands for."""
    head = _circulant_head(50)
    return _with_head(nn.Sequential(head[0].to_dense(), head[1], head[2]), "unpacked")


def small_blocks() -> str:
    return _with_head(_circulant_head(10), "blocks")


def few_levels() -> str:
    """One bit a weight: two shared numbers for each matrix."""
    from compresslab.core import CodebookCode, encode
    return _saved(encode(_lenet5(), partial(CodebookCode.from_dense, bits=1), only=["fc1", "fc2"]), "levels")


def hashed() -> str:
    from compresslab.core import encode
    from compresslab.sharing.hashing import HashedCode
    return _saved(encode(_lenet5(), partial(HashedCode.from_dense, fraction=0.02, keep_scale=True), only=["fc1"]), "hashed")


EXERCISE = Exercise(
    id="6.13", name="my_file", title="A classifier head ten times smaller", dots=4, minutes=25, points=5, track="stretch", value=True,
    misconception="sharing makes a layer fast because it is small",
    reference=reference_file, verify=TASK.verify, alternatives=(rounder_file,),
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("6.13"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("unpacked", unpacked, "the file holds a dense head: the sharing was lost before `save` (to_dense or decode); put the shared layer itself into the network",
                when=TASK.breaks("bytes", 1_000_000)),
        Mistake("blocks too small", small_blocks, "small enough blocks hold anything, and the file holds them: fewer, larger blocks (or fewer shared numbers)",
                when=TASK.breaks("bytes", high=1_000_000)),
        Mistake("few levels", few_levels, "the file is small, but the weights are decoded and multiplied one by one, virtual or not: the shared layer must *work* in its small form",
                when=TASK.breaks("macs")),
        Mistake("silent units", projected_without_signs,
                "one answer for nearly all images: after the projection the hidden units are dead (what a ReLU never lets through it never learns); count those that are ever on, and think of signs",
                when=TASK.breaks("accuracy", high=0.25)),
        Mistake("projected only", projected_only, "a projection keeps a few percent of a trained weight: train the shared numbers",
                when=TASK.breaks("accuracy", 0.25, 0.9)),
        Mistake("trained briefly", trained_briefly, "on the way: more images, more passes, or a learning rate that rises and falls",
                when=TASK.breaks("accuracy", 0.9))),
    hints=("A code book keeps the file small, and so does a hash; but then the matrix is decoded and multiplied. Which sharer of this chapter never needs its matrix?",
           "CirculantLinear.from_dense(lenet5.fc1, 50, seed=0, keep_scale=True): 8,000 numbers for 400,000, and its signs keep the hidden units alive. "
           "Then `fit` the head for ten passes.",
           "head = nn.Sequential(CirculantLinear.from_dense(lenet5.fc1, ..., seed=0, keep_scale=True), nn.ReLU(), copy.deepcopy(lenet5.fc2))\n"
           "head = fit(head, inputs, labels, epochs=...)\nnetwork = copy.deepcopy(lenet5)\nnetwork.fc1, network.fc2 = head[0], head[2]\n"
           "save(network, submission_path('6.13'))\nmy_file = str(submission_path('6.13'))"))
