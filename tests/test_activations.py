"""Calibration: what each method sees, and nothing else; and networks whose inputs are rounded."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compresslab.core.prepare import prepare
from compresslab.core.train import train
from compresslab.core.uniform import choose_scale, fake_quantize
from compresslab.data import Split
from compresslab.quantization.activations import QuantizedInput, calibrate, restore_activations, simulate_activations
from compresslab.quantization.fake import FakeQuantize
from compresslab.quantization.ranges import MovingAverage, entropy_range, mse_range, percentile_range


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip


def images(n=8, seed=1):
    return torch.randn(n, 2, 5, 5, generator=torch.Generator().manual_seed(seed))


def inputs_of(model, x):
    """What flows into the layers, by running the stack piece by piece."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return {name: model[: int(name)](x) for name in ("0", "3", "6")}


def same(grid, other):
    return torch.equal(grid.scale, other.scale) and torch.equal(grid.zero_point, other.zero_point) and grid[2:] == other[2:]


def split(n=64):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (n, 2, 5, 5), generator=generator).to(torch.uint8)
    return Split(pictures, (pictures[:, 0, 2, 2] > 127).long(), mean=(0.5, 0.5), std=(0.3, 0.3))


class TestCalibrate:
    @pytest.mark.parametrize("bits, symmetric", [(8, False), (4, False), (8, True), (16, True)])
    def test_min_max_sees_every_number_of_every_batch(self, bits, symmetric):
        model, batches = network(), [images(8), (images(5, seed=2), torch.zeros(5)), images(1, seed=3)]
        grids = calibrate(model, iter(batches), bits=bits, symmetric=symmetric)
        everything = inputs_of(model, torch.cat([images(8), images(5, seed=2), images(1, seed=3)]))
        assert list(grids) == ["0", "3", "6"]
        for name, grid in grids.items():
            x = everything[name]
            low, high = grid.scale * (grid.qmin - grid.zero_point), grid.scale * (grid.qmax - grid.zero_point)
            assert low <= x.min() + grid.scale / 2 and high >= x.max() - grid.scale / 2
            expected = choose_scale(x.min().view(1), x.max().view(1), bits, symmetric=symmetric)
            torch.testing.assert_close(grid.scale, expected.scale)
            assert torch.equal(grid.zero_point, expected.zero_point)
        assert symmetric or grids["6"].zero_point == 0  # behind a ReLU

    def test_moving_average(self):
        model, batches = network(), [images(8, seed) for seed in range(4)]
        grids = calibrate(model, batches, method="moving_average")
        for name, grid in grids.items():
            average = MovingAverage()
            for x in batches:
                average.update(inputs_of(model, x)[name].flatten())
            torch.testing.assert_close(grid.scale, choose_scale(*average.range()).scale)

    @pytest.mark.parametrize(
        "method, find_range",
        [
            ("percentile", percentile_range),
            ("mse", partial(mse_range, bits=4)),
            ("entropy", partial(entropy_range, bits=4)),
            (partial(percentile_range, fraction=0.9), partial(percentile_range, fraction=0.9)),
        ],
    )
    def test_methods_that_need_the_numbers_themselves(self, method, find_range):
        model, batches = network(), [images(8), images(6, seed=2)]
        grids = calibrate(model, batches, bits=4, method=method)
        for name, grid in grids.items():
            sample = torch.cat([inputs_of(model, x)[name].flatten() for x in batches])
            torch.testing.assert_close(grid.scale, choose_scale(*find_range(sample), 4).scale)

    def test_samples_are_bounded_and_repeatable(self):
        seen = []

        def spy(sample):
            seen.append(sample)
            return percentile_range(sample)

        model, x = network(), images(100)
        once = calibrate(model, [x, x[:1]], layers=["0"], method=spy, max_samples=60)
        assert len(seen[0]) == 60 + 50 and torch.isin(seen[0], x).all() and len(seen[0][:60].unique()) > 50
        assert same(once["0"], calibrate(model, [x, x[:1]], layers=["0"], method=spy, max_samples=60)["0"])
        assert torch.equal(seen[0], seen[1])
        calibrate(model, [x, x[:1]], layers=["0"], method=spy, max_samples=60, seed=1)
        assert not torch.equal(seen[0], seen[2])

    def test_outliers_are_clipped_by_all_but_min_max(self):
        x = images(50)
        x[3, 1, 2, 2] = 40.0
        scale = {m: calibrate(network(), [x], layers=["0"], method=m)["0"].scale.item()
                 for m in ("min_max", "percentile", "mse", "entropy")}  # fmt: skip
        assert scale["min_max"] == pytest.approx((40 - x.min().item()) / 255)
        assert max(scale["percentile"], scale["entropy"]) < scale["min_max"] / 2 and scale["mse"] <= scale["min_max"]

    def test_the_model_is_left_as_it_was(self):
        model = network().train()
        model[3].eval()
        before = copy.deepcopy(model.state_dict())
        calibrate(model, [images()])
        with pytest.raises(RuntimeError):
            calibrate(model, [images(), torch.ones(3)])  # fails in the middle
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert [m.training for m in model] == [True] * 3 + [False] + [True] * 3
        assert not any(m._forward_pre_hooks for m in model.modules())

    def test_a_layer_that_runs_twice_sees_both(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(1, 1, bias=False)
                nn.init.constant_(self.layer.weight, -5.0)

            def forward(self, x):
                return self.layer(self.layer(x))

        grid = calibrate(Twice(), [torch.tensor([[1.0]])], bits=8)["layer"]
        assert grid.scale.item() == pytest.approx(6 / 255)  # from -5 to 1

    def test_constant_and_zero_inputs(self):
        model = nn.Sequential(nn.Linear(2, 1))
        for value in (0.0, 3.0, -3.0):
            x = torch.full((4, 2), value)
            for method in ("min_max", "moving_average", "percentile", "mse", "entropy"):
                grid = calibrate(model, [x], method=method)["0"]
                torch.testing.assert_close(fake_quantize(x, grid), x)

    def test_refusals(self):
        model = network()
        for method in ("min_max", "entropy"):
            with pytest.raises(ValueError, match="no calibration data: batches is empty"):
                calibrate(model, [], method=method)
            with pytest.raises(ValueError, match="nan or infinite in layer '0'"):
                calibrate(model, [images() * math.nan], method=method)
        with pytest.raises(ValueError, match="no calibration data: nothing flowed in layer '0'"):
            calibrate(model, [images()[:0]], layers=["0"])
        with pytest.raises(ValueError, match="no such layer: 'fc'"):
            calibrate(model, [images()], layers=["fc"])
        with pytest.raises(ValueError, match="method must be one of min_max, .* got 'kl'"):
            calibrate(model, [images()], method="kl")
        with pytest.raises(ValueError, match="max_samples"):
            calibrate(model, [images()], max_samples=0)
        for bad in (0, 33):
            with pytest.raises(ValueError, match="bits must be"):
                calibrate(model, [images()], bits=bad)
        with pytest.raises(TypeError, match="bits must be"):
            calibrate(model, [images()], bits=2.5)
        unused = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        unused.forward = lambda x: unused["a"](x)
        with pytest.raises(ValueError, match="no calibration data: nothing flowed in layer 'b'"):
            calibrate(unused, [torch.ones(1, 2)])


class TestSimulate:
    def test_every_layer_reads_rounded_inputs(self):
        model, x = network().eval(), images()
        grids = calibrate(model, [x], bits=3)
        rounded = simulate_activations(model, grids)
        with torch.no_grad():
            h = model[1:3](model[0](fake_quantize(x, grids["0"])))
            h = model[4:6](model[3](fake_quantize(h, grids["3"])))
            expected = model[6](fake_quantize(h, grids["6"]))
            assert torch.equal(rounded(x), expected) and not torch.equal(model(x), expected)
            only = simulate_activations(model, {"3": grids["3"]})
            assert torch.equal(only(x), model[4:](model[3](fake_quantize(model[:3](x), grids["3"]))))

    def test_many_bits_change_little(self):
        model, x = network().eval(), images()
        with torch.no_grad():
            error = [(simulate_activations(model, calibrate(model, [x], bits=b))(x) - model(x)).std().item()
                     for b in (2, 4, 8, 16)]  # fmt: skip
        assert error == sorted(error, reverse=True) and error[2] < 0.02 * model(x).std() and error[3] < 1e-4

    @pytest.mark.parametrize("bits, symmetric", [(3, False), (4, True)])
    def test_gradient_is_torchs(self, bits, symmetric):
        grid = choose_scale(torch.tensor([-1.0]), torch.tensor([2.0]), bits, symmetric=symmetric)
        ratio = torch.linspace(-15.03, 15.02, 997)
        x = (ratio[((ratio - ratio.floor()) - 0.5).abs() > 1e-2] * grid.scale).requires_grad_()
        other = x.detach().clone().requires_grad_()
        (ours,) = QuantizedInput(grid)(nn.Identity(), (x,))
        theirs = torch.fake_quantize_per_tensor_affine(other, grid.scale.item(), grid.zero_point.item(), *grid[2:])
        upstream = torch.randn(len(x), generator=torch.Generator().manual_seed(0))
        ours.backward(upstream)
        theirs.backward(upstream)
        torch.testing.assert_close(ours, theirs)
        assert torch.equal(x.grad, other.grad) and 0 < (x.grad == 0).sum() < len(x)

    def test_survives_a_copy_and_comes_off_again(self):
        model, x = network().eval(), images()
        rounded = simulate_activations(model, calibrate(model, [x], bits=2))
        with torch.no_grad():
            assert torch.equal(copy.deepcopy(rounded)(x), rounded(x))
            assert torch.equal(restore_activations(rounded)(x), model(x))
            assert not torch.equal(rounded(x), model(x))  # neither copy has touched it
        assert list(rounded.state_dict()) == list(model.state_dict())
        assert not any(m._forward_pre_hooks for m in model.modules())

    def test_a_second_grid_replaces_the_first(self):
        model, x = network().eval(), images()
        coarse, fine = (calibrate(model, [x], bits=bits) for bits in (2, 8))
        with torch.no_grad():
            twice = simulate_activations(simulate_activations(model, coarse), fine)
            assert torch.equal(twice(x), simulate_activations(model, fine)(x))

    def test_other_hooks_stay(self):
        model, seen = network().eval(), []
        model[0].register_forward_pre_hook(lambda layer, args: seen.append(layer))
        restore_activations(simulate_activations(model, calibrate(model, [images()], layers=["0"])))(images())
        assert len(seen) == 2  # while calibrating, and now

    def test_trains_with_rounded_weights_too(self):
        data = split()
        model = prepare(network(), lambda weight: FakeQuantize(bits=4))
        model = simulate_activations(model, calibrate(model, [data.x()], bits=4))
        history = []
        trained = train(model, data, epochs=20, batch_size=16, lr=0.05, progress=False, history=history)
        assert history[-1]["loss"] < 0.6 * history[0]["loss"]
        assert sum(isinstance(h, QuantizedInput) for m in trained.modules() for h in m._forward_pre_hooks.values()) == 3
        with torch.no_grad():
            assert not torch.equal(restore_activations(trained)(data.x()), trained(data.x()))

    def test_refusals(self):
        model = network()
        grids = calibrate(model, [images()])
        with pytest.raises(ValueError, match="no layer 'fc'"):
            simulate_activations(model, {"fc": grids["0"]})
        many = choose_scale(torch.zeros(3), torch.ones(3))
        with pytest.raises(ValueError, match="one scale per tensor, got 3 in layer '0'"):
            simulate_activations(model, {"0": many})


def test_plain_functions_of_the_stack_are_not_fooled():
    """F.linear and F.conv2d of the same rounded numbers: the hook sits before the layer, not inside it."""
    layer, x = nn.Sequential(nn.Linear(3, 2)), images(2).flatten(1)[:, :3]
    grid = choose_scale(-1.0, 1.0, 4)
    expected = F.linear(fake_quantize(x, grid), layer[0].weight, layer[0].bias)
    assert torch.equal(simulate_activations(layer, {"0": grid})(x), expected)
