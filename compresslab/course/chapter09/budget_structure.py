"""Exercise 9.13: the GPT in at most 350,000 bytes, at no more than 2 % more bits per character."""

from __future__ import annotations

from functools import partial
from typing import Any

from compresslab.course.budget import TEXT, BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

TASK = BudgetTask(dataset=TEXT, input_shape=(128,), max_bytes=350_000, max_more_bits=0.02, baseline="gpt", images=120)
_saved = partial(saved_beside, "9.13")


def coded(method: str, bits: int, group: int | None, rest_bits: int = 8, windows: int = 16) -> Any:
    """The shipped GPT in few bits, calibrated on training text."""
    from compresslab.models import load_baseline
    from compresslab.sequence.compress_gpt import compress_gpt
    from compresslab.sequence.text import load_text
    batches = list(load_text().train.drawn(windows).batches(8, labels=False))
    return compress_gpt(load_baseline("gpt"), method, bits=bits, group=group, batches=batches, rest_bits=rest_bits)


def reference_file() -> str:
    """Three bits, GPTQ, short groups, Huffman-coded."""
    return _saved(coded("gptq", 3, 32), "reference", entropy=True)


def small_rest_file() -> str:
    """Fewer bits for embeddings and output layer, too."""
    return _saved(coded("gptq", 3, 32, rest_bits=6), "small-rest", entropy=True)


def floats() -> str:
    """Saved as it was trained."""
    from compresslab.models import load_baseline
    return _saved(load_baseline("gpt"), "floats")


def four_bits() -> str:
    return _saved(coded("rtn", 4, 32), "four-bits")


def packed() -> str:
    """Three bits, and nothing for the statistics of the codes."""
    return _saved(coded("rtn", 3, 32), "packed")


def rounded() -> str:
    """Every weight to its nearest level."""
    return _saved(coded("rtn", 3, 64), "rounded", entropy=True)


def two_bits() -> str:
    return _saved(coded("rtn", 2, 32), "two-bits", entropy=True)


EXERCISE = Exercise(
    id="9.13", name="my_file", title="A language model in 350,000 bytes", dots=4, minutes=30, points=5, track="stretch", value=True,
    misconception="a smaller model needs a better quantizer, and nothing else",
    reference=reference_file, verify=TASK.verify, alternatives=(small_rest_file,),
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("9.13"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("floats", floats, "the file still holds floats for nearly everything: code the matrices (compress_gpt) before you save", when=TASK.breaks("bytes", 1_000_000)),
        Mistake("four bits", four_bits, "four bits and their scales are more than this budget has: three bits need a method that lets weights make up for each other, and Huffman's code",
                when=TASK.breaks("bytes", 420_000, 1_000_000)),
        Mistake("packed", packed, "nearly: did you forget save(..., entropy=True)? Or are there more scales, or more bits in the embeddings, than needed?",
                when=TASK.breaks("bytes", high=420_000)),
        Mistake("two bits", two_bits, "small enough, but the text is gone: two bits are too few here, there is room for three",
                when=TASK.breaks("bits", 2.3)),
        Mistake("rounded", rounded, "small enough, but more than 2 % are lost: round with compensation (section 3), or take shorter groups",
                when=TASK.breaks("bits", high=2.3))),
    hints=("Three bits per weight, and what the scales cost. Which method of section 3 loses least at three bits? And codes near zero are more frequent than others.",
           "compress_gpt(gpt, \"gptq\", bits=3, group=32 or 64, batches=16 windows of training text), then save(..., entropy=True). Choose on validation text.",
           "batches = list(text.train.drawn(16).batches(8, labels=False))\nsmall = sequence.compress_gpt(gpt, ..., bits=..., group=..., batches=batches)\n"
           "core.save(small, submission_path('9.13'), entropy=...)\nmy_file = str(submission_path('9.13'))"))
