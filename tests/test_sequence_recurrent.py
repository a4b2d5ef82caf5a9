"""The matrices of an LSTM masked, simulated and stored, against the cell written out; pruning and compressing it."""

import copy

import pytest
import torch
from torch import nn

from compresslab.core.codes import DenseCode, UniformCode
from compresslab.core.layers import CodedLSTM, decompress
from compresslab.core.modules import bake
from compresslab.core.sparse import GapSparseCode
from compresslab.core.store import load, save
from compresslab.quantization.fake import FakeQuantize
from compresslab.sequence.compress_lstm import compress_lstm, round_lstm, share_lstm, train_rounded
from compresslab.sequence.language import token_loss
from compresslab.sequence.lstm import CharLSTM, lstm_cell
from compresslab.sequence.prune_recurrent import grow_masks_, mask_copy, prunable, prune_lstm
from compresslab.sequence.recurrent_weights import (
    held_masks,
    mask_matrices,
    named_matrices,
    recurrent_matrices,
    simulate_matrices,
    store_matrices,
)
from compresslab.sequence.ternary_gates import ternary_gates, train_ternary
from compresslab.sequence.text import TextSplit

HH, IH = "lstm.weight_hh_l0", "lstm.weight_ih_l0"


def model(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CharLSTM(**({"embedding": 4, "hidden": 8} | options)).eval()


def split(windows=6, context=10):
    """A text of the first five characters, which has something to learn: each is the one before plus 0 or 1."""
    steps = torch.randint(0, 2, (windows * context + 1,), generator=torch.Generator().manual_seed(1))
    return TextSplit(steps.cumsum(0) % 5, context)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x, state, matrices, biases):
    """The states of one layer, step by step with `lstm_cell`."""
    out = []
    for column in x.unbind(1):
        state = lstm_cell(column, state, *matrices, biases)
        out.append(state[0])
    return torch.stack(out, 1)


def test_a_masked_lstm_equals_the_cell_with_masked_weights():
    dense = model()
    masks = {name: randn(*matrix.shape, seed=3) > 0.3 for name, matrix in named_matrices(dense).items() if "lstm" in name}
    masked = mask_matrices(dense, masks)
    x, zero = randn(3, 7, 4), torch.zeros(3, 8)
    weights = [getattr(dense.lstm, name[5:]) * masks[name] for name in (IH, HH)]
    wanted = by_hand(x, (zero, zero), weights, dense.lstm.bias_ih_l0 + dense.lstm.bias_hh_l0)
    assert torch.allclose(masked.lstm(x)[0], wanted, atol=1e-6)
    assert not torch.allclose(dense.lstm(x)[0], wanted, atol=1e-3)
    assert torch.equal(bake(masked).lstm(x)[0], masked.lstm(x)[0])
    assert held_masks(masked).keys() == masks.keys() and held_masks(dense) == {}


def test_a_masked_weight_gets_no_gradient_and_stays_zero():
    mask = randn(32, 8) > 0
    masked = mask_matrices(model(), {HH: mask}).train()
    x, y = next(split().batches(6))
    updates = torch.optim.SGD(masked.parameters(), 0.5, momentum=0.9, weight_decay=0.1)
    before = named_matrices(masked)[HH].detach().clone()
    for _ in range(3):
        updates.zero_grad()
        token_loss(masked, x, y).backward()
        updates.step()
    assert (masked.lstm.parametrizations.weight_hh_l0.original.grad[~mask] == 0).all()
    after = named_matrices(masked)[HH]
    assert (after[~mask] == 0).all() and (after != before)[mask].any()
    again = copy.deepcopy(masked)  # torch would keep the graph of the last step
    assert torch.equal(again(x), masked(x)) and torch.equal(bake(masked)(x), masked(x))
    baked = bake(masked).train()
    token_loss(baked, x, y).backward()
    assert type(baked.lstm) is nn.LSTM and baked.lstm.weight_hh_l0.grad.abs().sum() > 0


def test_masks_only_grow_and_the_model_given_stays():
    dense = model()
    before = copy.deepcopy(dense.state_dict())
    first = mask_matrices(dense, {HH: torch.arange(256).view(32, 8) % 2 == 0})
    second = mask_matrices(first, {HH: torch.arange(256).view(32, 8) % 3 == 0})
    assert int(held_masks(second)[HH].sum()) == len(range(0, 256, 6))
    assert int(held_masks(first)[HH].sum()) == 128
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


@pytest.mark.parametrize("make", [lambda w: FakeQuantize(bits=4), lambda w: FakeQuantize(bits=3, axis=None)])
def test_stored_equals_simulated_bit_for_bit(make, tmp_path):
    simulated = simulate_matrices(mask_matrices(model(), {HH: randn(32, 8) > 0}), {HH: make, "embedding.weight": make, "head.weight": make})
    stored = store_matrices(simulated)
    assert isinstance(stored.lstm, CodedLSTM) and isinstance(stored.lstm.coded_hh_l0, UniformCode)
    assert isinstance(stored.lstm.coded_ih_l0, DenseCode)
    tokens = split().tokens[None]
    assert torch.equal(stored(tokens), simulated(tokens))
    save(stored, tmp_path / "lstm.safetensors", entropy=True)
    assert torch.equal(load(tmp_path / "lstm.safetensors")(tokens), stored(tokens))
    plain = decompress(stored)
    assert all(torch.equal(named_matrices(plain)[name], named_matrices(simulated)[name]) for name in named_matrices(plain))


@pytest.mark.parametrize("call, message", [
    (lambda: mask_matrices(model(), {"lstm.weight": torch.ones(1)}), "there is no matrix 'lstm.weight'; the matrices are embedding.weight"),
    (lambda: mask_matrices(model(), {HH: torch.ones(2, 2)}), r"shape \(32, 8\), got \(2, 2\) in layer 'lstm.weight_hh_l0'"),
    (lambda: store_matrices(model()), "no matrix of this model is simulated"),
    (lambda: simulate_matrices(ternary_gates(model()), {HH: lambda w: FakeQuantize()}), "simulated already in layer 'lstm.weight_hh_l0'"),
    (lambda: grow_masks_(model(), 1.5), "sparsity must be in"),
    (lambda: grow_masks_(model(), 0.5, blocks=5), "blocks must divide the rows, got 5 blocks and 32 rows in layer 'lstm.weight_ih_l0'"),
    (lambda: grow_masks_(model(), 0.5, only=["x"]), "there is no matrix 'x'"),
    (lambda: grow_masks_(model(), 0.5, only="head.weight"), "collection of layer names"),
    (lambda: prune_lstm(model(), split(), 0.5, epochs=0), "epochs must be"),
    (lambda: prune_lstm(model(), split(), 0.5, epochs=1, settle=1.0), r"settle must be in \(0, 1\)"),
    (lambda: prune_lstm(model(), split(), 50, epochs=1), "did you mean 0.5"),
    (lambda: ternary_gates(nn.Linear(2, 2)), "has no LSTM"),
    (lambda: ternary_gates(model(), rule="best"), "rule must be one of"),
    (lambda: share_lstm(model(), bits=9), "bits must be"),
    (lambda: share_lstm(round_lstm(model())), "coded already"),
    (lambda: round_lstm(model(), bits=1), "bits must be"),
    (lambda: train_rounded(round_lstm(model()), split(), epochs=1), "coded already"),
    (lambda: train_rounded(model(), split(), bits=9, epochs=1), "bits must be"),
    (lambda: compress_lstm(model(), split(), sparsity=2.0), "sparsity must be in"),
])  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_make_must_return_a_simulated():
    with pytest.raises(TypeError, match="must return a Simulated, got Identity in layer 'lstm.weight_hh_l0'"):
        simulate_matrices(model(), {HH: lambda weight: nn.Identity()})


@pytest.mark.parametrize("blocks", [1, 4])
def test_growing_masks_reach_the_sparsity_exactly_and_are_nested(blocks):
    network, before = mask_copy(model(), blocks), None
    for sparsity in (0.0, 0.3, 0.6, 0.9):
        grow_masks_(network, sparsity, blocks)
        masks = held_masks(network)
        assert list(masks) == prunable(network) == [IH, HH, "head.weight"]
        for name, mask in masks.items():
            shares = blocks if name in recurrent_matrices(network) else 1
            size = mask.numel() // shares
            assert all(int((~mask[k::shares]).sum()) == round(sparsity * size) for k in range(shares))
            assert before is None or not (mask & ~before[name]).any()
        before = masks


def test_a_zero_that_is_kept_does_not_cost_another_weight():
    network = model()
    with torch.no_grad():
        network.lstm.weight_hh_l0[0, :4] = 0.0
    network = mask_matrices(network, {HH: torch.arange(256).view(32, 8) >= 128})  # the zeros are masked, with 124 others
    grow_masks_(network, 0.5, only=[HH])
    assert int(held_masks(network)[HH].sum()) == 128


@pytest.mark.parametrize("batch_size, epochs", [(2, 2), (100, 1)])
def test_prune_lstm_reaches_the_sparsity_and_learns(batch_size, epochs):
    dense = model()
    before = copy.deepcopy(dense.state_dict())
    pruned = prune_lstm(dense, split(), 0.75, epochs=epochs, blocks=4, only=recurrent_matrices(dense), every=1, lr=0.02,
                        batch_size=batch_size, progress=False)  # fmt: skip
    for name in (IH, HH):
        left = named_matrices(pruned)[name] != 0
        assert all(int(left[k::4].sum()) == round(0.25 * left.numel() / 4) for k in range(4))
    assert "head.weight" not in held_masks(pruned)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert not torch.equal(pruned.head.weight, dense.head.weight)


def test_ternary_gates_have_three_values_a_row_and_are_stored_in_two_bits():
    trained = train_ternary(model(), split(), epochs=1, lr=0.02, batch_size=3, progress=False)
    for name in (IH, HH):
        rows = named_matrices(trained)[name]
        assert (rows == 0).any() and all(len(row[row != 0].abs().unique()) <= 1 for row in rows)
    assert not torch.equal(trained.lstm.parametrizations.weight_hh_l0.original, model().lstm.weight_hh_l0)
    stored = store_matrices(trained)
    assert stored.lstm.coded_hh_l0.bits == stored.lstm.coded_ih_l0.bits == 2
    tokens = split().tokens[None]
    assert torch.equal(stored(tokens), trained(tokens))


def test_compress_lstm_stores_what_it_should(tmp_path):
    dense = model()
    coded = compress_lstm(dense, split(), sparsity=0.5, bits=3, blocks=4, prune_epochs=1, tune_epochs=1, progress=False)
    for code in (coded.lstm.coded_hh_l0, coded.lstm.coded_ih_l0, coded.head.coded, coded.embedding.coded):
        assert isinstance(code, GapSparseCode) and len(code.values.codebook) <= 8
    weight = coded.lstm.weight_hh_l0
    assert all(int((weight[k::4] != 0).sum()) == 32 for k in range(4))
    save(coded, tmp_path / "lstm.safetensors", entropy=True)
    tokens = split().tokens[None]
    assert torch.equal(load(tmp_path / "lstm.safetensors")(tokens), coded(tokens))
    untouched = compress_lstm(dense, split(), sparsity=0.0, bits=8, tune_epochs=0, progress=False)
    assert torch.allclose(untouched.lstm.weight_hh_l0, dense.lstm.weight_hh_l0, atol=0.02)


def test_training_through_the_rounding_stores_what_was_trained():
    coded = train_rounded(model(), split(), 3, epochs=1, progress=False)
    assert {coded.lstm.coded_hh_l0.bits, coded.head.coded.bits, coded.embedding.coded.bits} == {3}
    still = train_rounded(model(), split(), 4, epochs=0, progress=False)
    tokens = split().tokens[None]
    assert torch.equal(still(tokens), round_lstm(model(), 4)(tokens)) and not torch.equal(coded(tokens), round_lstm(model(), 3)(tokens))


def test_rounding_an_lstm_moves_no_weight_by_more_than_half_a_step():
    dense = model()
    coded = round_lstm(dense, 4)
    for name, matrix in named_matrices(dense).items():
        decoded = named_matrices(decompress(coded))[name]
        step = matrix.abs().amax(1, keepdim=True) / 7
        assert ((decoded - matrix).abs() <= step / 2 + 1e-6).all()
