"""The GPU table, as far as a CPU can tell: refusals, rows with a reason, 2:4 numerics, bytes, and a fake clock."""

import json

import pytest
import torch
from torch import nn

from compresslab.deploy import gpu
from compresslab.pruning import nm_mask

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(scope="module")
def block():
    return gpu._block(128, seed=0)


@pytest.fixture
def x():
    return torch.randn(1, 5, 128, generator=torch.Generator().manual_seed(0))


@no_gpu
def test_refusal_in_words():
    with pytest.raises(RuntimeError, match="there is no CUDA GPU here"):
        gpu.gpu_block_table()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"width": 200}, "width must be a multiple of 128, got 200"), ({"width": 64}, "width must be a whole number of at least 128"),
    ({"repeats": 0}, "repeats must be"), ({"warmup": 0}, "warmup must be"),
])  # fmt: skip
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gpu.gpu_block_table(**arguments)


def test_block_has_twelve_squares_of_weights_and_leaves_the_seed(block):
    state = torch.random.get_rng_state()
    again = gpu._block(128, seed=0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(block.parameters(), again.parameters(), strict=True))
    assert sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Linear)) == 12 * 128**2


def test_2_4_is_the_mask_of_the_pruning_family():
    layer = nn.Linear(8, 3)
    before = layer.weight.detach().clone()
    gpu.prune_2_4(layer)
    assert torch.equal(layer.weight, before * nm_mask(before, 2, 4)) and gpu.is_2_4(layer.weight)
    assert not gpu.is_2_4(before) and not gpu.is_2_4(torch.zeros(2, 6))


def test_dense_weights_are_no_2_4_network():
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="2:4 needs at most two weights in every four of a row in layer '0'"):
        gpu.to_semi_structured(net)


@pytest.mark.parametrize(("form", "limit"), [("float32", 0), ("float16", 0.02), ("bfloat16", 0.1), ("2:4 zeros, dense bfloat16", 0.1)])
def test_forms_that_a_cpu_has(form, limit, block, x):
    weights = [p.clone() for p in block.parameters()]
    with torch.inference_mode():
        made = gpu.try_form(form, gpu.FORMS[form], block, x)
        assert made.difference <= limit
        assert made.call().shape == x.shape
    assert made.weight_bytes == sum(p.numel() for p in weights) * (4 if form == "float32" else 2)
    assert all(torch.equal(a, b) for a, b in zip(weights, block.parameters(), strict=True))


@no_gpu
def test_form_that_this_machine_lacks_is_a_reason(block, x):
    reason = gpu.try_form("2:4 sparse bfloat16", gpu.FORMS["2:4 sparse bfloat16"], block, x)
    assert isinstance(reason, str) and "CUDA" in reason and "\n" not in reason


def test_missing_torchao_is_a_reason(block, x):
    def change(model):
        raise ModuleNotFoundError("No module named 'torchao'", name="torchao")

    assert gpu.try_form("int8 weights only", change, block, x) == "torchao is not installed: pip install torchao"


class FakeEvent:
    """The clock of a GPU on which every call takes what `FakeEvent.now` was moved by."""

    now = 0.0

    def __init__(self, enable_timing=False):
        assert enable_timing

    def record(self):
        self.at = FakeEvent.now

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return end.at - self.at


def work(milliseconds):
    def call():
        FakeEvent.now += milliseconds

    return call


def test_events_time_calls_in_milliseconds(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    times = gpu.time_events({"slow": work(4.0), "fast": work(0.25)}, repeats=5, warmup=2)
    assert times["slow"].median == pytest.approx(4.0) and times["fast"].median == pytest.approx(0.25)
    assert len(times["fast"].samples) == 5 and times["fast"].iqr == pytest.approx(0, abs=1e-9)


def test_table_with_a_fake_clock(monkeypatch, block, x):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)

    def slower(model):
        model.register_forward_hook(lambda *_: work(2.0)())
        return model

    def broken(model):
        raise ValueError("no kernel\nfor this")

    base = {"float32": slower, "broken": broken, "bfloat16": lambda model: slower(slower(model.bfloat16()))}
    rows = gpu._time_forms(block, base, x, repeats=3, warmup=1)
    assert [row.form for row in rows] == list(base) and {row.tokens for row in rows} == {5}
    assert rows[1] == gpu.GpuRow("broken", 5, reason="ValueError: no kernel")
    assert rows[0].ratio == 1 and rows[2].median == pytest.approx(4.0) and rows[2].ratio == pytest.approx(0.5)
    assert json.loads(json.dumps(gpu.as_json(rows)))["rows"][1]["median"] is None


def test_precision_is_restored():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), gpu.tf32(True):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert torch.get_float32_matmul_precision() == before
