"""The measurements behind sections 3 to 5 of chapter 09: every method on networks of three seeds.

``python -m compresslab evidence 09`` measures them on the whole test text; an entry is one network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from compresslab.core.measure import file_size
from compresslab.course.chapter09.trained import trained_gpt
from compresslab.sequence.compress_gpt import PRUNING, compress_gpt
from compresslab.sequence.language import relative_bits, window_bits
from compresslab.sequence.outliers import plant_outliers
from compresslab.sequence.rotate_gpt import rotate_gpt
from compresslab.sequence.text import load_text

Row = dict[str, Any]
SEEDS, DRAWS = (0, 1, 2), (0, 1)
WINDOWS = 32  # of calibration text
PATTERNS: tuple[Row, ...] = ({"sparsity": 0.5}, {"sparsity": 0.6}, {"sparsity": 0.7}, {"nm": (2, 4)})


def calibration(draw: int) -> list[Tensor]:
    """Windows of the training text, other ones for every draw."""
    return list(load_text().train.drawn(WINDOWS, seed=draw).batches(8, labels=False))


def measured(before: Tensor, coded: nn.Module, **row: Any) -> Row:
    """A row: what the file takes, and the bits per character of the test text against those `before`."""
    after = window_bits(coded, load_text().test)
    value, low, high = relative_bits(before, after)
    size = file_size(coded, entropy=True)
    return {**row, "file_bytes": size, "bits_per_character": after.mean().item(), "relative": value, "low": low, "high": high}


def rounding(model_seed: int) -> list[Row]:
    """4 and 3 bits in groups of 32: to the nearest, NF4, and AWQ and GPTQ for two draws of calibration text."""
    model = trained_gpt(model_seed)
    before, rows = window_bits(model, load_text().test), []
    for method, bits in [("rtn", 4), ("gptq", 4), ("awq", 4), ("nf4", 4), ("rtn", 3), ("gptq", 3), ("awq", 3)]:
        for draw in DRAWS if method in ("gptq", "awq") else (0,):
            coded = compress_gpt(model, method, bits=bits, group=32, batches=calibration(draw))
            rows.append(measured(before, coded, method=method, bits=bits, group=32, seed=draw, model_seed=model_seed))
    return rows


def pruning(model_seed: int) -> list[Row]:
    """Half of the weights and more, and 2 of 4: magnitude, and Wanda and SparseGPT for two draws."""
    model = trained_gpt(model_seed)
    before, rows = window_bits(model, load_text().test), []
    for method in PRUNING:
        for pattern in PATTERNS:
            for draw in DRAWS if method != "magnitude" else (0,):
                coded = compress_gpt(model, method, batches=calibration(draw), **pattern)
                name = "2:4" if "nm" in pattern else f"{pattern['sparsity']:.2f}"
                rows.append(measured(before, coded, method=method, pattern=name, seed=draw, model_seed=model_seed))
    return rows


def outliers() -> list[Row]:
    """One function in three networks (as trained, planted outliers, rotated): what rounding and pruning cost each."""
    model, text = trained_gpt(0), calibration(0)
    planted = plant_outliers(model)
    networks = {"as trained": model, "planted": planted, "rotated": rotate_gpt(planted)}
    before = window_bits(model, load_text().test)
    rows = []
    for network, method, options in [
        *((network, "w8a8", {}) for network in networks), ("planted", "smoothquant", {}),
        *((network, method, {"bits": 4}) for network in ("as trained", "planted") for method in ("rtn", "awq", "gptq")),
        *((network, method, {"sparsity": 0.5}) for network in ("as trained", "planted") for method in PRUNING),
    ]:  # fmt: skip
        coded = compress_gpt(networks[network], method, batches=text, **options)
        rows.append(measured(before, coded, network=network, method=method))
    return rows


def methods() -> list[Row]:
    """The shipped network as it is, and once by every method: what the opening figure shows."""
    model, text = trained_gpt(0), calibration(0)
    before = window_bits(model, load_text().test)
    rows = [measured(before, model, method="float32", bits=32)]
    for method, options in [
        ("rtn", {"bits": 8}), ("rtn", {"bits": 4}), ("rtn", {"bits": 3}), ("gptq", {"bits": 4}), ("gptq", {"bits": 3}),
        ("awq", {"bits": 4}), ("nf4", {"bits": 4}), ("smoothquant", {"bits": 8}), ("sparsegpt", {"sparsity": 0.5}),
    ]:  # fmt: skip
        coded = compress_gpt(model, method, batches=text, **options)
        rows.append(measured(before, coded, method=method, bits=options.get("bits", 16)))
    return rows


def goal() -> list[Row]:
    """4 bits by GPTQ on networks of three seeds: times smaller than their own float32 file, at which loss."""
    rows = []
    for model_seed in SEEDS:
        model = trained_gpt(model_seed)
        before = window_bits(model, load_text().test)
        coded = compress_gpt(model, "gptq", bits=4, group=32, batches=calibration(0))
        row = measured(before, coded, method="gptq", bits=4, group=32, seed=0, model_seed=model_seed)
        rows.append(row | {"ratio": file_size(model) / row["file_bytes"]})
    return rows


ENTRIES: dict[str, Callable[[], list[Row]]] = {
    **{f"rounding {seed}": partial(rounding, seed) for seed in SEEDS},
    **{f"pruning {seed}": partial(pruning, seed) for seed in SEEDS},
    "outliers": outliers,
    "methods": methods,
    "goal": goal,
}
