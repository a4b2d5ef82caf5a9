"""Per-layer times: with a clock of our own, from a profile written by hand, and from the engine's own."""

import json

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from compresslab.deploy.profile import BETWEEN, LayerTime, profile_layers, profile_onnx, read_profile


class Clock:
    """Seconds that only `spend` moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Slow(nn.Module):
    """Takes as long as it says, on a clock of ours; runs differ as the list says. A deep copy shares the clock."""

    def __init__(self, clock, *seconds):
        super().__init__()
        self.clock, self.seconds, self.runs = clock, seconds, [0]

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.clock.now += self.seconds[self.runs[0] % len(self.seconds)]
        self.runs[0] += 1
        return x


class Between(nn.Module):
    def __init__(self, clock, *layers):
        super().__init__()
        self.body, self.clock = nn.Sequential(*layers), clock

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.clock.now += 0.5
        return self.body(self.body[0](x))  # the first layer runs twice


def test_layers_get_their_time_and_what_lies_between_gets_the_rest():
    clock = Clock()
    rows = profile_layers(Between(clock, Slow(clock, 1.0), Slow(clock, 2.0)), torch.zeros(1), rounds=3, clock=clock)
    assert [(row.name, row.operation) for row in rows] == [("body.0", "Slow"), ("body.1", "Slow"), (BETWEEN, "")]
    assert [row.milliseconds for row in rows] == pytest.approx([2000, 2000, 500])
    assert [row.share for row in rows] == pytest.approx([2 / 4.5, 2 / 4.5, 0.5 / 4.5])


def test_the_median_counts_and_the_warm_up_does_not():
    clock = Clock()
    layer = Slow(clock, 100.0, 1.0, 3.0, 2.0)  # the first run is slow
    rows = profile_layers(nn.Sequential(layer), torch.zeros(1), rounds=3, warmup=1, clock=clock)
    assert rows[0].milliseconds == 2000 and rows[1].milliseconds == 0


def test_a_real_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    rows = profile_layers(model, torch.ones(2, 3, 8, 8), rounds=2, threads=1)
    assert [row.name for row in rows] == ["0", "1", "2", "3", BETWEEN]
    assert all(row.milliseconds > 0 for row in rows[:2]) and sum(row.share for row in rows) == pytest.approx(1)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    "argument, message",
    [
        ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
        ({"warmup": -1}, "warmup must be a whole number of at least 0, got -1"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"memory_format": "rows"}, "memory_format must be one of channels_last, contiguous, got 'rows'"),
    ],
)
def test_profile_layers_refuses(argument, message):
    with pytest.raises(ValueError, match=message):
        profile_layers(nn.Linear(2, 2), torch.zeros(1, 2), **argument)


# -- ONNX Runtime's own profile --------------------------------------------------------------------------


def event(name, microseconds, operation="Conv", kind="Node"):
    return {"cat": kind, "name": name, "dur": microseconds, "args": {"op_name": operation}}


def test_a_profile_written_by_hand():
    run = [event("a_kernel_time", 1000), event("a_fence_before", 7), event("b_kernel_time", 3000, "Gemm")]
    slow = [event("a_kernel_time", 90000), event("b_kernel_time", 90000, "Gemm")]
    odd = [event("a_kernel_time", 2000), event("b_kernel_time", 2000, "Gemm")]
    events = [event("model_loading", 5, kind="Session"), *slow, *run, *odd, *run]
    assert read_profile(events, skip=1) == [LayerTime("a", "Conv", 1.0, 0.25), LayerTime("b", "Gemm", 3.0, 0.75)]
    assert json.loads(json.dumps(events)) == events


def test_a_profile_without_runs_is_refused():
    with pytest.raises(ValueError, match="the profile holds 1 runs, and 1 of them do not count"):
        read_profile([event("a_kernel_time", 1)], skip=1)
    with pytest.raises(ValueError, match="holds 0 runs"):
        read_profile([])


@pytest.fixture(scope="module")
def file():
    """y = relu(x W + 1) W, large enough for microseconds to show."""
    rng, size = np.random.default_rng(0), 128
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Add", ["a", "one"], ["b"], name="add"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("MatMul", ["c", "w"], ["y"], name="second"),
    ]
    weight = rng.standard_normal((size, size)).astype(np.float32)
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, [size, size], weight.tobytes(), raw=True),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in "xy"]
    graph = helper.make_graph(nodes, "twice", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_engine_tells_every_operation_of_the_file(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = profile_onnx(file, torch.ones(64, 128), rounds=3, warmup=1, optimize=False)
    assert [(row.name, row.operation) for row in rows] == [
        ("first", "MatMul"), ("add", "Add"), ("relu", "Relu"), ("second", "MatMul"),
    ]  # fmt: skip
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert rows[0].milliseconds > 0 and list(tmp_path.iterdir()) == []  # nothing is left behind


def test_arrays_and_paths_will_do(file, tmp_path):
    path = tmp_path / "twice.onnx"
    path.write_bytes(file.SerializeToString())
    rows = profile_onnx(path, np.ones((2, 128), np.float32), rounds=1, warmup=0)
    assert len(rows) == len(profile_onnx(file, torch.ones(2, 128), rounds=2)) > 1


def test_profile_onnx_refuses(file, tmp_path):
    for argument, message in (({"rounds": 0}, "rounds must"), ({"warmup": -1}, "warmup must"), ({"threads": 0}, "threads must")):
        with pytest.raises(ValueError, match=message):
            profile_onnx(file, torch.ones(1, 128), **argument)
    with pytest.raises(ValueError, match=r"does not take an input of shape \[1, 5\]"):
        profile_onnx(file, torch.ones(1, 5))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        profile_onnx(tmp_path / "none.onnx", torch.ones(1, 128))
    with pytest.raises(TypeError, match="model must be a path"):
        profile_onnx(3, torch.ones(1, 128))
