"""Sharing across layers: the same objects, gradients summed over the uses, one copy in the file, every error."""

import copy

import contract_models
import pytest
import torch
from torch import nn

from compresslab.core import load, save, storage_bits
from compresslab.core.macs import count_macs
from compresslab.core.modules import apply_mask_
from compresslab.sharing.cross_layer import (
    CyclicStack,
    FactorizedEmbedding,
    share_layers,
    tie_embedding,
    unique_parameters,
    virtual_parameters,
)
from compresslab.sharing.product import LookupLinear


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def block(width=6):
    return nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU())


def net(blocks=3):
    torch.manual_seed(0)
    return nn.Sequential(*(block() for _ in range(blocks)), nn.Linear(6, 3))


class TestShareLayers:
    def test_same_object_and_the_input_is_not_changed(self):
        model = net()
        before = copy.deepcopy(model.state_dict())
        shared = share_layers(model, {"1": "0", "2": "0"})
        assert shared[0] is shared[1] is shared[2] and shared[0] is not model[0]
        assert model[0] is not model[1] and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        x = randn(4, 6)
        torch.testing.assert_close(shared(x), model[3](model[0](model[0](model[0](x)))))

    def test_gradient_is_the_sum_over_unrolled_copies(self):
        shared = share_layers(net(), {"1": "0", "2": "0"})
        unrolled = nn.Sequential(*(copy.deepcopy(shared[i]) for i in range(4)))
        x = randn(8, 6)
        for model in (shared, unrolled):
            model(x).square().sum().backward()
        for name, parameter in shared[0].named_parameters():
            total = sum(unrolled[i].get_parameter(name).grad for i in range(3))
            torch.testing.assert_close(parameter.grad, total)

    def test_stored_once_restored_shared_and_the_macs_stay(self, tmp_path):
        model = net()
        shared = share_layers(model, {"1": "0", "2": "0"})
        assert unique_parameters(shared) == 6 * 6 + 6 + 12 + 21 and virtual_parameters(shared) == unique_parameters(model)
        assert storage_bits(shared) == 32 * unique_parameters(shared)
        assert count_macs(shared, (6,)).total == count_macs(model, (6,)).total
        save(shared, tmp_path / "net")
        loaded, x = load(tmp_path / "net", model), randn(4, 6)
        assert loaded[0] is loaded[1] is loaded[2] and torch.equal(loaded(x), shared(x))

    def test_single_layers_inside_blocks(self):
        shared = share_layers(net(), {"2.0": "0.0"})
        assert shared[2][0] is shared[0][0] and shared[2] is not shared[0] and shared[2][1] is not shared[0][1]

    @pytest.mark.parametrize(
        "sharing, message",
        [
            ({"9": "0"}, "the model has no layer '9'; it has 0, 0.0"),
            ({"1": "7.1"}, "the model has no layer '7.1'"),
            ({"": "0"}, "the model has no layer ''"),
            ({"1": "0", "2": "1"}, "'1' is replaced itself by '0'; name that one in layer '2'"),
            ({"1": "1"}, "'1' is replaced itself"),
            ({"1.0": "1"}, "one of the two is part of the other in layer '1.0'"),
            ({"1": "1.0"}, "one of the two is part of the other in layer '1'"),
            ({"3": "0.0"}, "it cannot be '0.0': .*in layer '3'"),
            ({"1": "0.0"}, "it cannot be '0.0'.*in layer '1'"),
        ],
    )
    def test_errors(self, sharing, message):
        with pytest.raises(ValueError, match=message):
            share_layers(net(), sharing)

    def test_equal_shapes_are_not_enough(self):
        model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3))
        with pytest.raises(ValueError, match="'padding': 1.* in layer '1'"):
            share_layers(model, {"1": "0"})
        with pytest.raises(ValueError, match="its part '2'"):
            share_layers(nn.Sequential(block(), nn.Sequential(*block()[:2], nn.ReLU())), {"1": "0"})

    def linears(self):
        return nn.Sequential(nn.Sequential(nn.Linear(6, 6)), nn.Sequential(nn.Linear(6, 6)), nn.Linear(6, 6))

    @pytest.mark.parametrize(
        "sharing, message",
        [
            ({"0": "1", "2": "0.0"}, "'0.0' goes with '0', which is replaced by '1' in layer '2'"),
            ({"0": "1", "0.0": "2"}, "'0.0' goes with '0', which is replaced by '1' in layer '0.0'"),
            ({"0.0": "2", "0": "1"}, "'0.0' goes with '0', which is replaced by '1' in layer '0.0'"),
        ],
    )
    def test_what_is_replaced_with_its_parent(self, sharing, message):
        with pytest.raises(ValueError, match=message):
            share_layers(self.linears(), sharing)

    def test_a_layer_is_replaced_under_all_its_names(self):
        twin, other = nn.Linear(6, 6), nn.Linear(6, 6)
        shared = share_layers(nn.Sequential(twin, other, twin), {"0": "1"})
        assert shared[0] is shared[1] is shared[2]
        again = share_layers(nn.Sequential(twin, other, twin), {"0": "1", "2": "1"})
        assert again[0] is again[1] is again[2]
        assert share_layers(shared, {"0": "1"})[0] is not None  # one already: nothing to do
        with pytest.raises(ValueError, match="'2' goes with '0'"):
            share_layers(nn.Sequential(twin, other, twin, nn.Linear(6, 6)), {"0": "1", "2": "3"})
        with pytest.raises(ValueError, match="'2' goes with '0', which is replaced by '1' in layer '3'"):
            share_layers(nn.Sequential(twin, other, twin, nn.Linear(6, 6)), {"0": "1", "3": "2"})

    def test_part_of_a_source_may_be_replaced(self):
        shared = share_layers(self.linears(), {"0": "1", "1.0": "2"})
        assert shared[0] is shared[1] and shared[1][0] is shared[2]

    def test_arguments_of_layers_outside_the_list(self):
        transformer = [nn.TransformerEncoderLayer(8, 2, 16, activation=name) for name in ("gelu", "relu", "gelu")]
        with pytest.raises(ValueError, match="gelu.* is not .*relu.* in layer '1'"):
            share_layers(nn.Sequential(*transformer), {"1": "0"})
        assert share_layers(nn.Sequential(*transformer), {"2": "0"})[2] is not None
        with pytest.raises(ValueError, match="'negative_slope': 0.1.* is not .*0.5.* in layer '1'"):
            share_layers(nn.Sequential(nn.LeakyReLU(0.1), nn.LeakyReLU(0.5)), {"1": "0"})


class TestCyclicStack:
    @pytest.mark.parametrize("order, turns", [("cycle", [0, 1, 0, 1, 0, 1]), ("sequence", [0, 0, 0, 1, 1, 1])])
    def test_blocks_in_turn(self, order, turns):
        stack, x = CyclicStack([block(), block()], 6, order), randn(3, 6)
        y = x
        for turn in turns:
            y = stack.blocks[turn](y)
        assert torch.equal(stack(x), y) and torch.equal(stack.unroll()(x), y)
        assert [stack.block_at(i) is stack.blocks[turn] for i, turn in enumerate(turns)] == [True] * 6
        assert stack.unroll()[5] is stack.blocks[turns[5]]

    def test_unique_virtual_and_macs(self):
        for blocks in (1, 2, 3, 6):
            stack = CyclicStack([block() for _ in range(blocks)], 6)
            assert unique_parameters(stack) == blocks * 54 and virtual_parameters(stack) == 6 * 54
            assert virtual_parameters(stack.unroll()) == 6 * 54
            assert count_macs(stack, (6,)).total == 6 * 36

    def test_gradient_is_the_sum_over_unrolled_copies(self):
        stack, x = CyclicStack([block()], 4), randn(5, 6)
        copies = nn.Sequential(*(copy.deepcopy(stack.blocks[0]) for _ in range(4)))
        stack(x).square().sum().backward()
        copies(x).square().sum().backward()
        for name, parameter in stack.blocks[0].named_parameters():
            torch.testing.assert_close(parameter.grad, sum(c.get_parameter(name).grad for c in copies))

    def test_comes_back_from_a_file(self, tmp_path):
        make = lambda: nn.Sequential(CyclicStack([block(), block()], 4), nn.Linear(6, 2))  # noqa: E731
        model, x = make(), randn(3, 6)
        size = save(model, tmp_path / "net")
        assert torch.equal(load(tmp_path / "net", make())(x), model(x)) and size < 4 * 122 + 1500
        row = nn.Sequential(*model[0].unroll(), model[1])
        save(row, tmp_path / "row")
        loaded = load(tmp_path / "row", nn.Sequential(*(block() for _ in range(4)), nn.Linear(6, 2)))
        assert loaded[2] is loaded[0] and torch.equal(loaded(x), model(x))

    def test_errors(self):
        with pytest.raises(ValueError, match="blocks must hold at least one module"):
            CyclicStack([], 2)
        with pytest.raises(ValueError, match="the 2 blocks must divide the depth, got depth 5"):
            CyclicStack([block(), block()], 5)
        with pytest.raises(ValueError, match="depth must be a whole number of at least 1"):
            CyclicStack([block()], 0)
        with pytest.raises(ValueError, match="order must be one of"):
            CyclicStack([block()], 2, "random")
        with pytest.raises(ValueError, match="position must be a whole number from 0 to 1"):
            CyclicStack([block()], 2).block_at(2)


class TestEmbeddings:
    def language_model(self, bias=True):
        torch.manual_seed(1)
        return nn.Sequential(nn.Embedding(20, 6), block(), nn.Linear(6, 20, bias=bias))

    def test_tied_table_is_one_tensor_stored_once(self, tmp_path):
        model, tokens = self.language_model(), torch.arange(8)
        tied = tie_embedding(model, "0", "2")
        assert tied[2].weight is tied[0].weight and model[2].weight is not model[0].weight
        assert unique_parameters(tied) == unique_parameters(model) - 120
        assert virtual_parameters(tied) == unique_parameters(model)
        save(tied, tmp_path / "net")
        loaded = load(tmp_path / "net", model)
        assert loaded[2].weight is loaded[0].weight and torch.equal(loaded(tokens), tied(tokens))

    def test_gradient_of_the_tied_table_is_the_sum_of_both_uses(self):
        tied, tokens = tie_embedding(self.language_model(), "0", "2"), torch.arange(8)
        apart = copy.deepcopy(tied)
        apart[2].weight = nn.Parameter(tied[2].weight.detach().clone())
        for model in (tied, apart):
            nn.functional.cross_entropy(model(tokens), tokens).backward()
        torch.testing.assert_close(tied[0].weight.grad, apart[0].weight.grad + apart[2].weight.grad)

    def test_tie_errors(self):
        model = self.language_model()
        with pytest.raises(ValueError, match="the model has no layer 'x'"):
            tie_embedding(model, "0", "x")
        with pytest.raises(TypeError, match="must be Embedding, got Linear in layer '2'"):
            tie_embedding(model, "2", "2")
        with pytest.raises(TypeError, match="must be Linear, got LayerNorm in layer '1.1'"):
            tie_embedding(model, "0", "1.1")
        with pytest.raises(ValueError, match=r"must have the table's shape \(20, 6\), got \(6, 6\) in layer '1.0'"):
            tie_embedding(model, "0", "1.0")
        for name in ("0", "2"):
            masked = self.language_model()
            apply_mask_(masked.get_submodule(name), torch.ones(20, 6, dtype=torch.bool))
            with pytest.raises(ValueError, match=f"cannot be tied; bake it in layer '{name}'"):
                tie_embedding(masked, "0", "2")

    def test_a_frozen_table_stays_frozen(self):
        small = FactorizedEmbedding.from_dense(nn.Embedding(9, 4).requires_grad_(False), 2)
        assert not any(parameter.requires_grad for parameter in small.parameters())
        assert all(p.requires_grad for p in FactorizedEmbedding.from_dense(nn.Embedding(9, 4), 2).parameters())

    @pytest.mark.parametrize("rank", [1, 3, 6])
    def test_factorized_is_the_nearest_table_of_its_rank(self, rank):
        layer = nn.Embedding(20, 6, padding_idx=2)
        small = FactorizedEmbedding.from_dense(layer, rank)
        table = small(torch.arange(20))
        tail = torch.linalg.svdvals(layer.weight.double())[rank:].square().sum().sqrt()
        assert (table - layer.weight).norm().item() == pytest.approx(tail.item(), rel=1e-4, abs=1e-5)
        assert unique_parameters(small) == 20 * rank + rank * 6
        assert not table[2].any() and small.embedding.padding_idx == 2
        tokens = torch.tensor([[1, 2], [3, 2]])
        torch.testing.assert_close(small(tokens), table[tokens])

    def test_factorized_comes_back_from_a_file(self, tmp_path):
        model, tokens = self.language_model(), torch.arange(8)
        small = nn.Sequential(FactorizedEmbedding.from_dense(model[0], 2), *model[1:])
        save(small, tmp_path / "net")
        loaded = load(tmp_path / "net", model)
        assert isinstance(loaded[0], FactorizedEmbedding) and torch.equal(loaded(tokens), small(tokens))

    def test_break_even(self):
        """E (V + H) < V H: smaller up to there, and not beyond."""
        sizes = [unique_parameters(FactorizedEmbedding(40, width, 10)) for width in range(1, 11)]
        assert [size < 400 for size in sizes] == [width < 400 / 50 for width in range(1, 11)]

    def test_factorized_errors(self):
        for sizes, name in (((0, 1, 4), "vocabulary"), ((9, 1, 0), "hidden"), ((9, 0, 4), "embedding_dim")):
            with pytest.raises(ValueError, match=f"{name} must be a whole number"):
                FactorizedEmbedding(*sizes)
        with pytest.raises(ValueError, match="embedding_dim must be a whole number from 1 to 4, got 5"):
            FactorizedEmbedding(9, 5, 4)
        with pytest.raises(ValueError, match="embedding_dim must be a whole number from 1 to 4, got 5"):
            FactorizedEmbedding.from_dense(nn.Embedding(9, 4), 5)
        with pytest.raises(TypeError, match="layer must be an nn.Embedding, got Linear"):
            FactorizedEmbedding.from_dense(nn.Linear(9, 4), 2)
        with pytest.raises(ValueError, match=r"must have weights of shapes \(9, 2\) and \(4, 2\), got \(9, 3\)"):
            FactorizedEmbedding(9, 2, 4, embedding=nn.Embedding(9, 3))


class TestCounting:
    def test_unique_counts_storages(self):
        base = torch.randn(30)
        model = nn.Module()
        model.first, model.second = nn.Parameter(base[:10]), nn.Parameter(base[10:30])  # views of one storage
        assert unique_parameters(model) == 30 and virtual_parameters(model) == 30
        model.third = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        assert unique_parameters(model) == 34
        model.empty = nn.Parameter(torch.zeros(0))
        assert unique_parameters(model) == 34

    @pytest.mark.parametrize("name", contract_models.MODELS)
    def test_on_the_contract_networks(self, name):
        model, _ = contract_models.build(name)
        unique, virtual = unique_parameters(model), virtual_parameters(model)
        assert unique == sum(parameter.numel() for parameter in model.parameters())
        assert virtual - unique == {"tied": 11 * 6, "shared": 30}.get(name, 0)

    def test_without_memory(self):
        layer, other = nn.Linear(5, 5, device="meta"), nn.Linear(5, 5, device="meta")
        assert unique_parameters(nn.Sequential(layer, layer, other)) == 60

    def test_a_copy_shares_nothing(self):
        layer = nn.Linear(5, 5)
        assert unique_parameters(nn.Sequential(layer, layer)) == 30
        assert unique_parameters(nn.Sequential(layer, copy.deepcopy(layer))) == 60

    def test_layers_that_know_their_dense_form(self):
        layer = LookupLinear.from_dense(nn.Linear(12, 10), 3, 4)
        assert (unique_parameters(layer), virtual_parameters(layer)) == (4 * 12 + 10, 12 * 10 + 10)
