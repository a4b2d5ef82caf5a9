"""One transformer block on a GPU, in every form that the GPU multiplies faster than float32. Optional.

What a CPU of the course cannot show: kernels for 16-bit floats, for 2:4 sparsity (two of every four weights
are zero, and the tensor cores skip them), for weights of 8 and 4 bits that are widened on the way in. A block
of width d has 12 d^2 weights, and at one token every weight is used once: such a run waits for memory, and
few bits help. At 2,048 tokens it waits for arithmetic, and only what multiplies less or faster helps.

Source: A. Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv:2104.08378, 2021 (2:4).
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int, where
from compresslab.core.timing import SHORTEST_SAMPLE, Timing, speedup
from compresslab.deploy.engine import first_line

NO_GPU = "there is no CUDA GPU here: this table needs one, all the rest of the chapter does not"
TORCHAO_MISSING = "torchao is not installed: pip install torchao"
BASELINE = "float32"
Change = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class GpuRow:
    """One form of the block at one number of tokens; `reason` says why, where there are no times.

    `ratio` (with `low` and `high`, 95 %) is how many times faster than dense float32; `difference` the
    error of the output, |y - y32| / |y32 - x|, against the float32 block with the same zeros (which adds
    y32 - x to the stream x); `weight_bytes` what the weights take in the GPU's memory.
    """

    form: str
    tokens: int
    median: float | None = None
    iqr: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    weight_bytes: int | None = None
    reason: str = ""


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let float32 products use the tensor cores' 19-bit format, or not; restored afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def prune_2_4(model: nn.Module) -> nn.Module:
    """Zero two of every four weights in a row of every linear layer, in place: still dense, still slow."""
    from compresslab.pruning.nm import nm_mask

    with torch.no_grad():
        for layer in _linears(model):
            layer.weight.mul_(nm_mask(layer.weight, 2, 4))
    return model


def to_semi_structured(model: nn.Module) -> nn.Module:
    """Store the weights of a 2:4 network as the GPU's sparse tensor cores read them, in place.

    Raises:
        ValueError: a row has more than two weights in a group of four; names the layer.
        RuntimeError: this GPU or this torch has no such kernel.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            if not is_2_4(layer.weight):
                needs = f"2:4 needs at most two weights in every four of a row{where(name)}"
                raise ValueError(f"{needs}; use prune_2_4 first")
            sparse = torch.sparse.to_sparse_semi_structured(layer.weight.detach().contiguous())
            layer.weight = nn.Parameter(sparse, requires_grad=False)
    return model


def is_2_4(weight: Tensor) -> bool:
    """Whether every four neighbours in a row hold at most two numbers other than zero.

    Example:
        >>> is_2_4(torch.tensor([[1.0, 0, 0, 2]])), is_2_4(torch.tensor([[1.0, 3, 0, 2]]))
        (True, False)
    """
    return weight.shape[-1] % 4 == 0 and int((weight != 0).unflatten(-1, (-1, 4)).sum(-1).max()) <= 2


def _int8_weight_only(model: nn.Module) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model.to(torch.bfloat16), Int8WeightOnlyConfig(set_inductor_config=False))
    return model


def _int4_weight_only(model: nn.Module) -> nn.Module:
    from torchao.quantization import Int4WeightOnlyConfig, quantize_

    packing = "tile_packed_to_4d"
    config = Int4WeightOnlyConfig(group_size=128, int4_packing_format=packing, set_inductor_config=False)
    quantize_(model.to(torch.bfloat16), config)
    return model


def _int8(model: nn.Module) -> nn.Module:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model.to(torch.bfloat16), Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    return model


def _compiled(change: Change) -> Change:
    return lambda model: torch.compile(change(model), mode="max-autotune-no-cudagraphs", dynamic=False)


FORMS: dict[str, Change] = {
    BASELINE: lambda model: model,
    "float32, tf32 products": lambda model: model,
    "float16": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "2:4 zeros, dense bfloat16": lambda model: prune_2_4(model).bfloat16(),
    "2:4 sparse float16": lambda model: to_semi_structured(prune_2_4(model).half()),
    "2:4 sparse bfloat16": lambda model: to_semi_structured(prune_2_4(model).bfloat16()),
    "int8 weights only": _int8_weight_only,
    "int4 weights only": _int4_weight_only,
    "int8 weights and activations": _int8,
}
COMPILED = ("bfloat16", "int8 weights only", "int4 weights only", "int8 weights and activations")


def gpu_block_table(
    width: int = 4096, *, tokens: Sequence[int] = (1, 2048), repeats: int = 30, warmup: int = 3,
    compiled: bool = False, seed: int = 0,
) -> list[GpuRow]:  # fmt: skip
    """Time one transformer block on the GPU in all its forms, interleaved, with CUDA events.

    Args:
        width: of the stream, a multiple of 128; 12 width^2 weights, heads of 128.
        tokens: how many in a row, one text; 1 is a step of writing (without a cache), 2048 a prompt.
        repeats, warmup: rounds and runs before them, each at least 1.
        compiled: time some forms through ``torch.compile`` as well (takes minutes).
        seed: of weights and inputs.
    Returns:
        a `GpuRow` per form and number of tokens. What this GPU, torch or torchao cannot do is a row with the
        reason, never an exception.
    Differs: eager, so at one token the smallest forms wait for the computer to launch their kernels, not for
        the weights; ``compiled`` launches fewer.
    Raises:
        RuntimeError: there is no CUDA GPU.
        ValueError: width no multiple of 128, or a count below 1.
    """
    check_int("width", width, 128), check_int("repeats", repeats, 1), check_int("warmup", warmup, 1)
    if width % 128:
        raise ValueError(f"width must be a multiple of 128, got {width}")
    if not torch.cuda.is_available():
        raise RuntimeError(NO_GPU)
    extra = {f"{name}, compiled": _compiled(FORMS[name]) for name in COMPILED} if compiled else {}
    forms = FORMS | extra
    block = _block(width, seed)
    rows = []
    for count in tokens:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, check_int("tokens", count, 1), width, generator=generator)
        rows += _time_forms(block, forms, x.cuda(), repeats, warmup)
    return rows


def _block(width: int, seed: int) -> nn.Module:
    """The course's transformer layer on the CPU, with seeded weights of its usual size."""
    from compresslab.sequence.gpt import Block

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Block(0, width, width // 128, 128, 4 * width, 0.0).eval().requires_grad_(False)


@dataclass
class _Ready:
    """A form that runs: its call, how far its output is from float32, and the bytes of its weights."""

    call: Callable[[], Tensor]
    difference: float
    weight_bytes: int


def _time_forms(
    block: nn.Module, forms: dict[str, Change], x: Tensor, repeats: int, warmup: int
) -> list[GpuRow]:
    """One table: the forms that run take turns; the others say why they do not."""
    tokens, ready, refused = x.shape[1], {}, {}
    with torch.inference_mode():
        for name, change in forms.items():
            made = try_form(name, change, block, x)
            if isinstance(made, str):
                refused[name] = made
            else:
                ready[name] = made
        times = time_events({name: form.call for name, form in ready.items()}, repeats, warmup)
    rows = [
        GpuRow(name, tokens, reason=refused[name]) if name in refused else _row(tokens, name, ready, times)
        for name in forms
    ]
    ready.clear()
    gc.collect()
    torch.cuda.empty_cache()
    return rows


def _row(tokens: int, name: str, ready: dict[str, _Ready], times: dict[str, Timing]) -> GpuRow:
    form, time = ready[name], times[name]
    gain = speedup(times[BASELINE], times[name]) if BASELINE in times else None
    ends = (gain.ratio, gain.low, gain.high) if gain else (None, None, None)
    return GpuRow(name, tokens, time.median, time.iqr, *ends, form.difference, form.weight_bytes)


def try_form(name: str, change: Change, block: nn.Module, x: Tensor) -> _Ready | str:
    """A copy of the block in one form on x's device, run once; or the reason why it cannot be had."""
    wide = "tf32" in name
    try:
        model = change(copy.deepcopy(block).to(x.device))
        dtype = next((p.dtype for n, p in model.named_parameters() if "norm" in n), x.dtype)
        inputs = x.to(dtype)

        def call() -> Tensor:
            with tf32(wide):
                return model(inputs)

        reference = copy.deepcopy(block).to(x.device)
        if "2:4" in name:
            prune_2_4(reference)
        with tf32(False):
            wanted = reference(x)
        difference = float((call().to(x.dtype) - wanted).norm() / (wanted - x).norm())
        return _Ready(call, difference, weight_bytes(model))
    except ModuleNotFoundError as error:
        return TORCHAO_MISSING if (error.name or "").startswith("torchao") else first_line(error)
    except Exception as error:  # whatever a driver, torch or torchao says: it is told, and the others go on
        return f"{type(error).__name__}: {first_line(error)}"


def weight_bytes(model: nn.Module) -> int:
    """The bytes of the weights as they lie in memory: the parts of a packed tensor, not its nominal shape."""
    return sum(map(_stored_bytes, model.parameters()))


def _stored_bytes(tensor: Tensor) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_stored_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


def time_events(
    calls: dict[str, Callable[[], object]], repeats: int = 30, warmup: int = 3
) -> dict[str, Timing]:
    """`core.time_calls` with the GPU's own clock: events in its queue, read when the queue is empty.

    A call to the GPU returns before its work is done, so the computer's clock around it measures the queue.
    An event is a mark in that queue, and two marks are subtracted on the GPU.
    """
    import numpy as np

    runs = {name: _calls_per_sample(call, warmup) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(repeats):
        for name in order:
            samples[name].append(_event_milliseconds(calls[name], runs[name]))
        order.append(order.pop(0))
    quartiles = {name: np.quantile(values, [0.25, 0.5, 0.75]).tolist() for name, values in samples.items()}
    return {name: Timing(q[1], q[0], q[2], tuple(samples[name])) for name, q in quartiles.items()}


def _calls_per_sample(call: Callable[[], object], warmup: int) -> int:
    fastest = min(_event_milliseconds(call, 1) for _ in range(max(warmup, 1)))
    return max(1, round(SHORTEST_SAMPLE * 1e3 / max(fastest, 1e-3)))


def _event_milliseconds(call: Callable[[], object], calls: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def as_json(rows: list[GpuRow]) -> dict[str, object]:
    """The rows with the machine that they were measured on, for a file."""
    from compresslab.deploy.machine import describe_machine

    return {"machine": describe_machine(), "rows": [asdict(row) for row in rows]}


def _linears(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
