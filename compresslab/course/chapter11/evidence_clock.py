"""What the section on timing shows without measuring it again: a hundred A/A tests, timed in blocks and in turns."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compresslab.core.timing import speedup, time_calls, torch_threads
from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import export_onnx
from compresslab.deploy.machine import describe_machine
from compresslab.models import load_baseline

TESTS, RUNS = 100, 40


def aa_test() -> dict[str, Any]:
    """resnet8 against itself at batch 1: the ends of the interval of the ratio, naive and fair, test by test."""
    net, x = load_baseline("resnet8").eval(), torch.zeros(1, 3, 32, 32)
    calls = {"a": partial(net, x), "b": partial(net, x)}
    naive, fair = [], []
    with torch_threads(1), torch.inference_mode():
        for _ in range(TESTS):
            naive.append(naive_interval(*(block(call) for call in calls.values())))
            times = time_calls(calls, repeats=RUNS)
            gain = speedup(times["a"], times["b"])
            fair.append([round(v, 5) for v in (gain.ratio, gain.low, gain.high)])
    return {"machine": describe_machine(), "network": "resnet8", "batch": 1, "threads": 1, "runs": RUNS, "naive": naive, "fair": fair}


def settling() -> dict[str, Any]:
    """An A/A test of a harness with two engines: three copies of one network in each, with and without a settling call.

    In turns and rotated, but not settled, the first copy in an engine runs right behind another engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        net, path = load_baseline("resnet8").eval(), Path(folder) / "network.onnx"
        export_onnx(net, path, (3, 32, 32))
        files = [path.read_bytes()] * 3
    x = torch.zeros(1, 3, 32, 32)
    calls = {f"PyTorch {i + 1}": partial(copy.deepcopy(net), x) for i in range(3)}
    calls |= {f"ONNX Runtime {i + 1}": partial(OnnxModel(file, threads=1).run_numpy, x.numpy()) for i, file in enumerate(files)}
    rows = []
    with torch_threads(1), torch.inference_mode():
        for harness, run in (("in turns", time_calls), ("in turns, settled", partial(time_calls, settle=1))):
            times = run(calls, repeats=200)
            for engine in ("PyTorch", "ONNX Runtime"):
                for copied in (2, 3):
                    gain = speedup(times[f"{engine} 1"], times[f"{engine} {copied}"])
                    rows.append({"harness": harness, "engine": engine, "copy": copied, "median": times[f"{engine} {copied}"].median,
                                 "iqr": times[f"{engine} {copied}"].iqr, "ratio": gain.ratio, "low": gain.low, "high": gain.high})  # fmt: skip
    return {"machine": describe_machine(), "threads": 1, "batch": 1, "rows": rows}


def block(call: Any) -> list[float]:
    """RUNS times in a row, from however warm the machine is: milliseconds."""
    out = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        out.append(1e3 * (time.perf_counter() - start))
    return out


def naive_interval(a: list[float], b: list[float]) -> list[float]:
    """The ratio of the means, and the interval that holds 1 exactly if the 95 % interval of their difference holds 0.

    The normal interval of the difference of two means, as if all runs were independent; divided by b's mean.
    """
    x, y = np.array(a), np.array(b)
    difference, error = x.mean() - y.mean(), math.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y))
    ends = (difference + z * error for z in (0, -1.96, 1.96))
    return [round(float(1 + end / y.mean()), 5) for end in ends]


ENTRIES = {"aa_test": aa_test, "settling": settling}
TIMED = ("aa_test", "settling")
