"""GPTs of several seeds: the shipped one, and others that are trained when they are asked for."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from compresslab.models import baseline_info, from_spec, load_baseline
from compresslab.sequence.language import train_language
from compresslab.sequence.text import load_text

EPOCHS, BATCH = 10, 16  # fewer passes with more steps each: about seven minutes of one core


@cache
def trained_gpt(seed: int) -> nn.Module:
    """A trained GPT: the shipped one for seed 0, else another seed, EPOCHS passes in smaller batches."""
    if seed == 0:
        return load_baseline("gpt")
    info = baseline_info("gpt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = from_spec(info["spec"])
    options = {"lr": info["lr"], "warmup": info["warmup"], "seed": seed, "batch_size": BATCH, "progress": False}
    return train_language(model, load_text().train, epochs=EPOCHS, **options)
