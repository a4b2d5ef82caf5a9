"""The evidence of sections 8 to 10: what takes longer than a notebook may."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.core.codes import UniformCode
from compresslab.core.layers import decompress
from compresslab.core.measure import file_size
from compresslab.lowrank import trainable_parameters
from compresslab.models import load_baseline
from compresslab.sequence.adapters import bits_per_weight, qlora, remove_adapters
from compresslab.sequence.gpt import GPT
from compresslab.sequence.heads import block_influence, head_scores, lowest_heads, remove_heads, remove_layers
from compresslab.sequence.language import relative_bits, train_language, window_bits
from compresslab.sequence.sequence_distillation import distill_language, teacher_text
from compresslab.sequence.shared_blocks import share_blocks
from compresslab.sequence.text import TextSplit, encode_text, decode_text, load_text

Row = dict[str, Any]
QUIET = {"progress": False}


@cache
def _before(windows: int | None = None) -> Tensor:
    return window_bits(load_baseline("gpt"), _judges(windows))


def _judges(windows: int | None) -> TextSplit:
    test = load_text().test
    return test if windows is None else test.take(windows)


def _judged(model: nn.Module, windows: int | None = None, **row: Any) -> Row:
    """The row with bits per character on test text, the fraction more than the shipped GPT, and the bytes of the file."""
    bits = window_bits(decompress(model), _judges(windows))
    more, low, high = relative_bits(_before(windows), bits)
    return {**row, "bits": round(bits.mean().item(), 5), "relative": round(more, 6), "low": round(low, 6), "high": round(high, 6), "file_bytes": file_size(model)}


# -- section 8: heads and layers -----------------------------------------------------------------------------


def heads() -> list[Row]:
    """Heads removed by their score, and at random; single layers removed. Nothing is trained afterwards."""
    model, text = load_baseline("gpt"), load_text()
    batches = partial(text.train.drawn(32, seed=1).batches, 8)
    scores, influence = head_scores(model, batches()), block_influence(model, batches())
    judged, rows = partial(_judged, windows=150), []
    for removed in range(0, 13, 2):
        rows.append(judged(remove_heads(model, lowest_heads(scores, removed)), rule="score", removed=removed, seed=0))
        for seed in range(3 if removed else 0):
            generator = torch.Generator().manual_seed(seed)
            drawn = {block: torch.rand(score.shape, generator=generator) for block, score in scores.items()}
            rows.append(judged(remove_heads(model, lowest_heads(drawn, removed)), rule="random", removed=removed, seed=seed))
    for block, value in enumerate(influence.tolist()):
        rows.append(judged(remove_layers(model, [block]), rule="layer", removed=block, seed=0, influence=round(value, 4)))
    return rows


# -- section 9: distillation ---------------------------------------------------------------------------------

STUDENT = {"width": 64, "layers": 2, "dropout": 0.0}


@cache
def _started(seed: int) -> nn.Module:
    """A small student that has learned from the text alone, for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = GPT(**STUDENT)
    return train_language(student, load_text().train, epochs=6, lr=0.008, batch_size=16, seed=seed, **QUIET)


def distillation(kind: str, seed: int = 0) -> Row:
    """The student after a further training of one kind: its bits on text, and what the teacher thinks of what it writes.

    `said` are the teacher's bits per character for the student's texts, the first 32 characters of each left out.
    """
    text, teacher, student = load_text(), load_baseline("gpt"), _started(seed)
    lessons = text.train.drawn(600, seed=seed)
    options = {"epochs": 2, "lr": 0.002, "batch_size": 16, "seed": seed, **QUIET}
    if kind == "text":
        student = train_language(student, lessons, **options)
    elif kind != "start":
        student = distill_language(student, teacher, lessons, kind, **options)
    written = teacher_text(student, text.validation.take(64), 32, generator=torch.Generator().manual_seed(1))
    x = written.tokens[:-1].view(-1, written.context)
    with torch.no_grad():
        log_p = decompress(teacher)(x[:, :-1]).log_softmax(2).gather(2, x[:, 1:, None]).squeeze(2)
    said = -log_p[:, 31:].double().mean().item() / torch.tensor(2.0).log().item()
    return _judged(student, kind=kind, seed=seed, said=round(said, 4), example=decode_text(x[0]))


# -- section 10: adapters and shared blocks ------------------------------------------------------------------


def capitals(split: TextSplit) -> TextSplit:
    """The same text in capital letters: another task for the same network."""
    return TextSplit(encode_text(decode_text(split.tokens).upper()), split.context)


def adapters() -> list[Row]:
    """A base in NF4 learns to write capitals by adapters; a base in two bits is repaired by them."""
    text, model, rows = load_text(), load_baseline("gpt"), []
    two_bits = partial(UniformCode.from_dense, bits=2, axis=0, group_size=32)
    for name, code, task in (("NF4", None, "capitals"), ("2 bits", two_bits, "reference")):
        view = capitals if task == "capitals" else (lambda split: split)
        adapted = qlora(model, rank=8, make_code=code)
        before = window_bits(decompress(adapted), view(text.test)).mean().item()
        trained = train_language(adapted, view(text.train.drawn(800)), epochs=1, lr=0.004, batch_size=16, **QUIET)
        after = window_bits(decompress(trained), view(text.test)).mean().item()
        base = remove_adapters(trained)
        rows.append({"base": name, "task": task, "before": round(before, 5), "after": round(after, 5), "trained": trainable_parameters(adapted),
                     "bits_per_weight": round(bits_per_weight(base), 4), "file_bytes": file_size(trained), "base_bytes": file_size(base)})
    return rows


SHAPES: dict[str, tuple[Any, Any]] = {
    "four blocks": (None, None), "two blocks, each twice": ((0, 0, 1, 1), "first"), "one block, four times": ((0, 0, 0, 0), "first"),
    "one block, four times, from the mean": ((0, 0, 0, 0), "mean"), "two blocks, once": ([1, 2], None), "one block, once": ([1, 2, 3], None),
}


def sharing(shape: str) -> Row:
    """Blocks shared or removed, then two passes over the text. "Once" are the controls: as many bytes, less depth."""
    pattern, start = SHAPES[shape]
    model = load_baseline("gpt")
    if pattern is None:
        return _judged(model, shape=shape)
    model = remove_layers(model, pattern) if start is None else share_blocks(model, pattern, start=start)
    return _judged(train_language(model, load_text().train, epochs=2, lr=0.003, **QUIET), shape=shape)


ENTRIES: dict[str, Callable[[], Any]] = {
    "heads": heads,
    "adapters": adapters,
    **{f"distillation {kind}": partial(distillation, kind) for kind in ("start", "text", "forward", "reverse", "sequence", "on_policy")},
    **{f"sharing {shape}": partial(sharing, shape) for shape in SHAPES},
}
