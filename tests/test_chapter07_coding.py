"""Chapter 07, first half: what its widget computes, what its figures show, and its answers against the library."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from compresslab.core import CodebookCode, GapSparseCode, code_lengths, encode, file_size, storage_bits
from compresslab.course.chapter07 import figures
from compresslab.course.chapter07 import references_coding as references
from compresslab.course.chapter07.widgets import SizeLook, draw_sizes
from compresslab.hybrid import clipq
from compresslab.quantization import rate


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- the widget --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sparsity", "bits"), [(0.5, 8), (0.9, 4), (0.95, 2)])
def test_the_look_counts_what_a_packed_network_stores(sparsity, bits):
    model = nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 10))
    rest = {"biases": 4 * 50, "header": 0}
    data = SizeLook(references.coded_bits, [model[0].weight, model[1].weight], rest, file_size(model))(sparsity, bits)

    def code(weight):
        pruned = weight.flatten().clone()
        pruned[weight.flatten().abs().argsort(stable=True)[: round(sparsity * len(pruned))]] = 0
        return GapSparseCode.from_dense(pruned.view_as(weight), lambda values: CodebookCode.from_dense(values, bits))

    assert sum(data.parts.values()) == storage_bits(encode(model, code)) / 8
    assert data.promised == pytest.approx(32 / bits / (1 - sparsity), rel=1e-2)
    assert data.ratio < data.promised


def test_the_look_is_drawn_with_its_position():
    data = SizeLook(references.coded_bits, [numbers(50, 40)], {"biases": 160, "header": 400}, 8000)(0.9, 4)
    _, axes = plt.subplots(1, 2)
    draw_sizes(axes, data)
    assert axes[0].get_title().startswith("promised 80 x")
    position = axes[1].lines[-1]
    assert position.get_xdata()[0] == pytest.approx(0.1) and position.get_ydata()[0] == pytest.approx(data.ratio)


# -- figures -----------------------------------------------------------------------------------------


def test_each_network_has_a_panel_and_the_means_of_its_stages():
    rows = [{"experiment": "deep compression", "network": "lenet300", "stage": stage, "seed": seed, "file_bytes": size, "accuracy": 0.9 + 0.02 * seed}
            for stage, size in (("dense", 1000), ("coded", 20)) for seed in range(2)]
    rows += [{"experiment": "small dense", "network": "lenet5", "seed": 0, "file_bytes": 30, "accuracy": 0.8}, {"experiment": "order"}]
    first, second = figures.deep_compression(rows).axes
    assert (first.get_title(), second.get_title()) == ("LeNet-300-100", "LeNet-5")
    assert first.lines[0].get_ydata().tolist() == pytest.approx([91.0, 91.0])
    assert figures.deep_compression([]).axes


def test_the_ledger_bars_end_at_the_size_of_the_file():
    ax = figures.ledger_bar({"a": {"values": 3000, "index": 4000, "header": 500, "total": 7500}, "b": {"values": 1000, "total": 1000}})
    ends = {round(patch.get_y(), 3): patch.get_x() + patch.get_width() for patch in ax.patches}
    assert sorted(ends.values()) == pytest.approx([1.0, 7.5])


def test_every_weight_has_come_back_gone_stayed_or_been_zero():
    before, after = torch.tensor([[True, True, False, False]]), torch.tensor([[True, False, True, False]])
    labels = [text.get_text() for text in figures.returned(before, after).get_legend().get_texts()]
    assert labels == ["stayed: 1", "came back: 1", "went: 1", "zero: 1"]


# -- the learner's functions -------------------------------------------------------------------------


def test_the_references_are_the_library():
    weight, symbols = numbers(30, 20), (3 * numbers(500, seed=1)).round().long()
    torch.testing.assert_close(references.clip_partition(weight, 0.7, 3), clipq.clip_partition(weight, 0.7, 3))
    assert references.entropy(symbols) == pytest.approx(rate.entropy(symbols))
    counts = torch.bincount(symbols - symbols.min()).numpy()
    lengths = np.array(references.huffman_lengths(counts.tolist()))
    assert counts @ lengths == counts @ code_lengths(counts)
    bits, error = references.uniform_rate(weight, 0.3)
    assert bits == pytest.approx(rate.entropy((weight / 0.3).round().long()))
    assert 10 * np.log10(float(weight.square().mean()) / error) == pytest.approx(rate.signal_to_noise(weight, 0.3 * (weight / 0.3).round()), rel=1e-4)
