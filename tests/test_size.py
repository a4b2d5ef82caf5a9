"""The size of a model is counted from its state_dict."""

from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core import (
    CodebookCode,
    DenseCode,
    UniformCode,
    apply_mask_,
    encode,
    gap_codebook,
    sparse_codebook,
    storage_bits,
    storage_report,
)


def test_plain_layers_take_four_bytes_a_number():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(5, 2, bias=False))
    assert storage_bits(model) == 32 * (3 * 8 * 9 + 8 + 4 * 8 + 10) + 64  # num_batches_tracked is an int64
    assert storage_bits(model.half()) == 16 * (3 * 8 * 9 + 8 + 4 * 8 + 10) + 64
    assert storage_bits(nn.ReLU()) == 0


def test_what_shares_a_storage_counts_once():
    a, b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    b.weight = a.weight
    assert storage_bits(nn.Sequential(a, a, b)) == 32 * 16
    b.weight = nn.Parameter(a.weight.detach().t())  # a view
    assert storage_bits(nn.Sequential(a, b)) == 32 * 16
    big = torch.zeros(100)
    a.weight, b.weight = nn.Parameter(big[:16].view(4, 4)), nn.Parameter(big[16:32].view(4, 4))
    assert storage_bits(nn.Sequential(a, b)) == 32 * 100  # all of it is kept alive


def test_buffers_outside_the_state_dict_do_not_count():
    model = nn.Linear(2, 2)
    model.register_buffer("cache", torch.zeros(1000), persistent=False)
    assert storage_bits(model) == 32 * 6


def test_a_mask_saves_nothing():
    model = nn.Linear(4, 4)
    dense = storage_bits(model)
    apply_mask_(model, torch.eye(4).bool())
    assert storage_bits(model) == dense + 8 * 16
    assert storage_report(model).by_role == {"bias": 128, "weight": 512, "mask": 128}
    assert set(storage_report(model).by_layer) == {""}


@pytest.mark.parametrize(
    ("make_code", "roles"),
    [
        (DenseCode.from_dense, {"values"}),
        (partial(UniformCode.from_dense, bits=4), {"values", "scales"}),
        (partial(CodebookCode.from_dense, bits=4), {"indices", "codebook"}),
        (sparse_codebook(bits=4), {"mask", "indices", "codebook"}),
        (gap_codebook(bits=4), {"positions", "indices", "codebook"}),
    ],
)
def test_report_splits_by_layer_and_role_and_adds_up(make_code, roles):
    model = nn.Sequential(nn.Linear(20, 10), nn.BatchNorm1d(10), nn.Sequential(nn.Linear(10, 5, bias=False)))
    coded = encode(model, make_code)
    report = storage_report(coded)
    assert set(report.by_role) == roles | {"bias", "norm"}
    assert list(report.by_layer) == ["0", "1", "2.0"]
    assert (
        sum(report.by_role.values())
        == sum(report.by_layer.values())
        == report.total_bits
        == storage_bits(coded)
    )
    assert report.by_role["norm"] == 32 * 40 + 64


def test_attention_and_lstm_are_listed_as_layers():
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2), "lstm": nn.LSTM(8, 4)})
    report = storage_report(encode(model, partial(UniformCode.from_dense, bits=8)))
    assert list(report.by_layer) == ["attn", "attn.out_proj", "lstm"]
    assert report.by_layer["lstm"] == 8 * (16 * 8 + 16 * 4 + 2 * 4 + 2 * 16 * 4)


def test_the_printed_table_has_a_line_per_layer_and_the_totals():
    coded = encode(
        nn.Sequential(nn.Linear(100, 30), nn.ReLU(), nn.Linear(30, 4)),
        partial(CodebookCode.from_dense, bits=2),
    )
    lines = str(storage_report(coded)).splitlines()
    assert lines[0].split() == ["bytes", "bias", "indices", "codebook", "total"]
    assert [line.split() for line in lines[1:]] == [
        ["0", "120", "750", "16", "886"],
        ["2", "16", "30", "16", "62"],
        ["total", "136", "780", "32", "948"],
    ]
    assert len({len(line) for line in lines}) == 1
