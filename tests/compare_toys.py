"""A comparison in miniature for the tests: one network of a second, and methods that work and fail.

The methods leave a mark, a file in the folder that COMPARE_MARKS names, each time they run.
"""

import os
import time
import uuid
from functools import partial
from pathlib import Path

import torch

from compresslab.compare.methods import Method
from compresslab.core import UniformCode, apply_mask_, encode, named_layers
from compresslab.core.train import train
from compresslab.data import load_data
from compresslab.models import from_spec

SPEC = {"input": [1, 8, 8], "layers": [["flatten"], ["linear", {"out_features": 12}], ["relu"], ["linear", {"out_features": 10}]]}


def tiny():
    data = load_data("digits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = from_spec(SPEC)
    return train(model, data.train, epochs=6, progress=False), data


def mark(name, setting, seed):
    if folder := os.environ.get("COMPARE_MARKS"):
        Path(folder, f"{name}-{setting}-{seed}-{uuid.uuid4().hex}").touch()


def marks(folder, start=""):
    return len(list(Path(folder).glob(f"{start}*")))


def rounded(network, model, setting, data, seed):
    mark("round", setting, seed)
    return encode(model, partial(UniformCode.from_dense, bits=int(setting)))


def noisy(network, model, setting, data, seed):
    """Changes the model in place and draws from torch's own generator: neither may reach another job."""
    for layer in named_layers(model).values():
        layer.weight.data += float(setting) * torch.randn_like(layer.weight)
    return model


def masked(network, model, setting, data, seed):
    for layer in named_layers(model).values():
        apply_mask_(layer, layer.weight.abs() > layer.weight.abs().quantile(float(setting)))
    return model


def failing(network, model, setting, data, seed):
    mark("fail", setting, seed)
    raise RuntimeError("this method never works\nand has a long story to tell")


def slow(network, model, setting, data, seed):
    mark("slow", setting, seed)
    time.sleep(0.2)
    return model


def method(family, settings, run, only=None):
    return Method(family, run.__name__, settings, run, only)


METHODS = {
    "round": method("quantization", ("4", "2"), rounded),
    "noise": method("pruning", ("0.1",), noisy),
    "mask": method("pruning", ("0.5",), masked, ("tiny",)),
}
FAILING = {"round": METHODS["round"], "fail": method("pruning", ("1",), failing)}
SLOW = {"slow": method("pruning", tuple("abcdefgh"), slow)}
NETWORKS = {"tiny": tiny}

# What one machine and one second decide, and not the job.
CHANGING = ("seconds", "latency_ms", "dense_latency_ms", "speedup", "speedup_low", "speedup_high")


def lasting(rows):
    return [{key: value for key, value in row.items() if key not in CHANGING} for row in rows]
