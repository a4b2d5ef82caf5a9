"""Exercise 11.12: LeNet-5 on a microcontroller: 16,000 bytes of flash, 8,192 bytes of RAM, 900,000 MACs."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import nn

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

TASK = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_bytes=16_000, max_ram=8192, max_macs=900_000, max_loss=0.015,
                  baseline="lenet5", images=4000)
DENSE = (20, 50, 500)  # channels of conv1 and conv2, units of fc1
WIDTHS = (11, 20, 40)


def narrowed(widths: tuple[int, int, int]) -> nn.Module:
    """LeNet-5 with so many channels and units left, those of the largest L1 norm; not trained further."""
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_channels
    gone = {layer: 1 - left / whole for layer, left, whole in zip(("conv1", "conv2", "fc1"), widths, DENSE)}
    return prune_channels(load_baseline("lenet5"), torch.zeros(1, 1, 28, 28), gone)


@cache
def tuned(widths: tuple[int, int, int] = WIDTHS, images: int = 6000, epochs: int = 3) -> nn.Module:
    """The same training for every answer."""
    from compresslab.core.train import train
    from compresslab.data import load_data
    return train(narrowed(widths), load_data("ink_digits").train.take(images), epochs=epochs, lr=0.05, batch_size=64, progress=False)


def in_code(network: nn.Module, bits: int) -> nn.Module:
    """Every weight as a whole number of so many bits, with a scale for each output channel."""
    from compresslab.core import UniformCode, encode
    return encode(network, partial(UniformCode.from_dense, bits=bits, axis=0))


_saved = partial(saved_beside, "11.12")


def reference_file() -> str:
    """Narrower layers, 5 bits; a smaller effort where notebooks are only tried."""
    effort = (4000, 3) if mode.quick() else (6000, 3)
    return _saved(in_code(tuned(WIDTHS, *effort), 5), "reference")


def eight_bits_file() -> str:
    """Fewer channels and units, 8 bits."""
    return _saved(in_code(tuned((10, 16, 32)), 8), "eight-bits")


def dense_file() -> str:
    from compresslab.models import load_baseline
    return _saved(load_baseline("lenet5"), "dense")


def codes_only() -> str:
    """All weights in 4 bits, entropy-coded."""
    from compresslab.models import load_baseline
    return _saved(in_code(load_baseline("lenet5"), 4), "codes", entropy=True)


def nearly_small() -> str:
    """Narrow enough for the RAM, in 32 bits."""
    return _saved(narrowed(WIDTHS), "floats")


def zeros_only() -> str:
    """98 of 100 weights are zero: a small file for layers as wide as before."""
    from compresslab.core import encode, gap_codebook
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_magnitude
    return _saved(encode(prune_magnitude(load_baseline("lenet5"), 0.99), gap_codebook(bits=4)), "zeros", entropy=True)


def two_tensors_forgotten() -> str:
    """13 channels: conv1's output alone would fit."""
    return _saved(in_code(narrowed((13, 10, 32)), 8), "thirteen")


def wide_behind() -> str:
    """conv2 as wide as before, and few units behind it."""
    return _saved(in_code(narrowed((11, 50, 10)), 4), "wide-behind")


def untrained() -> str:
    return _saved(in_code(narrowed(WIDTHS), 5), "untrained")


def hardly_trained() -> str:
    """One short pass."""
    return _saved(in_code(tuned(images=1000, epochs=1), 5), "hardly-trained")


EXERCISE = Exercise(
    id="11.12", name="my_file", title="A network for a microcontroller", dots=4, minutes=30, points=5, track="stretch", value=True,
    misconception="RAM needed = model size",
    reference=reference_file, verify=TASK.verify, alternatives=(eight_bits_file,),
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("11.12"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("dense", dense_file, "all weights are there, as floats: 1.7 MB for a flash of 16 kB", when=TASK.breaks("bytes", 1_000_000)),
        Mistake("codes only", codes_only, "short codes alone do not do it: 431,080 weights, most of them in fc1, are too many for this flash",
                when=TASK.breaks("bytes", 100_000, 1_000_000)),
        Mistake("nearly", nearly_small, "nearly: the network may be narrow enough, are its weights still floats? Code them (encode) before you save",
                when=TASK.breaks("bytes", high=100_000)),
        Mistake("zeros only", zeros_only, "it fits the flash, not the RAM: zeros in a file leave conv1's output as large as before, narrower layers do not",
                when=TASK.breaks("ram", 12_000)),
        Mistake("one tensor", two_tensors_forgotten, "nearly: while the pooling runs, conv1's output and the pooled image are in RAM together; a few channels fewer",
                when=TASK.breaks("ram", high=12_000)),
        Mistake("wide behind", wide_behind, "flash and RAM are kept, the MACs are not: each channel of conv2 costs 64 outputs times 25 weights times all channels of conv1",
                when=TASK.breaks("macs")),
        Mistake("untrained", untrained, "it fits, and hardly knows its digits: train it behind the pruning, and look at what it loses to its few bits", when=TASK.breaks("accuracy", high=0.9)),
        Mistake("hardly trained", hardly_trained, "it fits, and lost more than 1.5 points: some more training, more channels where there is room, or more bits",
                when=TASK.breaks("accuracy", 0.9))),
    hints=("Look at the largest moment of the schedule: which two tensors meet there, and which layer makes them small? Then spend the flash on what is left.",
           "RAM: 576 c + 144 c <= 8192 for the c channels of conv1. MACs: 14,400 c + 1,600 c d + ... for the d channels of conv2. Bytes at 8 bits: 25 c + 25 c d + 16 d f + 10 f for the f units of fc1.",
           "small = pruning.prune_channels(lenet, x, {\"conv1\": ..., \"conv2\": ..., \"fc1\": ...})\nsmall = core.train(small, ink.train.take(4000), epochs=3, lr=0.05)\n"
           "small = core.encode(small, partial(core.UniformCode.from_dense, bits=..., axis=0))\ncore.save(small, submission_path('11.12'))\nmy_file = str(submission_path('11.12'))"))
