"""Exercise 8.11: LeNet-5 in 4,300 bytes and 130,000 MACs, with no more than a point of accuracy lost."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, Report, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

TASK = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_bytes=4_300, max_macs=130_000, max_loss=0.01, baseline="lenet5",
                  images=4000)
DENSE = (20, 50, 500)  # channels of conv1 and conv2, units of fc1
WIDTHS = (4, 10, 16)


def narrowed(widths: tuple[int, int, int]) -> nn.Module:
    """LeNet-5 with so many channels and units left, those of the largest L1 norm; not trained further."""
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_channels
    gone = {layer: 1 - left / all_ for layer, left, all_ in zip(("conv1", "conv2", "fc1"), widths, DENSE)}
    return prune_channels(load_baseline("lenet5"), torch.zeros(1, 1, 28, 28), gone)


def tuned(network: nn.Module, images: int, epochs: int) -> nn.Module:
    """The same training for every answer."""
    from compresslab.core.train import train
    from compresslab.data import load_data
    return train(network, load_data("ink_digits").train.take(images), epochs=epochs, lr=0.05, batch_size=64, progress=False)


def in_code(network: nn.Module, bits: int) -> nn.Module:
    """Every weight as an index into a code book of its layer."""
    from compresslab.core import CodebookCode, encode
    return encode(network, partial(CodebookCode.from_dense, bits=bits))


_saved = partial(saved_beside, "8.11", entropy=True)


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    effort = (1000, 1) if mode.quick() else (10_000, 4)
    return _saved(in_code(tuned(narrowed(WIDTHS), *effort), 4), "reference")


def narrower_file() -> str:
    """Fewer channels, more bits for each weight."""
    return _saved(in_code(tuned(narrowed((4, 8, 12)), 10_000, 4), 5), "narrower")


def not_compressed() -> str:
    from compresslab.models import load_baseline
    return _saved(load_baseline("lenet5"), "dense")


def short_codes_only() -> str:
    """All weights, in a code book of 16: one family."""
    from compresslab.models import load_baseline
    return _saved(in_code(load_baseline("lenet5"), 4), "codes")


def zeros_only() -> str:
    """998 of 1,000 weights are zero and cost nearly nothing in the file; the layers are as wide as before."""
    from compresslab.core import encode, gap_codebook
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_magnitude
    return _saved(encode(prune_magnitude(load_baseline("lenet5"), sparsity=0.998), gap_codebook(bits=4)), "zeros")


def wide_at_the_front() -> str:
    """Few weights, too many of them where each is used at every pixel."""
    return _saved(in_code(narrowed((8, 10, 4)), 4), "wide")


def channels_only() -> str:
    return _saved(narrowed(WIDTHS), "channels")


def very_narrow() -> str:
    """So few channels that even 32-bit weights fit."""
    return _saved(tuned(narrowed((3, 4, 5)), 4000, 3), "thread")


def eight_bits() -> str:
    from compresslab.core import UniformCode, encode
    return _saved(encode(narrowed(WIDTHS), partial(UniformCode.from_dense, bits=8, axis=0)), "eight")


def not_tuned() -> str:
    return _saved(in_code(narrowed(WIDTHS), 4), "untuned")


def tuned_briefly() -> str:
    return _saved(in_code(tuned(narrowed(WIDTHS), 1000, 2), 4), "briefly")


def _in_floats(report: Report) -> bool:
    """Whether the weights stand in the file as they are: four bytes each."""
    return report.bytes > 4 * report.parameters


def _large(path: str) -> bool:
    return TASK.breaks("bytes", high=20_000)(path) and not _in_floats(TASK.report(path))


def _whole(path: str) -> bool:
    """Few bytes, but nearly all operations of LeNet-5."""
    report = TASK.report(path)
    return 0 < report.bytes < 20_000 and report.macs > 1_000_000


def _large_floats(path: str) -> bool:
    return TASK.breaks("bytes", high=1_000_000)(path) and _in_floats(TASK.report(path))


def _weak_floats(path: str) -> bool:
    return TASK.breaks("accuracy")(path) and _in_floats(TASK.report(path))


EXERCISE = Exercise(
    id="8.11", name="my_file", title="Three limits at once", dots=5, minutes=35, points=6, track="core", value=True,
    misconception="there is a best family",
    reference=reference_file, verify=TASK.verify, alternatives=(narrower_file,),
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("8.11"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("not compressed", not_compressed, "that is LeNet-5 as it was, or nearly: what you made of it must go into the file", when=TASK.breaks("bytes", 1_000_000)),
        Mistake("codes only", short_codes_only,
                "short codes alone: 431,080 weights are too many even at one bit each, and every one is still multiplied; first fewer channels, then fewer bits",
                when=TASK.breaks("bytes", 20_000, 1_000_000)),
        Mistake("channels only", channels_only, "the network is narrow, and each weight that is left takes 32 bits: now a code", when=_large_floats),
        Mistake("zeros", zeros_only,
                "few bytes and nearly as many MACs as before: zeros are stored for nearly nothing, and multiplied like any other number; take whole channels",
                when=_whole),
        Mistake("too many bits", eight_bits, "narrow and coded, a few bits too many: fewer levels for each weight, entropy=True in `save`, or a channel less", when=_large),
        Mistake("wide at the front", wide_at_the_front,
                "small enough, too many MACs: a channel of conv1 is computed at 576 pixels and read by all of conv2; take away there and give to fc1",
                when=TASK.breaks("macs")),
        Mistake("very narrow", very_narrow,
                "so narrow that floats fit, too narrow for the task: give each weight 4 or 5 bits, and there is room for several times as many", when=_weak_floats),
        Mistake("not tuned", not_tuned, "what is left was never trained together: train after removing channels and before coding", when=TASK.breaks("accuracy", high=0.9)),
        Mistake("tuned briefly", tuned_briefly, "nearly: train longer on more images, and code at the end", when=TASK.breaks("accuracy", 0.9))),
    hints=("Which family brings MACs down, which brings the bits of a weight down, and which gives back the accuracy? Ask the table: `channels` rows beside those of k-means and rounding.",
           "About 4, 10 and 16 channels and units (prune_channels takes the fraction to remove of each layer), four passes over 10,000 images with lr=0.05 and batches of 64, "
           "then a code book of 4 bits and save(..., entropy=True): about 3,900 bytes and 124,000 MACs.",
           "narrow = prune_channels(lenet5, torch.zeros(1, 1, 28, 28), {'conv1': 1 - 4 / 20, 'conv2': ..., 'fc1': ...})\n"
           "narrow = train(narrow, ink.train.take(10_000), epochs=..., lr=0.05, batch_size=64, progress=False)\n"
           "small = encode(narrow, partial(CodebookCode.from_dense, bits=...))\nsave(small, submission_path('8.11'), entropy=True)\nmy_file = str(submission_path('8.11'))"))
