"""Rotations and planted outliers: other weights, the same function, in float64 to the last digits."""

import copy

import pytest
import torch

from compresslab.core.calibrate import input_norms
from compresslab.pruning.magnitude import magnitude_mask
from compresslab.pruning.wanda import wanda_mask
from compresslab.quantization.hadamard import random_signs, rotate
from compresslab.sequence.gpt import GPT, block_layers
from compresslab.sequence.outliers import measure_outliers, plant_outliers
from compresslab.sequence.rotate_gpt import fold_norms, rotate_gpt, stream_layers

TOKENS = torch.arange(40).view(4, 10) % 20


def network(width=24, tied=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT(vocabulary=20, width=width, layers=2, context=12, heads=[2, 3], head_size=5, tied=tied).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8) if parameter.ndim == 2 else parameter.add_(0.5 * torch.randn(width))
    return model


@pytest.mark.parametrize("width", [16, 24, 6])
@pytest.mark.parametrize("seed", [0, 3])
def test_rotating_keeps_the_function(width, seed):
    model = network(width)
    before = copy.deepcopy(model.state_dict())
    rotated = rotate_gpt(model, seed)
    torch.testing.assert_close(rotated(TOKENS), model(TOKENS), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(rotated.blocks[0].up.weight, model.blocks[0].up.weight)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_stream_is_rotated():
    model = network()
    streams = []
    for each in (model, rotate_gpt(model, 7)):
        each.blocks[1].register_forward_pre_hook(lambda block, args: streams.append(args[0].detach()))
        each(TOKENS)
    torch.testing.assert_close(rotate(streams[0], random_signs(24, seed=7)), streams[1], rtol=1e-6, atol=1e-6)


def test_folding_leaves_norms_of_one():
    folded = fold_norms(network())
    for norm in (folded.norm, *(part for block in folded.blocks for part in (block.norm1, block.norm2))):
        assert torch.equal(norm.weight, torch.ones(24).double())
    torch.testing.assert_close(folded(TOKENS), network()(TOKENS), rtol=1e-9, atol=1e-9)


def test_every_matrix_on_the_stream_is_named():
    model = network()
    writers, readers = stream_layers(model)
    on_stream = {n for n, m in model.named_modules() if isinstance(getattr(m, "weight", None), torch.Tensor) and m.weight.ndim == 2}
    assert set(writers) | set(readers) == on_stream and not set(writers) & set(readers)


def test_what_cannot_be_rotated():
    with pytest.raises(ValueError, match="tied"):
        rotate_gpt(network(tied=True))
    with pytest.raises(ValueError, match="n must be even"):
        rotate_gpt(network(width=9))


@pytest.mark.parametrize("factor", [30.0, 0.01])
@pytest.mark.parametrize("channels", [0, 1, 3, 24])
def test_planting_keeps_the_function(factor, channels):
    model = network()
    planted = plant_outliers(model, factor, channels=channels, seed=2)
    torch.testing.assert_close(planted(TOKENS), model(TOKENS), rtol=1e-9, atol=1e-9)
    ratio = planted.blocks[0].norm1.weight / model.blocks[0].norm1.weight
    assert torch.isclose(ratio, torch.tensor(factor).double()).sum() == channels
    assert torch.allclose(ratio, planted.blocks[1].norm2.weight / model.blocks[1].norm2.weight)


def test_outliers_are_measured():
    model = network()
    before, after = measure_outliers(model, [TOKENS]), measure_outliers(plant_outliers(model, 50.0, channels=1), [TOKENS])
    assert list(before) == block_layers(model) and min(before.values()) >= 1
    assert all(after[name] > 5 * before[name] for name in ("blocks.0.q", "blocks.1.up"))
    assert after["blocks.0.down"] == pytest.approx(before["blocks.0.down"], rel=1e-6)


def test_rotation_takes_planted_outliers_away():
    planted = plant_outliers(network(), 50.0, channels=1)
    assert measure_outliers(rotate_gpt(planted), [TOKENS])["blocks.1.up"] < 0.2 * measure_outliers(planted, [TOKENS])["blocks.1.up"]


def test_wanda_does_not_notice_and_magnitude_does():
    model, name = network(), "blocks.1.q"
    masks = []
    for each in (model, plant_outliers(model, 32.0, channels=3)):
        weight = each.get_submodule(name).weight.detach()
        norms = input_norms(each, [name], [TOKENS])[name]
        masks.append((wanda_mask(weight, norms, sparsity=0.5), magnitude_mask(weight, 0.5)))
    assert torch.equal(masks[0][0], masks[1][0]) and not torch.equal(masks[0][1], masks[1][1])


@pytest.mark.parametrize("factor, channels", [(0.0, 1), (-2.0, 1), (float("inf"), 1), (float("nan"), 1), (30.0, 25), (30.0, -1)])
def test_what_cannot_be_planted(factor, channels):
    with pytest.raises(ValueError, match="factor must be positive|channels must be a whole number"):
        plant_outliers(network(), factor, channels=channels)
    with pytest.raises(TypeError, match="channels"):
        plant_outliers(network(), channels=1.5)
