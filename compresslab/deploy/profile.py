"""Where the time goes: milliseconds per layer of a torch network, and per operation of an ONNX file.

The first asks with hooks around every layer. A hook is a Python call, so a network of many small layers runs
slower while it is watched, by some microseconds per layer; what passes between two layers (additions,
reshapes, Python itself) is reported as a row of its own. The second reads the profile that ONNX Runtime
writes of its own run: what is timed there are the operations that it runs after fusion, not those in the
file.

A share of the time is what Amdahl's law needs: a layer with the share s that becomes g times faster makes the
whole 1 / (1 - s + s / g) times faster.
"""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int
from compresslab.core.timing import MEMORY_FORMATS, torch_threads
from compresslab.deploy.engine import Source, first_line, open_session, session_options

BETWEEN = "between the layers"
KERNEL = "_kernel_time"  # how the names of events end that hold an operation's own time


@dataclass(frozen=True)
class LayerTime:
    """One layer or operation: the median of its time per run, and its share of the sum of all rows.

    Args:
        name: of the layer in the network, or of the node in the file. operation: its class or ONNX operator.
        milliseconds: of one run over the whole batch. share: fraction in [0, 1].
    """

    name: str
    operation: str
    milliseconds: float
    share: float


def profile_layers(
    model: nn.Module,
    x: Tensor,
    *,
    rounds: int = 10,
    warmup: int = 2,
    threads: int | None = None,
    memory_format: str = "channels_last",
    clock: Callable[[], float] = time.perf_counter,
) -> list[LayerTime]:
    """Milliseconds of every layer without children, the median over several runs; on the CPU.

    Args:
        model: any network; a copy of it runs in eval mode without gradients.
        x: the input, batch first.
        rounds: runs that count, >= 1. warmup: runs before, >= 0.
        threads: of torch; None leaves the number as it is.
        memory_format: "channels_last" or "contiguous", for 4-d weights and inputs, as in
            ``core.time_models``.
        clock: returns seconds.
    Returns:
        a row per layer in the order of the first call (a layer that is called twice gets the sum), then
        `BETWEEN`: all other time of the run, hooks included.
    Raises:
        TypeError, ValueError: rounds, warmup or threads out of range, or an unknown memory format.
    """
    check_int("rounds", rounds, 1)
    check_int("warmup", warmup, 0)
    if memory_format not in MEMORY_FORMATS:
        raise ValueError(f"memory_format must be one of {', '.join(MEMORY_FORMATS)}, got {memory_format!r}")
    layout = MEMORY_FORMATS[memory_format]
    model = copy.deepcopy(model).to(memory_format=layout).eval()
    x = x.contiguous(memory_format=layout) if x.ndim == 4 else x
    layers = {name: layer for name, layer in model.named_modules() if not list(layer.children())}
    spent: dict[str, float] = {}
    runs: list[dict[str, float]] = []
    _watch(layers, spent, clock)
    with torch.no_grad(), torch_threads(None if threads is None else check_int("threads", threads, 1)):
        for _ in range(warmup + rounds):
            spent.clear()
            start = clock()
            model(x)
            whole = clock() - start
            runs.append(spent | {BETWEEN: max(0.0, whole - sum(spent.values()))})
    classes = {name: type(layer).__name__ for name, layer in layers.items()}
    return _rows(runs[warmup:], classes | {BETWEEN: ""})


def _watch(layers: Mapping[str, nn.Module], spent: dict[str, float], clock: Callable[[], float]) -> None:
    """Let every layer add its seconds to `spent`, under its name."""
    for name, layer in layers.items():
        started: list[float] = []

        def begin(layer: nn.Module, inputs: tuple, *, started: list[float] = started) -> None:
            started.append(clock())

        def end(
            layer: nn.Module,
            inputs: tuple,
            output: Any,
            *,
            started: list[float] = started,
            name: str = name,
        ) -> None:
            spent[name] = spent.get(name, 0.0) + clock() - started.pop()

        layer.register_forward_pre_hook(begin)
        layer.register_forward_hook(end)


def profile_onnx(
    model: Source,
    x: Tensor | np.ndarray,
    *,
    rounds: int = 20,
    warmup: int = 3,
    threads: int = 1,
    optimize: bool = True,
) -> list[LayerTime]:
    """Milliseconds of every operation that ONNX Runtime runs, from its own profile.

    The engine writes a JSON file with the microseconds of each operation (whole numbers) into a temporary
    folder. Being watched costs it a little, too; the sum of the rows leaves out what lies between operations.

    Args:
        model: path of an .onnx file, its bytes, or an ``onnx.ModelProto``, with one input.
        x: the input. rounds: runs that count, >= 1. warmup: runs before, >= 0.
        threads: inside one operation. optimize: as in `OnnxModel`.
    Returns:
        a row per operation, in the order in which they run.
    Raises:
        ImportError, FileNotFoundError, TypeError, ValueError: as `OnnxModel`; rounds or warmup out of range;
            an input that the file does not take.
    """
    check_int("rounds", rounds, 1)
    check_int("warmup", warmup, 0)
    options = session_options(check_int("threads", threads, 1), optimize)
    values = np.ascontiguousarray(x.detach().cpu().numpy() if isinstance(x, Tensor) else x)
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = open_session(model, options)
        try:
            feed = {session.get_inputs()[0].name: values}
            for _ in range(warmup + rounds):
                session.run(None, feed)
        except Exception as error:  # the engine's own exception classes are private
            message = f"the file does not take an input of shape {list(values.shape)}: {first_line(error)}"
            raise ValueError(message) from error
        finally:
            written = Path(session.end_profiling())
        return read_profile(json.loads(written.read_text(encoding="utf-8")), skip=warmup)


def read_profile(events: Sequence[Mapping[str, Any]], skip: int = 0) -> list[LayerTime]:
    """The rows of a profile that ONNX Runtime wrote: the medians over its runs.

    Args:
        events: what the JSON file holds: kernels have ``cat`` "Node", a ``name`` that ends in "_kernel_time",
            ``dur`` in microseconds and ``args`` with the ``op_name``. skip: first runs that do not count.
    Raises:
        ValueError: no run is left.
    Example:
        >>> event = {"cat": "Node", "name": "a_kernel_time", "dur": 3000, "args": {"op_name": "Conv"}}
        >>> other = event | {"name": "b_kernel_time", "dur": 1000}
        >>> for row in read_profile([{"cat": "Session", "name": "model_run"}, event, other]):
        ...     print(row.name, row.operation, row.milliseconds, row.share)
        a Conv 3.0 0.75
        b Conv 1.0 0.25
    """
    operations: dict[str, str] = {}
    durations: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            name = event["name"].removesuffix(KERNEL)
            operations[name] = event["args"]["op_name"]
            durations.setdefault(name, []).append(event["dur"] / 1e6)
    count = max(map(len, durations.values()), default=0)
    if count <= skip:
        raise ValueError(f"the profile holds {count} runs, and {skip} of them do not count")
    runs = [
        {name: times[index] for name, times in durations.items() if index < len(times)}
        for index in range(skip, count)
    ]
    return _rows(runs, operations)


def _rows(runs: Sequence[Mapping[str, float]], operations: Mapping[str, str]) -> list[LayerTime]:
    """The medians of seconds by name, in the order of the first run."""
    medians = {name: 1e3 * statistics.median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    total = sum(medians.values())
    return [
        LayerTime(name, operations[name], median, median / total if total else 0.0)
        for name, median in medians.items()
    ]
