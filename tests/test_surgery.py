"""Dynamic network surgery: hysteresis, gradients behind the mask, and weights that return."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.modules import Mask, bake, get_mask
from compresslab.pruning.masks import masks_of, sparsity_of, trainable_weight
from compresslab.pruning.surgery import (
    NetworkSurgery,
    SurgeryMask,
    finish_surgery,
    prepare_surgery,
    surgery_mask,
)


@pytest.mark.parametrize(
    "size, before, after",
    [
        (0.3, True, False), (0.3, False, False),  # below a: pruned
        (0.4, True, True), (0.4, False, False),  # at a: as it was
        (0.5, True, True), (0.5, False, False),  # between: as it was
        (0.6, True, True), (0.6, False, True),  # at b: spliced
        (0.9, True, True), (0.9, False, True),  # above b
    ],
)  # fmt: skip
@pytest.mark.parametrize("sign", [1, -1])
def test_hysteresis_table(size, before, after, sign):
    weight = torch.tensor([sign * size], dtype=torch.float64)
    assert surgery_mask(weight, torch.tensor([before]), 0.4, 0.6).item() is after


def test_equal_thresholds_are_plain_thresholding():
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    for mask in (torch.ones(100, dtype=torch.bool), torch.zeros(100, dtype=torch.bool)):
        assert torch.equal(surgery_mask(weight, mask, 0.5, 0.5), weight.abs() >= 0.5)


@pytest.mark.parametrize("low, high", [(0.6, 0.4), (-0.1, 0.4), (math.nan, 1.0), (0.1, math.nan)])
def test_thresholds_must_be_ordered(low, high):
    with pytest.raises(ValueError, match="0 <= low <= high"):
        surgery_mask(torch.ones(1), torch.ones(1, dtype=torch.bool), low, high)


def test_forward_is_masked_and_backward_is_not():
    w = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    g = torch.arange(12.0).view(3, 4)
    masked = SurgeryMask(mask, 0.0, 0.0)(w)
    assert torch.equal(masked, w * mask)
    assert torch.equal(torch.autograd.grad(masked, w, g)[0], g)
    assert torch.equal(
        torch.autograd.grad(Mask(mask)(w), w, g)[0], g * mask
    )  # the ordinary mask, for contrast


def test_update_is_the_papers():
    """w <- w - eta dL/d(w T), for masked weights as well."""
    torch.manual_seed(0)
    model = prepare_surgery(nn.Sequential(nn.Linear(6, 4)), strictness=0.3)
    x, w = torch.randn(5, 6), trainable_weight(model[0]).detach().clone()
    effective = model[0].weight.detach().clone().requires_grad_()
    nn.functional.linear(x, effective, model[0].bias).square().sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model(x).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(trainable_weight(model[0]), w - 0.01 * effective.grad)
    assert (trainable_weight(model[0]) != w)[~get_mask(model[0])].any()


def test_thresholds_come_from_each_layer():
    model = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 3))
    patient = prepare_surgery(model, strictness=1.0, margin=0.2)
    for layer, original in zip(patient, model, strict=True):
        size = original.weight.detach().abs().numpy()
        mask = layer.parametrizations.weight[0]
        assert mask.low == pytest.approx(0.8 * (size.mean() + size.std()), rel=1e-5)
        assert mask.high == pytest.approx(1.2 * (size.mean() + size.std()), rel=1e-5)
        assert torch.equal(mask.mask, original.weight.abs() >= mask.low)
    assert masks_of(model) == {}
    assert sparsity_of(prepare_surgery(model, strictness=-100.0)) == 0
    assert sparsity_of(prepare_surgery(model, strictness=2.0)) > sparsity_of(
        prepare_surgery(model, strictness=0.0)
    )


def test_a_masked_weight_returns_and_a_shrunken_one_goes():
    model = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
    model[0].weight.data = torch.tensor([[1.0, 0.1, 0.5]], dtype=torch.float64)
    patient = prepare_surgery(model, strictness=0.0)  # mean 0.533: a = 0.48, b = 0.587
    operate = NetworkSurgery(until=100, every=2)
    assert get_mask(patient[0]).tolist() == [[True, False, True]]
    behind = trainable_weight(patient[0])
    behind.data = torch.tensor([[0.2, 0.7, 0.55]], dtype=torch.float64)
    operate(patient, 1)  # not an operating step
    assert get_mask(patient[0]).tolist() == [[True, False, True]]
    operate(patient, 2)
    assert get_mask(patient[0]).tolist() == [[False, True, True]]
    behind.data = torch.tensor([[5.0, 0.0, 0.0]], dtype=torch.float64)
    operate(patient, 102)  # past `until`
    assert get_mask(patient[0]).tolist() == [[False, True, True]]


def test_training_recovers_a_weight_that_was_pruned_wrongly():
    """The target needs weight 0, which starts small: surgery brings it back, an ordinary mask cannot."""
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    y = x @ torch.tensor([[2.0, 0.0, 0.0, 1.0]]).T
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    model[0].weight.data = torch.tensor([[0.01, 0.5, 0.5, 0.5]])
    patient, operate = prepare_surgery(model, strictness=-0.5), NetworkSurgery(until=60, every=5)
    assert not get_mask(patient[0])[0, 0]
    optimizer = torch.optim.SGD(patient.parameters(), 0.1, momentum=0.5)
    for step in range(80):
        optimizer.zero_grad()
        (patient(x) - y).square().mean().backward()
        optimizer.step()
        operate(patient, step)
    assert get_mask(patient[0]).tolist() == [[True, False, False, True]]
    torch.testing.assert_close(patient[0].weight, torch.tensor([[2.0, 0.0, 0.0, 1.0]]), atol=1e-3, rtol=0)


def test_deepcopy_finish_and_bake():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Linear(5, 5))
    patient = prepare_surgery(model, skip=["1"])
    twin = copy.deepcopy(patient)
    NetworkSurgery(until=5)(twin, 0)
    done = finish_surgery(twin)
    assert type(done[0].parametrizations.weight[0]) is Mask and get_mask(done[1]) is None
    assert torch.equal(done[0].weight, twin[0].weight) and torch.equal(bake(twin)[0].weight, twin[0].weight)
    assert torch.equal(trainable_weight(done[0]), done[0].weight)
    again = prepare_surgery(done)  # a masked network can be operated on
    assert type(again[0].parametrizations.weight[0]) is SurgeryMask


def test_errors():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="margin must be in"):
        prepare_surgery(model, margin=10)
    with pytest.raises(ValueError, match="no such layer"):
        prepare_surgery(model, only=["fc"])
    with pytest.raises(ValueError, match="prepare_surgery first"):
        NetworkSurgery(until=1)(model, 0)
    with pytest.raises(ValueError, match="every"):
        NetworkSurgery(until=1, every=0)
    with pytest.raises(ValueError, match="until"):
        NetworkSurgery(until=-1)
