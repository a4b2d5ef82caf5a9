"""Exercise 7.13: as small a file as you can, at no less than the dense accuracy minus 1 point."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from torch import nn

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

TASK = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_bytes=20_000, max_loss=0.01, baseline="lenet300", images=4000)
SPARSITY = {"fc1": 0.95, "fc2": 0.87, "fc3": 0.5}
IMAGES, EPOCHS = 12_000, 5
_saved = partial(saved_beside, "7.13")


@cache
def _lenet() -> nn.Module:
    from compresslab.models import load_baseline
    return load_baseline("lenet300")


@cache
def _images(count: int) -> tuple[Any, Any]:
    """Training images, and what the dense network says of them."""
    from compresslab.data import load_data
    from compresslab.distillation import teacher_outputs
    split = load_data("ink_digits").train.take(count)
    return split, teacher_outputs(_lenet(), split)


@cache
def _pruned(sparsity: tuple[float, float, float], count: int = IMAGES, epochs: int = EPOCHS) -> nn.Module:
    """LeNet-300, pruned gradually layer by layer while the dense network teaches it."""
    from compresslab.hybrid.deep_compression import prune_gradually
    split, teacher = _images(count)
    return prune_gradually(_lenet(), split, dict(zip(SPARSITY, sparsity)), epochs=epochs, teacher=teacher)


@cache
def compressed(sparsity: tuple[float, float, float], bits: int, count: int = IMAGES, epochs: int = EPOCHS) -> nn.Module:
    """Pruned, shared, its shared values tuned for one pass, and coded."""
    from compresslab.hybrid.deep_compression import gap_code, share_weights, tune_centroids
    split, teacher = _images(count)
    shared = share_weights(_pruned(sparsity, count, epochs), bits)
    return gap_code(tune_centroids(shared, split, epochs=1, teacher=teacher))


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    count, epochs = (1000, 2) if mode.quick() else (IMAGES, EPOCHS)
    return _saved(compressed(tuple(SPARSITY.values()), 3, count, epochs), "reference", entropy=True)


def four_bits_file() -> str:
    """Fewer weights are left, each with a longer index."""
    return _saved(compressed((0.96, 0.9, 0.5), 4), "four-bits", entropy=True)


def dense_floats() -> str:
    """Pruned, but saved as it is: every zero in four bytes."""
    from compresslab.core import bake
    return _saved(bake(_pruned(tuple(SPARSITY.values()))), "dense")


def pruned_only() -> str:
    from compresslab.hybrid.orders import finish
    return _saved(finish(_pruned(tuple(SPARSITY.values()))), "pruned", entropy=True)


def quantized_only() -> str:
    """One bit a weight, Huffman-coded."""
    from compresslab.core import CodebookCode, encode
    return _saved(encode(_lenet(), partial(CodebookCode.from_dense, bits=1)), "bit", entropy=True)


def not_huffman_coded() -> str:
    """Small enough but for the last step."""
    return _saved(compressed(tuple(SPARSITY.values()), 3), "packed")


def all_at_once() -> str:
    """Pruned in one go and never trained again."""
    from compresslab.hybrid.deep_compression import gap_code, share_weights
    from compresslab.pruning import prune_magnitude
    return _saved(gap_code(share_weights(prune_magnitude(_lenet(), 0.96), 3)), "once", entropy=True)


def too_few_left() -> str:
    return _saved(compressed((0.985, 0.94, 0.5), 3, 6000, 4), "few", entropy=True)


EXERCISE = Exercise(
    id="7.13", name="my_file", title="As small as you can", dots=5, minutes=40, points=6, track="stretch", value=True,
    misconception="one strong technique is enough",
    reference=reference_file, verify=TASK.verify, alternatives=(four_bits_file,),
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("7.13"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("dense floats", dense_floats, "the file still holds floats for nearly everything, zeros too: store what is left (gap_code), not the masked network",
                when=TASK.breaks("bytes", 500_000)),
        Mistake("one technique", pruned_only, "one technique alone: floats for few weights, or few bits for all of them, are both too much; prune *and* share",
                when=TASK.breaks("bytes", 30_000, 500_000)),
        Mistake("not Huffman-coded", not_huffman_coded, "nearly: fewer weights, fewer bits, or did you forget save(..., entropy=True)?",
                when=TASK.breaks("bytes", high=30_000)),
        Mistake("all at once", all_at_once, "small, but the network was hardly trained after that: prune step by step while it trains, then tune the shared values",
                when=TASK.breaks("accuracy", high=0.85)),
        Mistake("too few left", too_few_left, "more than a point is lost: there is room in the budget for more weights, or let it train longer, under its teacher",
                when=TASK.breaks("accuracy", 0.85))),
    hints=("Where do the bytes go? file_ledger says it. Most weights are in fc1, so its sparsity decides; the few of fc3 cost little, so leave it half dense.",
           "prune_gradually with another sparsity for each layer (about 0.95, 0.87, 0.5), five passes over 12,000 images under the dense teacher; share_weights with 3 bits; "
           "tune_centroids; gap_code; save(..., entropy=True).",
           "pruned = prune_gradually(lenet, lessons, {'fc1': ..., 'fc2': ..., 'fc3': ...}, epochs=..., teacher=taught)\n"
           "shared = tune_centroids(share_weights(pruned, ...), lessons, epochs=1, teacher=taught)\n"
           "save(gap_code(shared), submission_path('7.13'), entropy=True)\nmy_file = str(submission_path('7.13'))"))
