"""MACs against published counts and torch's own counter, latency, and the measured row."""

import time
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compresslab.core import UniformCode, apply_mask_, encode
from compresslab.core.measure import count_macs, file_size, form_of, format_rows, measure
from compresslab.core.size import storage_bits
from compresslab.core.timing import Timing, speedup, time_calls, time_models
from compresslab.data import load_data
from compresslab.models import LeNet300, MobileNetLike, ResNet

FOUR_BITS = partial(UniformCode.from_dense, bits=4)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits").test


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)).eval()


# ---------------------------------------------------------------- MACs


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", "ResNet18_Weights"), ("resnet50", "ResNet50_Weights"), ("alexnet", "AlexNet_Weights"),
        ("squeezenet1_0", "SqueezeNet1_0_Weights"), ("mobilenet_v2", "MobileNet_V2_Weights"),
        ("resnext50_32x4d", "ResNeXt50_32X4D_Weights"), ("vit_b_16", "ViT_B_16_Weights"),
    ],
)  # fmt: skip
def test_published_counts_of_torchvision_are_met(name, weights):
    from torchvision import models

    with torch.device("meta"):
        report = count_macs(getattr(models, name)(), (3, 224, 224))
    published = getattr(models, weights).IMAGENET1K_V1.meta["_ops"]
    assert report.total / 1e9 == pytest.approx(published, abs=0.0006)
    assert sum(report.by_layer.values()) == report.total


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ResNet(8, 4), (3, 32, 32)),
        (MobileNetLike(0.5), (3, 32, 32)),
        (LeNet300(), (1, 28, 28)),
        (nn.Sequential(nn.Conv1d(6, 4, 3, groups=2, dilation=2), nn.ConvTranspose1d(4, 6, 3, groups=2)), (6, 20)),
        (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.Conv2d(6, 6, 3, groups=6, bias=False)), (4, 7, 9)),
    ],
)
def test_counts_agree_with_torchs_flop_counter(model, shape):
    with torch.device("cpu"), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, *shape))
    assert count_macs(model, shape).total * 2 * 2 == counter.get_total_flops()
    assert count_macs(model, torch.zeros(5, *shape)) == count_macs(model, shape)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_counts_its_projections_and_both_products(batch_first):
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=batch_first)

        def forward(self, x):
            key, value = x.new_zeros(5, 3, 6), x.new_zeros(5, 3, 4)
            if batch_first:
                key, value = key.transpose(0, 1), value.transpose(0, 1)
            else:
                x = x.transpose(0, 1)
            return self.attention(x, key=key, value=value)[0]

    report = count_macs(Attend(), torch.zeros(3, 7, 8))
    assert report.by_layer == {"attention": 7 * 8 * 8 + 5 * 6 * 8 + 5 * 4 * 8 + 7 * 8 * 8 + 2 * 7 * 5 * 8}


def test_recurrent_layers_use_every_matrix_once_a_step():
    class Last(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x)[0]

    one = count_macs(Last(nn.LSTM(5, 7, batch_first=True)), (11, 5))
    assert one.total == 11 * 4 * 7 * (5 + 7)
    two = count_macs(Last(nn.LSTM(5, 7, num_layers=2, bidirectional=True)), torch.zeros(11, 1, 5)).total
    assert two * 11 == pytest.approx(11 * 2 * (4 * 7 * (5 + 7) + 4 * 7 * (14 + 7)), rel=0.001)
    assert count_macs(Last(nn.GRU(5, 7, batch_first=True)), (11, 5)).total == 11 * 3 * 7 * (5 + 7)


def test_a_transformer_layer_is_counted_on_the_slow_path():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    report = count_macs(layer, (6, 8))
    assert report.by_layer["self_attn"] == 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8
    assert report.total == report.by_layer["self_attn"] + 2 * 6 * 8 * 16


def test_masked_and_coded_networks_count_like_the_dense_one(network):
    expected = count_macs(network, (1, 8, 8))
    assert count_macs(encode(network, FOUR_BITS), (1, 8, 8)) == expected
    apply_mask_(network[4], torch.zeros_like(network[4].weight, dtype=torch.bool))
    assert count_macs(network, (1, 8, 8)) == expected


def test_a_layer_called_twice_counts_twice_and_one_may_state_its_own_cost():
    shared = nn.Linear(4, 4)

    class Own(nn.Module):
        def forward(self, x):
            return x

        def count_macs(self, inputs, output):
            return 100 * len(inputs[0])

    report = count_macs(nn.Sequential(shared, nn.ReLU(), shared, Own()), (4,))
    assert report.by_layer == {"0": 32, "3": 100}


def test_counting_leaves_hooks_and_modes_as_they_were(network):
    network.train()
    count_macs(network, (1, 8, 8))
    assert network.training
    assert network[1].num_batches_tracked == 0
    assert not any(module._forward_hooks for module in network.modules())


# ---------------------------------------------------------------- latency


class Recorder(nn.Module):
    """Writes its name down at every call, and checks the conditions."""

    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log
        self.conv = nn.Conv2d(2, 2, 1)

    def __deepcopy__(self, memo):
        return Recorder(self.name, self.log)

    def forward(self, x):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.log.append((self.name, torch.get_num_threads(), x.is_contiguous(memory_format=torch.channels_last)))
        return x


def test_models_are_timed_in_turns_under_the_stated_conditions(monkeypatch):
    monkeypatch.setattr("compresslab.core.timing.SHORTEST_SAMPLE", 0)
    threads, log = torch.get_num_threads(), []
    models = {name: Recorder(name, log).train() for name in "abc"}
    times = time_models(models, torch.zeros(1, 2, 4, 4), repeats=3, warmup=1, threads=threads + 1)
    assert "".join(name for name, _, _ in log) == "abc" + "abcbcacab"
    assert {(count, last) for _, count, last in log} == {(threads + 1, True)}
    assert torch.get_num_threads() == threads
    assert all(model.training for model in models.values())
    assert all(len(timing.samples) == 3 and timing.q1 <= timing.median <= timing.q3 for timing in times.values())
    log.clear()
    time_models(models, torch.zeros(1, 2, 4, 4), repeats=1, warmup=1, memory_format="contiguous")
    assert {last for _, _, last in log} == {False}


def test_functions_take_turns_and_the_order_rotates():
    calls = []
    slow = {name: lambda name=name: (calls.append(name), time.sleep(2e-3)) for name in "abc"}
    times = time_calls(slow, repeats=3, warmup=2)
    assert "".join(calls) == "aabbcc" + "abcbcacab"
    assert all(len(timing.samples) == 3 and timing.median >= 2 for timing in times.values())


def test_settling_calls_come_right_before_each_sample_and_are_not_counted():
    calls = []
    times = time_calls(
        {name: lambda name=name: (calls.append(name), time.sleep(2e-3)) for name in "ab"}, repeats=2, warmup=1, settle=1
    )
    assert "".join(calls) == "aabb" + "aabb" + "bbaa"
    assert all(len(timing.samples) == 2 for timing in times.values())


@pytest.mark.parametrize("arguments", [{"repeats": 0}, {"warmup": 0}, {"settle": -1}])
def test_a_clock_without_rounds_is_refused(arguments):
    with pytest.raises(ValueError, match="must be at least"):
        time_calls({"a": int}, **arguments)


def test_the_median_and_the_quartiles_are_those_of_the_samples(monkeypatch):
    ticks = iter([0, 1.0, 10, 11.0, 20, 22.0, 30, 33.0, 40, 49.0, 50, 54.0])  # start, end of the warm-up and 5 samples
    monkeypatch.setattr("compresslab.core.timing.time.perf_counter", lambda: next(ticks))
    timing = time_models({"a": nn.Identity()}, torch.zeros(1), repeats=5, warmup=1)["a"]
    assert timing.samples == (1000, 2000, 3000, 9000, 4000)
    assert (timing.q1, timing.median, timing.q3, timing.iqr) == (2000, 3000, 4000, 2000)


def test_a_speedup_is_a_ratio_of_medians_with_an_interval():
    generator = torch.Generator().manual_seed(0)

    def timing(centre):
        samples = (centre + torch.randn(41, generator=generator) * 0.1).tolist()
        return Timing(sorted(samples)[20], 0, 0, tuple(samples))

    slow, fast, alike = timing(4.0), timing(2.0), timing(4.0)
    assert speedup(slow, fast).low < 2 < speedup(slow, fast).high
    assert speedup(slow, fast).ratio == slow.median / fast.median
    assert speedup(slow, fast).verdict == "faster"
    assert speedup(fast, slow).verdict == "slower"
    assert speedup(slow, alike).verdict == "not distinguishable"
    with pytest.raises(ValueError, match="41 and 1 rounds"):
        speedup(slow, Timing(1.0, 1.0, 1.0, (1.0,)))
    with pytest.raises(ValueError, match="confidence must be in"):
        speedup(slow, fast, confidence=95)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"memory_format": "nhwc"}, "memory_format must be one of channels_last, contiguous, got 'nhwc'"),
    ],
)
def test_a_clock_that_cannot_run_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        time_models({"a": nn.Identity()}, torch.zeros(1), **arguments)


# ---------------------------------------------------------------- measure


def test_the_row_of_a_plain_network(network, digits, tmp_path):
    from compresslab.core.store import save

    row = measure(network, digits, name="dense", repeats=2, threads=1, seed=7)
    assert row.total_bits == storage_bits(network)
    assert row.weight_bits == 32 * (6 * 9 + 216 * 10)
    assert row.file_bytes == save(network, tmp_path / "file") == (tmp_path / "file").stat().st_size
    assert row.file_bytes > row.total_bits // 8
    assert row.macs == 36 * 6 * 9 + 2160
    assert (row.form, row.name, row.n, row.threads, row.batch, row.seed) == ("plain", "dense", 400, 1, 1, 7)
    assert row.memory_format == "channels_last"
    assert row.latency_ms == row.baseline_latency_ms > 0
    assert row.speedup == 1


def test_a_simulated_network_has_the_size_of_the_dense_one(network, digits):
    dense = measure(network, digits, repeats=0)
    apply_mask_(network[4], torch.rand(network[4].weight.shape) < 0.1)
    row = measure(network, digits, baseline=network, repeats=2)
    assert row.form == "simulated"
    assert (row.file_bytes, row.total_bits, row.weight_bits) == (dense.file_bytes, dense.total_bits, dense.weight_bits)
    assert row.macs == dense.macs
    assert form_of(network) == "simulated"
    assert row.baseline_latency_ms > 0
    assert dense.latency_ms is dense.latency_iqr is dense.baseline_latency_ms is dense.speedup is None


def test_a_packed_network_is_small_and_judged_on_its_decoded_weights(network, digits):
    dense, coded = measure(network, digits, repeats=0), encode(network, FOUR_BITS)
    row = measure(coded, digits, baseline=network, repeats=2)
    assert row.form == "packed"
    assert row.total_bits == storage_bits(coded)
    assert row.weight_bits < dense.weight_bits / 6
    assert row.file_bytes < dense.file_bytes / 2
    assert row.macs == dense.macs
    assert row.accuracy == pytest.approx((coded(digits.x()).argmax(1) == digits.y).float().mean().item(), abs=0.003)
    assert form_of(coded) == "packed"


def test_entropy_coding_changes_the_file_alone(network, digits):
    with torch.no_grad():
        network[4].weight[:, 20:] = 0
    coded = encode(network, FOUR_BITS)
    assert file_size(coded, entropy=True) < file_size(coded)
    plain, squeezed = (measure(coded, digits, repeats=0, entropy=entropy) for entropy in (False, True))
    assert squeezed.file_bytes < plain.file_bytes
    assert squeezed.total_bits == plain.total_bits


def test_measuring_leaves_the_model_alone(network, digits):
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    measure(network, digits, repeats=1)
    assert network.training
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


def test_rows_print_as_a_table_with_the_conditions(network, digits):
    rows = [measure(network, digits, name="dense", repeats=1, threads=1),
            measure(encode(network, FOUR_BITS), digits, name="four bits", repeats=0)]  # fmt: skip
    lines = format_rows(rows).splitlines()
    assert lines[0].split() == ["accuracy", "file", "smaller", "MACs", "latency", "faster", "form"]
    assert lines[1].split()[0] == "dense"
    assert "1.0x" in lines[1]
    assert lines[2].endswith("packed")
    assert lines[3] == "400 images; latency: batch 1, 1 threads, channels_last"


def test_a_batch_or_a_number_of_repeats_out_of_range_is_refused(network, digits):
    for batch in (0, 401):
        with pytest.raises(ValueError, match=f"batch must be from 1 to the 400 images of the split, got {batch}"):
            measure(network, digits, batch=batch)
    with pytest.raises(ValueError, match="repeats must be 0 or more, got -1"):
        measure(network, digits, repeats=-1)
