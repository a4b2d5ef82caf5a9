"""Ranks by energy and under a budget: against enumeration, budgets kept, layers left alone, every error."""

import itertools
import random

import pytest
import torch
from torch import nn

from compresslab.core.macs import count_macs
from compresslab.core.modules import apply_mask_
from compresslab.lowrank.convolution import kernel_matrix
from compresslab.lowrank.decompose import decompose
from compresslab.lowrank.ranks import Choice, choose_ranks, energy_rank, layer_choices, ranks_for_budget
from compresslab.lowrank.svd import truncation_error
from compresslab.lowrank.tucker import hosvd

METHOD = {"channel": "svd", "input": "input", "spatial": "spatial", "tucker": "tucker"}


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        conv = nn.Conv2d(12, 16, (3, 5), 2, padding=(1, 2), bias=False)
        self.second = nn.Sequential(nn.BatchNorm2d(12), nn.ReLU(), conv)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 10)
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data.normal_(generator=generator)
        for weight in (self.second[2].weight, self.head.weight):  # spectra that fall
            weight.data *= torch.linspace(1.5, 0.01, len(weight)).view(-1, *[1] * (weight.ndim - 1)) ** 3

    def forward(self, x):
        return self.head(self.depthwise(self.second(self.first(x))).mean((2, 3)))


def parameters(model):
    return sum(p.numel() for p in model.parameters())


class TestEnergyRank:
    def test_by_the_definition(self):
        sigma = torch.linalg.svdvals(randn(8, 12).double())
        total = sigma.square().sum()
        for energy in (0.0, 0.1, 0.5, 0.9, 0.99, 1.0):
            k = energy_rank(sigma, energy)
            assert 1 - truncation_error(sigma, k) ** 2 / total >= energy - 1e-12
            assert k == 1 or 1 - truncation_error(sigma, k - 1) ** 2 / total < energy

    def test_edges(self):
        assert energy_rank(torch.tensor([3.0, 4.0, 0.0]).sort(descending=True).values, 1.0) == 2
        assert energy_rank(torch.tensor([4.0, 3.0]), 16 / 25) == 1  # exactly enough
        assert energy_rank(torch.zeros(3), 0.9) == 1

    def test_errors(self):
        with pytest.raises(ValueError, match=r"energy must be in \[0, 1\], got 90; did you mean 0.9"):
            energy_rank(torch.ones(3), 90)
        with pytest.raises(ValueError, match=r"\(r,\), r >= 1, got shape \(0,\)"):
            energy_rank(torch.ones(0), 0.9)


class TestChooseRanks:
    @pytest.mark.parametrize("seed", range(8))
    def test_equals_enumeration(self, seed):
        rng = random.Random(seed)
        choices = {}
        for name in "abcd":
            cost = rng.randint(30, 90)
            errors = sorted(rng.random() for _ in range(4))
            costs = sorted(rng.sample(range(1, cost), 4), reverse=True)
            options = [Choice(k, *pair) for k, pair in enumerate(zip(costs, errors, strict=True))]
            choices[name] = [Choice(None, cost, 0.0), *options]
        costs = [sum(option.cost for option in pick) for pick in itertools.product(*choices.values())]
        for budget in [min(costs), *rng.sample(costs, 10), max(costs)]:
            allowed = [
                pick for pick in itertools.product(*choices.values()) if sum(o.cost for o in pick) <= budget
            ]
            least = min(sum(option.error for option in pick) for pick in allowed)
            ranks = choose_ranks(choices, budget)
            chosen = [next(o for o in row if o.rank == ranks.get(name)) for name, row in choices.items()]
            assert sum(o.cost for o in chosen) <= budget
            assert sum(o.error for o in chosen) == pytest.approx(least, abs=1e-12)

    def test_large_coprime_costs_keep_the_budget(self):
        """Savings are rounded there: never to the wrong side, and hardly away from the best."""
        rng = random.Random(0)
        choices = {}
        for name in "abc":
            costs = sorted(rng.sample(range(10**8, 10**9), 25), reverse=True)
            choices[name] = [Choice(k or None, cost, (k / 25) ** 2) for k, cost in enumerate(costs)]
        for share in (0.3, 0.6, 0.99):
            budget = share * sum(row[0].cost for row in choices.values())
            ranks = choose_ranks(choices, budget)
            chosen = [next(o for o in row if o.rank == ranks.get(name)) for name, row in choices.items()]
            assert sum(o.cost for o in chosen) <= budget
            picks = itertools.product(*choices.values())
            allowed = (pick for pick in picks if sum(o.cost for o in pick) <= budget * 0.999)
            assert sum(o.error for o in chosen) <= min(sum(o.error for o in pick) for pick in allowed)

    def test_the_least_budget_is_enough_and_one_less_is_not(self):
        choices = {
            name: [Choice(None, 10**9 + i, 0.0), Choice(1, 10**6 + 7 * i, 0.5)]
            for i, name in enumerate("abc")
        }
        least = sum(row[1].cost for row in choices.values())
        assert choose_ranks(choices, least) == {"a": 1, "b": 1, "c": 1}
        with pytest.raises(ValueError, match=f"no choice fits .* the cheapest cost {least}"):
            choose_ranks(choices, least - 1)

    def test_nothing_to_do(self):
        assert choose_ranks({}, 0) == {}
        assert choose_ranks({"a": [Choice(None, 10, 0.0), Choice(1, 4, 0.0)]}, 10) == {}


class TestLayerChoices:
    @pytest.mark.parametrize("scheme", ["channel", "input", "spatial"])
    def test_errors_and_costs_of_pairs(self, scheme):
        conv = nn.Conv2d(6, 8, 3)
        dense, *rest = layer_choices(conv, scheme)
        assert dense == Choice(None, conv.weight.numel(), 0.0)
        sigma = torch.linalg.svdvals(kernel_matrix(conv.weight.detach().double(), scheme))
        for option in rest:
            tail = truncation_error(sigma, option.rank) / sigma.norm().item()
            assert option.error == pytest.approx(tail**2, rel=1e-9) and option.cost < dense.cost
        assert [option.rank for option in rest] == list(range(1, len(rest) + 1))

    def test_tucker_errors_are_those_of_the_hosvd_and_none_is_dominated(self):
        conv = nn.Conv2d(5, 6, 3)
        _, *rest = layer_choices(conv, "tucker")
        for option in rest:
            error = (hosvd(conv.weight, option.rank).to_tensor() - conv.weight).norm() / conv.weight.norm()
            assert option.error == pytest.approx(error.item() ** 2, rel=1e-5)
        for a, b in itertools.pairwise(rest):
            assert a.cost < b.cost and a.error > b.error
        for o, i in itertools.product(range(1, 7), range(1, 6)):  # every pair is in it, or beaten by one
            cost = i * 5 + i * o * 9 + o * 6
            error = (hosvd(conv.weight, (o, i)).to_tensor() - conv.weight).norm() / conv.weight.norm()
            assert cost >= 270 or any(r.cost <= cost and r.error <= error.item() ** 2 + 1e-6 for r in rest)

    def test_with_moments_the_error_is_that_of_the_responses(self):
        layer = nn.Linear(6, 12).double()
        X = randn(6, 50).double() * torch.tensor([9.0, 3, 1, 1, 0.1, 0.01]).double()[:, None]
        sigma = torch.linalg.svdvals(layer.weight.detach() @ X)
        for option in layer_choices(layer, moments=X @ X.T)[1:]:
            tail = truncation_error(sigma, option.rank) ** 2 / sigma.square().sum().item()
            assert option.error == pytest.approx(tail, rel=1e-6, abs=1e-12)

    def test_a_layer_of_zeros(self):
        layer = nn.Linear(8, 8)
        layer.weight.data.zero_()
        assert all(option.error == 0 for option in layer_choices(layer))


class TestRanksForBudget:
    @pytest.mark.parametrize("scheme", METHOD)
    @pytest.mark.parametrize("unit", ["macs", "parameters"])
    def test_the_decomposed_network_keeps_the_budget(self, scheme, unit):
        model = Net()
        cost = parameters if unit == "parameters" else lambda m: count_macs(m, (3, 16, 12)).total
        for fraction in (0.7, 0.9):
            for multiple_of in (1, 4):
                options = dict(unit=unit, scheme=scheme, multiple_of=multiple_of)
                ranks = ranks_for_budget(model, (3, 16, 12), fraction, **options)
                small = decompose(model, ranks, method=METHOD[scheme])
                assert cost(small) <= fraction * cost(model)
                if multiple_of == 1:  # and use most of it
                    assert cost(small) > (fraction - 0.1) * cost(model)
                small(randn(2, 3, 16, 12))
                if scheme != "tucker":
                    assert all(rank % multiple_of == 0 for rank in ranks.values())

    def test_multiple_of_may_be_all_channels_for_tucker(self):
        ranks = ranks_for_budget(Net(), (3, 16, 12), 0.7, scheme="tucker", multiple_of=8, skip=["head"])
        assert ranks and all(o in (8, 12, 16) and i in (3, 8, 12) for o, i in ranks.values())

    def test_the_whole_costs_nothing(self):
        assert ranks_for_budget(Net(), (3, 16, 12), 1.0) == {}

    def test_an_example_batch_counts_like_a_shape(self):
        by_shape = ranks_for_budget(Net(), (3, 16, 12), 0.6)
        assert ranks_for_budget(Net(), randn(5, 3, 16, 12), 0.6) == by_shape != {}

    def test_skipped_and_grouped_layers_stay(self):
        ranks = ranks_for_budget(Net(), (3, 16, 12), 0.8, skip=["first", "head"])
        assert list(ranks) == ["second.2"]

    def test_model_is_not_modified_and_masks_are_seen(self):
        model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
        mask = torch.zeros(20, 20, dtype=torch.bool)
        mask[:5] = True
        apply_mask_(model[1], mask)  # of rank 5 now
        before = {name: value.clone() for name, value in model.state_dict().items()}
        assert ranks_for_budget(model, (20,), 0.75)["1"] == 5
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert not any(module._forward_pre_hooks for module in model.modules())

    def test_a_shared_layer_is_counted_as_often_as_it_is_called(self):
        shared = nn.Linear(16, 16, bias=False)
        model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(16, 16, bias=False))
        ranks = ranks_for_budget(model, (16,), 0.6)
        assert set(ranks) <= {"0", "3"} and "0" in ranks
        assert count_macs(decompose(model, ranks), (16,)).total <= 0.6 * 3 * 256
        ranks = ranks_for_budget(model, (16,), 0.6, unit="parameters")
        assert parameters(decompose(model, ranks)) <= 0.6 * 2 * 256

    def test_tied_weights_and_attention_are_left_alone(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding, self.output = nn.Embedding(30, 16), nn.Linear(16, 30, bias=False)
                self.output.weight = self.embedding.weight
                self.middle = nn.Linear(16, 16)
                self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

            def forward(self, x):
                x = self.middle(self.embedding(x))
                return self.output(self.attention(x, x, x)[0])

        assert set(ranks_for_budget(Tied(), torch.zeros(1, 4, dtype=torch.int64), 0.97)) == {"middle"}

    def test_moments_move_ranks_to_where_the_data_are(self):
        model = nn.Sequential(nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False))
        nn.init.eye_(model[0].weight)
        model[1].weight.data.copy_(torch.diag(torch.linspace(1, 0, 12) ** 2))
        two = torch.diag(torch.tensor([1.0, 1.0] + [1e-6] * 10))  # all that the first layer sees
        assert ranks_for_budget(model, (12,), 0.6, moments={"0": two, "1": torch.eye(12)}) == {"0": 2, "1": 5}
        assert "0" not in ranks_for_budget(model, (12,), 0.6)  # to its weights all directions are equal

    def test_errors(self):
        model = Net()
        for options, message in [
            (dict(fraction=60), r"fraction must be in \[0, 1\], got 60; did you mean 0.6"),
            (dict(fraction=0.5, multiple_of=0), "multiple_of must be a whole number of at least 1, got 0"),
            (dict(fraction=0.5, unit="bytes"), "unit must be one of macs, parameters, got 'bytes'"),
            (dict(fraction=0.5, scheme="pixel"), "'pixel' makes no pair"),
            (dict(fraction=0.5, scheme="cp"), "scheme must be one of"),
            (dict(fraction=0.5, scheme="spatial", moments={}), "moments are of .* got 'spatial'"),
            (dict(fraction=0.5, moments={}), "moments has nothing for layer 'first'"),
            (dict(fraction=0.5, skip=["third"]), "skip names no such layer: 'third'"),
            (dict(fraction=0.0), r"fraction 0 of the macs is out of reach: .* ranks leave 0\.\d+"),
        ]:
            with pytest.raises(ValueError, match=message):
                ranks_for_budget(model, (3, 16, 12), **options)


@pytest.mark.parametrize("bad", [torch.eye(3), torch.ones(12), torch.full((12, 12), torch.nan)])
def test_wrong_moments_are_refused_with_the_layers_name(bad):
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
    with pytest.raises(ValueError, match="moments must .* in layer '1'"):
        ranks_for_budget(model, (12,), 0.6, moments={"0": torch.eye(12), "1": bad})
