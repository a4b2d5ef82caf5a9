"""Fresh-process peaks: the marks of a process, and what makes them grow."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from compresslab.core import save
from compresslab.deploy import memory
from compresslab.deploy.memory import peak_memory
from compresslab.deploy.memory_process import high_water_mark
from compresslab.models import from_spec

MB = 1_000_000


@pytest.fixture(scope="module")
def doubling(tmp_path_factory):
    """y = (x + x) * x for x of any length: 2 outputs as large as the input."""
    path = tmp_path_factory.mktemp("memory") / "doubling.onnx"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "m"]) for name in "xy")
    nodes = [helper.make_node("Add", ["x", "x"], ["z"]), helper.make_node("Mul", ["z", "x"], ["y"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_process_that_takes_memory_has_a_higher_mark():
    before = high_water_mark()
    held = torch.ones(before // 4 + 5 * MB)  # four bytes each: above what was ever there
    assert high_water_mark() >= before + 4 * MB and held.numel() > 0


def test_the_marks_grow_and_a_larger_batch_takes_more(doubling):
    small = peak_memory(doubling, (1000,), batch=1)
    large = peak_memory(doubling, (1000,), batch=5000)  # 20 MB for x (before the first mark) and for each output
    for report in (small, large):
        assert 5 * MB < report.started_bytes <= report.loaded_bytes <= report.peak_bytes
        assert report.file_bytes == doubling.stat().st_size and report.engine == "onnxruntime"
        assert report.loading_bytes + report.running_bytes == report.peak_bytes - report.started_bytes
    assert large.running_bytes - small.running_bytes > 15 * MB
    assert small.peak_bytes < 150 * MB  # torch alone would be more


def test_torch_files_run_in_torch(tmp_path):
    path = tmp_path / "small.safetensors"
    save(from_spec({"model": "lenet300", "num_classes": 10}), path)
    report = peak_memory(path, (1, 28, 28), runs=1)
    assert report.engine == "torch" and report.file_bytes > MB
    assert report.started_bytes < report.peak_bytes


def test_what_is_refused(doubling, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no file 'none.onnx'"):
        peak_memory(tmp_path / "none.onnx", (3,))
    with pytest.raises(ValueError, match="engine must be 'torch' or 'onnxruntime', got 'mxnet'"):
        peak_memory(doubling, (3,), engine="mxnet")
    for name, value in {"batch": 0, "runs": -1, "threads": 0}.items():
        with pytest.raises(ValueError, match=name):
            peak_memory(doubling, (3,), **{name: value})
    with pytest.raises(RuntimeError, match="the process failed: "):
        peak_memory(doubling, (3, 4, 5))  # three axes too many
    monkeypatch.setattr(memory, "SECONDS", 0.01)
    with pytest.raises(RuntimeError, match="took more than 0.01 s"):
        peak_memory(doubling, (3,))
