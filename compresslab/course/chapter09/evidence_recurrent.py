"""What the first part of chapter 09 shows without computing it again: recurrent networks trained while compressed."""

from __future__ import annotations

from typing import Any

from torch import nn

from compresslab.core.layers import decompress
from compresslab.core.measure import file_size
from compresslab.core.modules import bake
from compresslab.models import load_baseline
from compresslab.sequence.balanced import utilisation
from compresslab.sequence.compress_lstm import compress_lstm, round_lstm, train_rounded
from compresslab.sequence.language import relative_bits, train_language, window_bits
from compresslab.sequence.projected import project_lstm
from compresslab.sequence.prune_recurrent import prune_lstm
from compresslab.sequence.recurrent_weights import named_matrices, recurrent_matrices, store_matrices
from compresslab.sequence.ternary_gates import train_ternary
from compresslab.sequence.text import load_text

BLOCKS = 32


def row(step: str, model: nn.Module, **more: Any) -> dict[str, Any]:
    """A compressed LSTM on the whole test text, window by window against the shipped one; its file entropy-coded."""
    test = load_text().test
    before, after = window_bits(load_baseline("char_lstm"), test), window_bits(decompress(model), test)
    value, low, high = relative_bits(before, after)
    size = file_size(model, entropy=True)
    return {"step": step, "file_bytes": size, "bits": after.mean().item(), "relative": value, "low": low, "high": high} | more


def rounded() -> list[dict[str, Any]]:
    """The float32 network, and its matrices rounded without training."""
    dense = load_baseline("char_lstm")
    return [row("float32", dense), *(row(f"rounded to {bits} bits", round_lstm(dense, bits)) for bits in (5, 4, 3))]


def deep_compression() -> list[dict[str, Any]]:
    """Pruned gradually, shared, tuned."""
    model = compress_lstm(load_baseline("char_lstm"), load_text().train, sparsity=0.5, bits=4, progress=False)
    return [row("50 % pruned, 4-bit values, tuned", model)]


def rounded_trained() -> list[dict[str, Any]]:
    """Two passes over the text through the rounding to 3 bits."""
    return [row("3 bits, trained", train_rounded(load_baseline("char_lstm"), load_text().train, 3, epochs=2, progress=False))]


def balance() -> list[dict[str, Any]]:
    """Three fifths pruned in one pass over the text: without regard to elements, and with equal work."""
    rows = []
    for step, blocks in (("magnitude", 1), ("balanced", BLOCKS)):
        model = load_baseline("char_lstm")
        model = prune_lstm(model, load_text().train, 0.6, epochs=1, lr=0.003, blocks=blocks, only=recurrent_matrices(model), progress=False)
        busy = {name: utilisation(named_matrices(model)[name], BLOCKS) for name in recurrent_matrices(model)}
        rows.append(row(step, bake(model), utilisation=busy["lstm.weight_hh_l0"]))
    return rows


def projected() -> list[dict[str, Any]]:
    """Half as many numbers in the state: as it is, after two passes over the text, and then rounded."""
    small = project_lstm(load_baseline("char_lstm"), 160)
    tuned = train_language(small, load_text().train, epochs=2, lr=0.003, progress=False)
    return [row("state projected to 160", small), row("projected, trained", tuned), row("projected, trained, 4 bits", round_lstm(tuned, 4))]


def ternary() -> list[dict[str, Any]]:
    """The LSTM's matrices ternary, trained through the rounding; the other two of 4 bits."""
    model = store_matrices(train_ternary(load_baseline("char_lstm"), load_text().train, epochs=2, lr=0.003, progress=False))
    return [row("ternary gates, trained", round_lstm(model, 4))]


ENTRIES = {
    "lstm": rounded,
    "lstm deep compression": deep_compression,
    "lstm rounded, trained": rounded_trained,
    "lstm balance": balance,
    "lstm projected": projected,
    "lstm ternary": ternary,
}
