"""Six patients of the section "why did it not get faster?": what was done, what was hoped for, before and after.

Used by the notebook on the reader's machine and by the evidence on a quiet one. Nothing here is trained: only what
the networks cost is asked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.compact.separable import separate_conv
from compresslab.core.layers import decompress
from compresslab.core.modules import bake, named_layers
from compresslab.core.prepare import prepare
from compresslab.core.timing import speedup, time_calls, torch_threads
from compresslab.deploy.facts import run_facts
from compresslab.deploy.sparse_speed import SparseLinear, random_sparse
from compresslab.lowrank.convolution import full_rank
from compresslab.lowrank.decompose import decompose
from compresslab.pruning.magnitude import prune_magnitude
from compresslab.quantization.activations import calibrate, simulate_activations
from compresslab.quantization.fake import FakeQuantize


@dataclass(frozen=True)
class Patient:
    """A network before and after, the inputs of each, and how many times faster someone hoped that it gets."""

    name: str
    hoped: float
    before: nn.Module
    after: nn.Module
    x_before: Tensor
    x_after: Tensor


@cache
def vgg() -> nn.Module:
    """The VGG-like network of the course."""
    from compresslab.models import load_baseline

    return load_baseline("vgg").eval()


def mask_only(x: Tensor) -> Patient:
    """Nine tenths of the weights set to zero, in dense tensors."""
    return Patient("mask only, 90 % zeros", 10.0, vgg(), bake(decompress(prune_magnitude(vgg(), 0.9))), x, x)


def half_precision(x: Tensor, dtype: torch.dtype) -> Patient:
    """Weights and activations of 16 bits, which someone hopes to be twice as fast."""
    name = str(dtype).removeprefix("torch.")
    return Patient(name, 2.0, vgg(), copy.deepcopy(vgg()).to(dtype), x, x.to(dtype))


def simulated_int8(x: Tensor) -> Patient:
    """Weights and activations rounded to 256 levels, but kept, and multiplied, as float32."""
    rounded = prepare(vgg(), lambda weight: FakeQuantize(bits=8))
    return Patient("simulated int8", 4.0, vgg(), simulate_activations(rounded, calibrate(vgg(), [x])), x, x)


def sparse_product(density: float, batch: int = 32, width: int = 1024) -> Patient:
    """A linear layer with zeros anywhere, against the same in compressed sparse rows."""
    dense = nn.Linear(width, width, bias=False)
    dense.weight = nn.Parameter(random_sparse(width, width, density))
    x = torch.randn(batch, width, generator=torch.Generator().manual_seed(0))
    return Patient(f"sparse product, {100 * (1 - density):.0f} % zeros", 1 / density, Columns(dense), Columns(SparseLinear(dense)), x, x)


class Columns(nn.Module):
    """W x^T with the images as columns, the way of both kernels that is the fastest for them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight = layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (outputs, N)."""
        return self.weight @ x.T


def low_rank(x: Tensor, share: float = 0.9) -> Patient:
    """Convolutions as chains of two, at nine tenths of the full rank: above break-even."""
    layers = {n: layer for n, layer in named_layers(vgg()).items() if isinstance(layer, nn.Conv2d) and layer.in_channels > 3}
    ranks = {name: max(1, round(share * full_rank(layer))) for name, layer in layers.items()}
    return Patient(f"low rank, {100 * share:.0f} % of the rank", 1 / share, vgg(), decompose(vgg(), ranks), x, x)


def depthwise(batch: int, width: int = 16) -> Patient:
    """A 3x3 convolution of few channels, and the depthwise separable pair that replaces it."""
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
    torch.random.set_rng_state(torch_state)
    x = torch.randn(batch, width, 32, 32, generator=torch.Generator().manual_seed(0))
    return Patient(f"depthwise, {width} channels", 1 / (1 / width + 1 / 9), conv, separate_conv(conv), x, x)


def patients(images: Tensor) -> list[Patient]:
    """All of them, on a batch of images (N, 3, 32, 32)."""
    return [
        mask_only(images), half_precision(images, torch.float16), half_precision(images, torch.bfloat16), simulated_int8(images),
        *(sparse_product(density) for density in (0.5, 0.1, 0.01)), low_rank(images), depthwise(len(images)),
    ]  # fmt: skip


def examine(patient: Patient, ridge: float, *, repeats: int = 30, threads: int = 1) -> dict[str, Any]:
    """The case in the form of exercise 11.9: facts before and after, and the speed-up with its interval."""
    before, after = run_facts(patient.before, patient.x_before), run_facts(patient.after, patient.x_after)
    with torch_threads(threads), torch.inference_mode():
        calls = {"before": _run(patient.before, patient.x_before), "after": _run(patient.after, patient.x_after)}
        times = time_calls(calls, repeats=repeats, settle=1)
    gain = speedup(times["before"], times["after"])
    return {
        "name": patient.name, "hoped": patient.hoped, "speedup": [gain.ratio, gain.low, gain.high], "ridge": ridge,
        "before": asdict(before), "after": asdict(after),
        "milliseconds": {name: {"median": t.median, "iqr": t.iqr} for name, t in times.items()},
        "batch": len(patient.x_before), "threads": threads,
    }  # fmt: skip


def _run(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return partial(model.train(False), x)
