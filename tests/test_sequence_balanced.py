"""Load-balanced pruning: equal work for every element, by counting; the storage round trip."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.core.codes import CodebookCode
from compresslab.pruning.masks import keep_mask
from compresslab.sequence.balanced import (
    balanced_mask,
    decode_elements,
    encode_elements,
    from_elements,
    to_elements,
    utilisation,
    work_per_element,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.floats(0, 1), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_element_keeps_the_same_number_its_largest(blocks, each, columns, sparsity, ties, seed):
    weight = randn(blocks * each, columns, seed=seed)
    weight = weight.round() if ties else weight
    mask = balanced_mask(weight, sparsity, blocks)
    kept = each * columns - round(sparsity * each * columns)
    for k in range(blocks):
        mine, size = mask[k::blocks], weight[k::blocks].abs()
        assert int(mine.sum()) == kept
        assert not (0 < kept < mine.numel()) or size[mine].min() >= size[~mine].max()
    assert work_per_element(mask, blocks).tolist() == [kept] * blocks
    assert utilisation(mask, blocks) == 1.0


def test_one_element_is_pruning_by_magnitude_and_masks_are_nested():
    weight = randn(12, 5)
    assert torch.equal(balanced_mask(weight, 0.4, 1).flatten().sort().values, keep_mask(weight.abs(), 0.4).flatten().sort().values)
    assert (weight[balanced_mask(weight, 0.4, 1)].abs().min() >= weight[~balanced_mask(weight, 0.4, 1)].abs().max())
    masks = [balanced_mask(weight.round(), s, 3) for s in (0.2, 0.5, 0.8)]
    assert not (masks[1] & ~masks[0]).any() and not (masks[2] & ~masks[1]).any()
    assert torch.equal(balanced_mask(weight, 0.5, 4, scores=torch.arange(60.0).view(12, 5)), balanced_mask(torch.arange(60.0).view(12, 5), 0.5, 4))


def test_work_and_utilisation_by_counting():
    mask = randn(24, 7) > 0.5
    work = [sum(int(mask[i, j]) for i in range(k, 24, 6) for j in range(7)) for k in range(6)]
    assert work_per_element(mask, 6).tolist() == work
    assert utilisation(mask, 6) == pytest.approx(sum(work) / 6 / max(work))
    assert utilisation(torch.zeros(4, 2), 2) == 1.0
    one = torch.zeros(8, 3)
    one[3] = 1.0
    assert utilisation(one, 4) == pytest.approx(0.25)


def test_rows_are_dealt_out_one_by_one():
    matrix = torch.arange(24).view(6, 4)
    parts = to_elements(matrix, 3)
    assert all(parts[k, j, i] == matrix[i * 3 + k, j] for k in range(3) for j in range(4) for i in range(2))
    assert torch.equal(from_elements(parts), matrix)


@pytest.mark.parametrize("index_bits", [2, 4, 8, None])
@pytest.mark.parametrize("sparsity", [0.0, 0.9, 1.0])
def test_relative_index_round_trip(index_bits, sparsity):
    weight = randn(24, 10)
    weight = weight * balanced_mask(weight, sparsity, 4)
    codes = encode_elements(weight, 4, index_bits=index_bits)
    assert len({code.values.numel for code in codes}) == 1  # equal work
    assert torch.equal(decode_elements(codes), weight)
    shared = encode_elements(weight, 4, partial(CodebookCode.from_dense, bits=2), index_bits=index_bits)
    assert torch.equal(decode_elements(shared) != 0, weight != 0)


@pytest.mark.parametrize("call, message", [
    (lambda: balanced_mask(torch.ones(6, 2), 0.5, 4), "blocks must divide the rows, got 4 blocks and 6 rows"),
    (lambda: balanced_mask(torch.ones(6), 0.5, 2), "must be a matrix"),
    (lambda: balanced_mask(torch.ones(6, 2), 50, 2), "did you mean 0.5"),
    (lambda: balanced_mask(torch.ones(6, 2), 0.5, 0), "blocks must be"),
    (lambda: from_elements(torch.ones(6, 2)), "parts must be"),
    (lambda: encode_elements(torch.ones(6, 2), 2, index_bits=1), "index_bits"),
])  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
