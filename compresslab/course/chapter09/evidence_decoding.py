"""What the part on writing shows without computing it again: drafts of several kinds, and caches of few bits.

``python -m compresslab evidence 09`` measures it with the shipped networks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from compresslab.core.layers import decompress
from compresslab.models import load_baseline
from compresslab.sequence.arithmetic import decode_arithmetic
from compresslab.sequence.cache import QuantizedKVCache, cached_window_bits
from compresslab.sequence.compress_gpt import compress_gpt
from compresslab.sequence.compress_lstm import round_lstm
from compresslab.sequence.language import relative_bits, window_bits
from compresslab.sequence.speculative import generate_speculative
from compresslab.sequence.text import load_text

Row = dict[str, Any]
PROMPTS, PROMPT, WRITTEN = 4, 48, 300  # texts, characters to begin with, characters to write


def drafts() -> dict[str, nn.Module]:
    """Coded models that may write ahead for the GPT."""
    gpt, lstm = load_baseline("gpt"), load_baseline("char_lstm")
    return {
        "GPT, 4 bits": compress_gpt(gpt, "rtn", bits=4),
        "GPT, 2 bits": compress_gpt(gpt, "rtn", bits=2),
        "LSTM": lstm,
        "LSTM, 4 bits": round_lstm(lstm, 4),
    }


def speculative() -> list[Row]:
    """Tokens per call of the GPT for every draft and several k, over texts that begin in the test part."""
    gpt, split, rows = load_baseline("gpt"), load_text().test, []
    places = torch.linspace(0, len(split.tokens) - PROMPT, PROMPTS).long().tolist()
    for name, coded in drafts().items():
        draft = decompress(coded)
        for k in (1, 2, 4, 8):
            generator = torch.Generator().manual_seed(k)
            runs = [
                generate_speculative(gpt, draft, split.tokens[at : at + PROMPT], WRITTEN, k=k, generator=generator)
                for at in places
            ]
            calls = sum(run.target_calls for run in runs)
            row = {
                "draft": name, "k": k, "acceptance": sum(run.accepted for run in runs) / sum(run.tested for run in runs),
                "tokens_per_call": PROMPTS * WRITTEN / calls, "drafted_per_call": sum(run.draft_calls for run in runs) / calls,
            }  # fmt: skip
            rows.append(row | {"draft_bytes": decode_arithmetic(coded, 64).bytes, "target_bytes": decode_arithmetic(gpt, 64).bytes})
    return rows


def cache() -> list[Row]:
    """Bits per character when the GPT reads its own rounded cache: keys by channel or by token, values by token."""
    gpt, split = load_baseline("gpt"), load_text().test
    before, rows = window_bits(gpt, split), []
    for bits in (8, 4, 3, 2):
        for keys in ("channel", "token"):
            make = partial(QuantizedKVCache, bits, group=16, keys=keys)
            value, low, high = relative_bits(before, cached_window_bits(gpt, split, make))
            memory = make()
            with torch.no_grad():
                gpt.step(split.tokens[None, :112], memory)
            rows.append({"bits": bits, "keys": keys, "relative": value, "low": low, "high": high, "bytes_per_token": memory.count_bytes() / 112})
    return rows


ENTRIES = {"speculative": speculative, "cache": cache}
