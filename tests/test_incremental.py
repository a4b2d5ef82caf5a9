"""Incremental quantization: levels and rounding by enumeration, weights that stay frozen, shifts for products."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core.modules import apply_mask_
from compresslab.core.prepare import convert, prepare
from compresslab.core.train import train
from compresslab.data import Split
from compresslab.quantization.incremental import (
    IncrementalQuantization,
    PowersOfTwo,
    nearest_level,
    power_levels,
    shift_matmul,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def data(n=96):
    pictures = torch.randint(0, 256, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Split(pictures, (pictures[:, 0, 1, 1] > 127).long(), mean=(0.5,), std=(0.3,))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))


def simulated(layer):
    return layer.parametrizations.weight[-1]


class TestLevels:
    def test_by_hand(self):
        assert power_levels(1.0, 5).tolist() == sorted([0.0] + [s * 2.0**-k for s in (1, -1) for k in range(8)])
        assert power_levels(0.75, 2).tolist() == [-1, 0, 1]  # 4 s / 3 = 1 exactly
        assert power_levels(math.nextafter(0.75, 0), 2).tolist() == [-0.5, 0, 0.5]
        assert power_levels(1.4999, 2).tolist() == [-1, 0, 1] and power_levels(1.5, 2).tolist() == [-2, 0, 2]
        assert torch.equal(power_levels(0.0, 4), power_levels(1.0, 4))

    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("largest", [1e-20, 0.003, 0.2, 1.0, 777.0, 3e38])
    def test_formula(self, bits, largest):
        levels = power_levels(largest, bits).double()
        n1 = min(math.floor(math.log2(4 * largest / 3)), 127)
        n2 = n1 + 1 - 2 ** (bits - 2)
        assert len(levels) == 2 ** (bits - 1) + 1 and torch.equal(levels, -levels.flip(0))
        assert torch.equal(levels[levels > 0], torch.tensor([2.0**n for n in range(n2, n1 + 1)], dtype=torch.float64))

    @pytest.mark.parametrize("bits", [2, 3, 5, 8])
    def test_nearest_of_all_and_ties_go_outwards(self, bits):
        weight = randn(500) * 2
        levels = power_levels(weight.abs().max().item(), bits)
        distance = (weight.double()[:, None] - levels.double()).abs()
        chosen = distance.gather(1, nearest_level(weight, levels)[:, None])[:, 0]
        assert torch.equal(chosen, distance.min(1).values)
        sizes = levels[levels >= 0]
        ties = (sizes[1:] + sizes[:-1]) / 2
        assert torch.equal(levels[nearest_level(ties, levels)], sizes[1:])
        assert torch.equal(levels[nearest_level(-ties, levels)], -sizes[1:])
        assert levels[nearest_level(torch.tensor([1e9, -1e9]), levels)].tolist() == [levels[-1], levels[0]]

    def test_the_papers_condition(self):
        """beta sgn(w) where (alpha + beta) / 2 <= |w| < 3 beta / 2, else 0."""
        weight = randn(400)
        levels = power_levels(weight.abs().max().item(), 4)
        sizes = levels[levels >= 0].tolist()
        for w in weight.tolist():
            found = [b for a, b in zip(sizes[:-1], sizes[1:], strict=True) if (a + b) / 2 <= abs(w) < 1.5 * b]
            assert len(found) <= 1
            expected = math.copysign(found[0], w) if found else 0.0
            assert levels[nearest_level(torch.tensor(w), levels)] == expected


class TestFreezing:
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
    @pytest.mark.parametrize("weight", [randn(5, 7), torch.ones(5, 7), torch.zeros(5, 7)])
    def test_exactly_the_largest_are_frozen(self, share, weight):
        powers = PowersOfTwo(weight, 4, share)
        frozen = powers.frozen
        assert int(frozen.sum()) == round(share * 35)
        if 0 < share < 1:
            assert weight.abs()[frozen].min() >= weight.abs()[~frozen].max()
        value = powers(weight)
        assert torch.isin(value[frozen], powers.levels).all() and torch.equal(value[~frozen], weight[~frozen])

    def test_a_weight_frozen_once_is_not_chosen_again_nor_moved(self):
        first = randn(40)
        powers = PowersOfTwo(first, 5, 0.5)
        frozen, values = powers.frozen.clone(), powers(first)[powers.frozen]
        later = randn(40, seed=1) * 3
        powers.freeze_(later, 0.75)
        assert int(powers.frozen.sum()) == 30 and (powers.frozen >= frozen).all()
        assert torch.equal(powers(later)[frozen], values)
        powers.freeze_(later, 0.2)  # less than there is: nothing happens
        assert int(powers.frozen.sum()) == 30
        assert powers(later).abs()[powers.frozen].max() <= powers.levels[-1], "levels are those of the start"

    def test_gradient_reaches_free_weights_only(self):
        weight = randn(30).requires_grad_()
        powers = PowersOfTwo(weight, 5, 0.5)
        upstream = randn(30, seed=1)
        powers(weight).backward(upstream)
        assert torch.equal(weight.grad, upstream * ~powers.frozen)

    def test_training_from_half_to_all(self):
        prepared = prepare(network(), partial(PowersOfTwo, bits=4, share=0.0))
        freeze = IncrementalQuantization(every=10)
        seen, shares = {}, []

        def after_step(model, step):
            for layer in (1, 4):
                for index, value in seen.get(layer, []):  # bit-identical, whatever momentum and decay do behind them
                    assert torch.equal(model[layer].weight.detach()[index], value), (step, layer)
            freeze(model, step)
            for layer in (1, 4):
                mask = simulated(model[layer]).frozen.clone()
                seen.setdefault(layer, []).append((mask, model[layer].weight.detach()[mask].clone()))
            shares.append(simulated(model[1]).frozen.float().mean().item())

        history = []
        trained = train(prepared, data(), epochs=12, batch_size=24, lr=0.1, momentum=0.9, weight_decay=0.01,
                        after_step=after_step, progress=False, history=history)  # fmt: skip
        assert shares[::10] == [0.5, 0.75, 0.875, 1.0, 1.0] and shares[9] == 0.5
        assert history[-1]["loss"] < 0.7 * history[0]["loss"]
        for layer in (1, 4):
            assert torch.isin(trained[layer].weight, simulated(trained[layer]).levels).all(), "a float weight is left"
        coded = convert(trained)
        with torch.no_grad():
            assert torch.equal(coded(data().x()), trained(data().x()))
        assert not simulated(prepared[1]).frozen.any()

    def test_masked_weights_stay_zero_and_latent_ones_are_measured_behind_the_mask(self):
        model = network()
        apply_mask_(model[1], model[1].weight.abs() < 0.1)  # the large ones are pruned
        prepared = prepare(model, partial(PowersOfTwo, bits=4, share=0.0))
        IncrementalQuantization(every=1, shares=[0.2])(prepared, 0)
        kept = model[1].weight.detach() != 0
        assert kept[simulated(prepared[1]).frozen].all()
        IncrementalQuantization(every=1, shares=[1.0])(prepared, 0)
        assert not prepared[1].weight[~kept].any()
        assert torch.equal(convert(prepared)[1].weight, prepared[1].weight)

    def test_converting_early_rounds_the_rest(self):
        weight = randn(6, 6)
        powers = PowersOfTwo(weight, 5, 0.5)
        assert torch.equal(powers.to_code(weight).decode(), PowersOfTwo(weight, 5)(weight))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    "weight",
    [
        randn(5, 3, 2, 2), randn(3, 4).abs(), torch.zeros(3, 5), torch.full((2, 3), -0.7), torch.tensor([[0.3]]),
        torch.tensor([[1e-40, 1e-45]]), torch.tensor([3e38]), torch.empty(0, 3),
    ],
)  # fmt: skip
def test_simulated_is_encoded(bits, weight):
    powers = PowersOfTwo(weight, bits)
    code = powers.to_code(weight)
    assert torch.equal(powers(weight), code.decode()) and code.bits == bits
    twin = copy.deepcopy(powers)
    assert torch.equal(twin(weight), powers(weight))


class TestShifts:
    @pytest.mark.parametrize("bits", [2, 3, 5, 6])
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
    def test_a_shift_is_the_product(self, bits, scale):
        weight = randn(7, 9) * scale
        weight = PowersOfTwo(weight, bits)(weight)
        x = torch.randint(-128, 128, (5, 9), generator=torch.Generator().manual_seed(0))
        for dtype in (torch.int8, torch.int32, torch.int64):
            sums, n = shift_matmul(x.to(dtype), weight)
            assert sums.dtype == torch.int64 and sums.shape == (5, 7)
            assert torch.equal(sums.double() * 2.0**n, x.double() @ weight.double().T)

    def test_edges(self):
        x = torch.tensor([[-128, 127]], dtype=torch.int8)
        sums, n = shift_matmul(x, torch.tensor([[0.0, 0.0], [-4.0, 0.0]]))
        assert sums.tolist() == [[0, 128]] and n == 2
        assert shift_matmul(x, torch.zeros(3, 2))[0].tolist() == [[0, 0, 0]]
        assert shift_matmul(torch.empty(0, 2, dtype=torch.int8), torch.ones(3, 2))[0].shape == (0, 3)
        assert shift_matmul(x, torch.empty(0, 2))[0].shape == (1, 0)

    def test_refusals(self):
        x = torch.ones(1, 2, dtype=torch.int32)
        for bad in (0.75, math.inf, math.nan):
            with pytest.raises(ValueError, match="power of two"):
                shift_matmul(x, torch.tensor([[1.0, bad]]))
        with pytest.raises(TypeError, match="whole numbers"):
            shift_matmul(x.float(), torch.ones(1, 2))
        with pytest.raises(ValueError, match="does not fit into 63 bits"):
            shift_matmul(x, torch.tensor([[2.0**40, 2.0**-40]]))


def test_refusals():
    weight = torch.ones(2, 3)
    for bad in (0, 1, 33):
        with pytest.raises(ValueError, match="bits must be"):
            PowersOfTwo(weight, bad)
        with pytest.raises(ValueError, match="bits must be"):
            power_levels(1.0, bad)
    with pytest.raises(TypeError, match="bits must be"):
        PowersOfTwo(weight, 2.5)
    with pytest.raises(ValueError, match="did you mean 0.5"):
        PowersOfTwo(weight, 5, share=50)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="nan or inf"):
            PowersOfTwo(torch.tensor([bad]))
        with pytest.raises(ValueError, match="largest magnitude must be"):
            power_levels(bad, 5)
    with pytest.raises(ValueError, match="largest magnitude must be"):
        power_levels(-1.0, 5)
    with pytest.raises(ValueError, match="every must be"):
        IncrementalQuantization(every=0)
    for shares in ((), (0.5, 0.25)):
        with pytest.raises(ValueError, match="rising fractions"):
            IncrementalQuantization(every=1, shares=shares)
    with pytest.raises(ValueError, match="a share must be in"):
        IncrementalQuantization(every=1, shares=(50, 100))
    with pytest.raises(ValueError, match="prepare it first"):
        IncrementalQuantization(every=1)(nn.Linear(2, 2), 0)


def test_the_least_int8_counts_as_128_when_sums_might_overflow():
    x = torch.tensor([[-128, -128]], dtype=torch.int8)
    with pytest.raises(ValueError, match="63 bits"):
        shift_matmul(x, torch.tensor([[2.0**57, 1.0]]))
    assert shift_matmul(x, torch.tensor([[2.0**54, 1.0]]))[0].tolist() == [[-128 * (2**54 + 1)]]


def test_a_product_of_shapes_that_do_not_match_is_refused():
    with pytest.raises(ValueError, match=r"needs a weight \(O, I\), got \(1, 2\) and \(1, 1\)"):
        shift_matmul(torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 1))


def test_weights_in_another_memory_format():
    weight = randn(4, 3, 3, 3)
    other = weight.to(memory_format=torch.channels_last)
    assert torch.equal(PowersOfTwo(other, 4)(other), PowersOfTwo(weight, 4)(weight))  # and without a warning
