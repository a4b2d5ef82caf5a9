"""Walking, masking and baking: sharing is kept, the input is never changed, a mask holds through training."""

import copy

import pytest
import torch
from torch import nn

from compresslab.core.modules import Mask, apply_mask_, bake, get_mask, map_layers, named_layers


class Shared(nn.Module):
    """One linear layer reached by two names, one of them nested."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.block = nn.Sequential(nn.ReLU(), self.first)

    def forward(self, x):
        return self.block(self.first(x))


def test_map_layers_replaces_a_shared_layer_once_and_keeps_it_shared():
    model, offered = Shared(), []

    def replace(name, layer):
        offered.append(name)
        return nn.Linear(3, 3, bias=False)

    new = map_layers(model, nn.Linear, replace)
    assert offered == ["first"]
    assert new.first is new.block[1] and new.first.bias is None
    assert model.first.bias is not None


def test_map_layers_keeps_where_none_is_returned_and_offers_the_model_itself():
    model = nn.Linear(2, 2)
    kept = map_layers(model, nn.Linear, lambda name, layer: None)
    assert kept is not model and torch.equal(kept.weight, model.weight)
    assert map_layers(model, nn.Linear, lambda name, layer: nn.Linear(2, 7)).out_features == 7


def test_map_layers_does_not_walk_what_replace_returned():
    wrap = map_layers(nn.Sequential(nn.Linear(2, 2)), nn.Linear, lambda name, layer: nn.Sequential(layer, layer))
    assert isinstance(wrap[0][0], nn.Linear)


def test_named_layers_lists_each_object_once():
    assert list(named_layers(Shared())) == ["first"]


@pytest.mark.parametrize(
    "choice, message",
    [({"only": ["nope"]}, "only names no such layer: 'nope'; the layers are 0"),
     ({"skip": ["1"]}, "skip names no such layer: '1'"),
     ({"only": "0"}, "only must be a collection of layer names")],
)
def test_named_layers_refuses_unknown_names(choice, message):
    with pytest.raises(ValueError, match=message):
        named_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), **choice)


def test_mask_holds_through_momentum_and_weight_decay():
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    mask = torch.rand(4, 5) > 0.5
    apply_mask_(layer, mask)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = layer.weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()
    assert (layer.weight[~mask] == 0).all() and not torch.equal(layer.weight[mask], before[mask])


def test_a_second_mask_replaces_the_first_and_old_values_return():
    layer = nn.Linear(3, 2)
    dense = layer.weight.detach().clone()
    apply_mask_(layer, torch.zeros(2, 3))
    assert (layer.weight == 0).all()
    apply_mask_(layer, torch.ones(2, 3))
    assert torch.equal(layer.weight, dense) and get_mask(layer).all()
    assert len(layer.parametrizations.weight) == 1


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"mask has shape \(3, 2\), but weight has \(2, 3\)"):
        apply_mask_(nn.Linear(3, 2), torch.ones(3, 2))


def test_masked_infinity_is_zero():
    assert Mask(torch.tensor([False]))(torch.tensor([float("inf")])).item() == 0


def test_bake_keeps_the_function_and_the_original():
    model = Shared()
    apply_mask_(model.first, torch.eye(3))
    masked, plain = copy.deepcopy(model), bake(model)
    x = torch.randn(4, 3)
    assert type(plain.first) is nn.Linear and plain.first is plain.block[1]
    assert torch.equal(plain(x), model(x)) and torch.equal(masked(x), model(x))
    assert get_mask(model.first) is not None and get_mask(plain.first) is None


def test_masking_another_tensor_of_a_copy_leaves_the_original_alone():
    layer = nn.Linear(3, 2)
    apply_mask_(layer, torch.ones(2, 3))
    twin = copy.deepcopy(layer)
    apply_mask_(twin, torch.zeros(2), "bias")
    assert (twin.bias == 0).all() and torch.equal(layer(torch.zeros(1, 3))[0], layer.bias)
    assert list(bake(twin).state_dict()) == ["weight", "bias"]
