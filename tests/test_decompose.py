"""The step that replaces layers by chains: exact at full rank, shared and masked layers, files, errors."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from compresslab.core.modules import apply_mask_
from compresslab.core.store import load, save
from compresslab.lowrank.decompose import METHODS, decompose
from compresslab.lowrank.lora import add_lora
from compresslab.lowrank.ranks import ranks_for_budget
from compresslab.lowrank.response import decompose_responding
from compresslab.models import from_spec
from compresslab.sharing.cross_layer import FactorizedEmbedding


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, (3, 2), bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 2 * 3, 5),
    )  # fmt: skip


FULL = {  # ranks at which nothing is lost
    "svd": {"0": 6, "2": 4, "5": 5},
    "input": {"0": 3, "2": 6, "5": 5},
    "spatial": {"0": 9, "2": 8, "5": 5},
    "tucker": {"0": (6, 3), "2": (4, 6), "5": 5},
}


@pytest.mark.parametrize("method", FULL)
def test_full_rank_leaves_the_outputs(method):
    model, x = network(), randn(4, 3, 8, 8)
    full = decompose(model, FULL[method], method=method)
    torch.testing.assert_close(full(x), model(x), rtol=1e-4, atol=1e-5)
    assert all(isinstance(full[i], nn.Sequential) for i in (0, 2, 5))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_a_kernel_of_rank_one(method):
    model = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.Linear(8, 3))
    a, b, c, d = (randn(n, seed=n) for n in (5, 4, 3, 2))
    model[0].weight.data.copy_(torch.einsum("n,c,i,j->ncij", a, b, c, randn(3, seed=9)))
    small = decompose(model, {"0": 1, "1": 2}, method=method)
    x = randn(2, 4, 6, 8)
    assert (small[0](x) - model[0](x)).norm() < 0.01 * model[0](x).norm()  # alternating ends near, not there
    assert [type(part) for part in small[1]] == [nn.Linear, nn.Linear]
    assert sum(part.bias is not None for part in small[0]) == 1 and small[0][-1].bias is not None


@pytest.mark.parametrize("method", METHODS)
def test_model_is_not_modified_and_shares_nothing(method):
    model = network().eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    small = decompose(model, {"0": 2, "5": 2}, method=method)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in small.modules())
    for p in small.parameters():
        p.data.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_nothing_named_is_a_copy():
    model = network()
    same = decompose(model, {})
    assert same is not model and str(same) == str(model)


def test_a_layer_with_two_names_is_split_once_and_stays_shared():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    small = decompose(model, {"0": 2})
    assert small[0] is small[2][0] and isinstance(small[0], nn.Sequential)
    with pytest.raises(ValueError, match="the model has no layer '2.0'"):
        decompose(model, {"2.0": 2})


def test_a_masked_layer_is_split_as_it_is_seen_and_other_masks_stay():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    for layer in model:
        mask = torch.zeros(6, 6, dtype=torch.bool)
        mask[:2] = True
        apply_mask_(layer, mask)
    small = decompose(model, {"0": 2})  # rank 2 is all that the mask leaves
    x = randn(3, 6)
    torch.testing.assert_close(small(x), model(x))
    assert not parametrize.is_parametrized(small[0].reduce) and parametrize.is_parametrized(small[1])
    assert parametrize.is_parametrized(model[0])


def test_what_is_frozen_stays_frozen():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    small = decompose(model, {"0": 2, "1": 2, "2": 2})
    frozen = [name for name, p in small.named_parameters() if not p.requires_grad]
    assert frozen == ["0.reduce.weight", "0.expand.weight", "0.expand.bias", "1.expand.bias"]
    small(randn(2, 6)).sum().backward()
    assert all(p.grad is not None for p in small[2].parameters())


def test_the_model_itself_may_be_a_layer():
    assert isinstance(decompose(nn.Linear(4, 4), {"": 2}), nn.Sequential)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded(method, tmp_path):
    model = from_spec({"model": "resnet", "depth": 8, "width": 4}).eval()
    small = decompose(model, {"conv1": 2, "stage2.0.conv1": 3, "stage3.0.conv2": 4}, method=method)
    save(small, tmp_path / "small.safetensors")
    again = load(tmp_path / "small.safetensors", model).eval()
    x = randn(2, 3, 32, 32)
    assert torch.equal(again(x), small(x))


@pytest.mark.parametrize(
    "ranks, method, error, message",
    [
        ({"0": 2}, "qr", ValueError, "method must be one of svd, input, spatial, tucker, cp, got 'qr'"),
        ({"9": 2}, "svd", ValueError, "the model has no layer '9'"),
        ("0", "svd", ValueError, "collection of layer names"),
        ({"1": 2}, "svd", TypeError, "Linear and Conv2d can be decomposed, got ReLU in layer '1'"),
        ({"0": 0}, "svd", ValueError, "rank must be a whole number from 1 to 6, got 0 in layer '0'"),
        ({"0": 7}, "svd", ValueError, "rank must be a whole number from 1 to 6, got 7 in layer '0'"),
        ({"0": 10}, "spatial", ValueError, "from 1 to 9, got 10 in layer '0'"),
        ({"5": 6}, "cp", ValueError, "from 1 to 5, got 6 in layer '5'"),
        ({"5": (2, 2)}, "tucker", TypeError, r"rank must be a whole number .* got \(2, 2\) in layer '5'"),
        ({"0": 0.5}, "svd", TypeError, "rank must be a whole number .* got 0.5 in layer '0'"),
        ({"0": (7, 3)}, "tucker", ValueError, "in layer '0'"),
        ({"0": 0}, "cp", ValueError, "in layer '0'"),
    ],
)
def test_errors(ranks, method, error, message):
    with pytest.raises(error, match=message):
        decompose(network(), ranks, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_groups_are_refused_with_the_layers_name(method):
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match="groups.* in layer '1'"):
        decompose(model, {"1": 1}, method=method)


def test_the_projection_of_attention_is_refused():
    model = nn.Sequential(nn.MultiheadAttention(8, 2))
    with pytest.raises(ValueError, match="MultiheadAttention reads this weight itself.*'0.out_proj'"):
        decompose(model, {"0.out_proj": 2})


def encoder():
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8))


READ = {  # model, an input, a layer whose weight is read past its forward, and who reads it
    "LoRA": (lambda: add_lora(nn.Sequential(nn.Linear(8, 8)), 1), randn(2, 8), "0.layer", "LoRALinear"),
    "embedding": (
        lambda: nn.Sequential(FactorizedEmbedding(30, 4, 8)), torch.zeros(2, 3, dtype=torch.int64),
        "0.projection", "FactorizedEmbedding",
    ),
    "encoder 1": (encoder, randn(2, 3, 8), "0.linear1", "TransformerEncoderLayer"),
    "encoder 2": (encoder, randn(2, 3, 8), "0.linear2", "TransformerEncoderLayer"),
    "encoder out": (encoder, randn(2, 3, 8), "0.self_attn.out_proj", "MultiheadAttention"),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_a_layer_whose_weight_is_read_is_refused_and_gets_no_rank(case):
    make, x, name, reader = READ[case]
    model = make().eval()
    with pytest.raises(ValueError, match=f"{reader} reads this weight itself.*'{name}'"):
        decompose(model, {name: 2})
    with pytest.raises(ValueError, match=f"{reader} reads this weight itself.*'{name}'"):
        decompose_responding(model, {name: 2}, [x])
    try:
        ranks = ranks_for_budget(model, x, 0.97)
    except ValueError as error:
        assert "out of reach" in str(error)  # there is no other layer
    else:
        assert set(ranks) == {"1"}
        with torch.inference_mode():  # the encoder's fast path
            decompose(model, ranks)(x)


def test_the_layers_of_a_decoder_are_called_and_can_be_split():
    model = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True).eval()
    small = decompose(model, {"linear1": 8, "linear2": 8})
    x = randn(2, 3, 8)
    with torch.inference_mode():
        torch.testing.assert_close(small(x, x), model(x, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", ["weight", "bias"])
def test_tied_parameters_are_refused(shared):
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    setattr(model[2], shared, getattr(model[0], shared))
    for name in ("0", "2"):
        with pytest.raises(ValueError, match=f"tied to those of another layer.*'{name}'"):
            decompose(model, {name: 2})
    assert decompose(model, {"1": 2})[2] is not None
