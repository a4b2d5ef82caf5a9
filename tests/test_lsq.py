"""LSQ: values and gradients against torch's learnable fake quantization, and by the paper's cases."""

import copy
import math

import pytest
import torch
from torch import nn

from compresslab.core.codes import UniformCode
from compresslab.core.prepare import convert, prepare
from compresslab.quantization.lsq import LSQ, SMALLEST_STEP, lsq_quantize, scale_gradient


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("qn, qp", [(7, 7), (8, 7), (0, 15), (1, 1), (127, 127)])
def test_against_torch(qn, qp):
    """Everywhere but at ties, and for the gradients between Q and Q + 1/2, where torch rounds before it clips."""
    step = 0.3
    ratio = torch.linspace(-qn - 3.02, qp + 3.03, 4001)
    ratio = ratio[((ratio - ratio.floor()) - 0.5).abs() > 1e-3]
    v, s = (ratio * step).requires_grad_(), torch.tensor([step], requires_grad=True)
    v2, s2 = v.detach().clone().requires_grad_(), s.detach().clone().requires_grad_()
    upstream = randn(len(v))
    ours = lsq_quantize(v, s, qn, qp)
    theirs = torch._fake_quantize_learnable_per_tensor_affine(v2, s2, torch.zeros(1), -qn, qp, 1.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)

    same = ~(((ratio > qp) & (ratio < qp + 0.5)) | ((ratio < -qn) & (ratio > -qn - 0.5)))
    assert 0 < (~same).sum() < len(v) / 4 if qn + qp < 20 else (~same).any()
    (ours * upstream * same).sum().backward()
    (theirs * upstream * same).sum().backward()
    assert torch.equal(v.grad, v2.grad)
    torch.testing.assert_close(s.grad, s2.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "ratio, value, by_step, by_value",
    [
        (0.3, 0, -0.3, 1), (0.7, 1, 0.3, 1), (-0.7, -1, -0.3, 1), (2.25, 2, -0.25, 1),
        (3.0, 3, 3, 0), (3.2, 3, 3, 0), (40.0, 3, 3, 0), (-4.0, -4, -4, 0), (-4.3, -4, -4, 0), (2.5, 2, -0.5, 1),
    ],
)  # fmt: skip
def test_the_papers_cases(ratio, value, by_step, by_value):
    """Q_N = 4, Q_P = 3. Beyond 3 the weight gets no gradient, also at 3.2, where torch would give it one."""
    s = torch.tensor(0.25, requires_grad=True)  # a power of two: v / s is exact
    v = torch.tensor(ratio * 0.25, requires_grad=True)
    out = lsq_quantize(v, s, 4, 3)
    out.backward()
    assert out.item() == value * 0.25 and v.grad.item() == by_value
    assert s.grad.item() == pytest.approx(by_step, abs=1e-6)


def test_a_step_per_row_collects_its_own_row():
    v, s = randn(3, 50), torch.tensor([[0.1], [0.5], [2.0]], requires_grad=True)
    lsq_quantize(v, s, 7, 7).sum().backward()
    for row, step, gradient in zip(v, s, s.grad, strict=True):
        alone = step.detach().clone().requires_grad_()
        lsq_quantize(row, alone, 7, 7).sum().backward()
        torch.testing.assert_close(gradient, alone.grad)


def test_gradient_scale():
    x = torch.tensor(0.1, requires_grad=True)
    y = scale_gradient(x, 0.3)
    y.backward()
    assert y.item() == x.item() and x.grad.item() == pytest.approx(0.3)


class TestParametrization:
    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("axis", [None, 0, 1])
    def test_simulated_is_encoded(self, bits, axis):
        weight = randn(5, 3, 2, 2)
        weight[2] *= 30
        lsq = LSQ(weight, bits, axis)
        with torch.no_grad():
            lsq.step.mul_(torch.rand(lsq.step.shape, generator=torch.Generator().manual_seed(1)) + 0.5)
        code = lsq.to_code(weight)
        assert isinstance(code, UniformCode) and code.bits == bits and code.zero_point is None
        assert torch.equal(lsq(weight), code.decode())
        assert len(code.decode().unique()) <= (2**bits - 1) * lsq.step.numel()

    def test_first_step_and_gradient_scale(self):
        weight = randn(4, 10)
        lsq, by_row = LSQ(weight, 4), LSQ(weight, 4, axis=0)
        assert lsq.step.item() == pytest.approx(2 * weight.abs().mean().item() / math.sqrt(7))
        torch.testing.assert_close(by_row.step[:, 0], 2 * weight.abs().mean(1) / math.sqrt(7))
        for module, share in ((lsq, 40), (by_row, 10)):
            rows = weight.reshape(len(module.step), -1)
            plain = module.step.detach().clone().requires_grad_()
            lsq_quantize(rows, plain, 7, 7).sum().backward()
            module(weight).sum().backward()
            torch.testing.assert_close(module.step.grad, plain.grad / math.sqrt(share * 7))

    def test_a_step_that_went_through_zero_is_still_positive(self):
        weight = randn(3, 4)
        lsq = LSQ(weight, 4)
        value = lsq(weight)
        with torch.no_grad():
            lsq.step.neg_()
        assert torch.equal(lsq(weight), value) and torch.equal(lsq.to_code(weight).decode(), value)
        with torch.no_grad():
            lsq.step.zero_()
        assert lsq.to_code(weight).scale.item() == SMALLEST_STEP
        assert torch.equal(lsq(weight), lsq.to_code(weight).decode())

    def test_a_longer_step_is_learned_where_it_helps(self):
        weight = randn(200)
        lsq = LSQ(weight, 3)
        with torch.no_grad():
            lsq.step.mul_(0.1)  # nearly everything is clipped
        optimizer = torch.optim.SGD(lsq.parameters(), 0.1)
        errors = []
        for _ in range(60):
            error = (lsq(weight) - weight).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.item())
        assert errors[-1] < 0.3 * errors[0]

    def test_training_a_network_and_converting_it(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        prepared = prepare(model, lambda weight: LSQ(weight, 3, axis=0))
        x, y = randn(64, 6), (randn(64, 6)[:, 0] > 0).long()
        before = copy.deepcopy(prepared.state_dict())
        optimizer = torch.optim.SGD(prepared.parameters(), 0.1, momentum=0.9)
        losses = []
        for _ in range(40):
            loss = nn.functional.cross_entropy(prepared(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]
        steps = [key for key in before if key.endswith("step")]
        assert len(steps) == 2 and all((before[key] != prepared.state_dict()[key]).any() for key in steps)
        coded = convert(copy.deepcopy(prepared))
        for layer in (0, 2):
            assert torch.equal(coded[layer].weight, prepared[layer].weight)
        assert torch.equal(coded(x), prepared(x))


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(3, 4), torch.full((3, 4), 0.7), randn(3, 4).abs(), torch.tensor([[1.0], [0.0], [-2.0]]), torch.empty(0, 4)],
)
@pytest.mark.parametrize("axis", [None, 0])
def test_degenerate_weights(weight, axis):
    lsq = LSQ(weight, 4, axis)
    assert torch.equal(lsq(weight), lsq.to_code(weight).decode()) and lsq(weight).shape == weight.shape
    if not weight.any():
        assert not lsq(weight).any() and (lsq.step == 1).all()


def test_refusals():
    weight = torch.ones(2, 3)
    for bad in (0, 1, 33):
        with pytest.raises(ValueError, match="bits must be"):
            LSQ(weight, bad)
    with pytest.raises(TypeError, match="bits must be"):
        LSQ(weight, 2.5)
    with pytest.raises(ValueError, match="axis must be"):
        LSQ(weight, 4, axis=2)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="nan or inf"):
            LSQ(torch.tensor([bad]))
    with pytest.raises(ValueError, match="step must be positive, got -1"):
        lsq_quantize(weight, torch.tensor(-1.0), 1, 1)
    with pytest.raises(ValueError, match="does not broadcast"):
        lsq_quantize(weight, torch.ones(4, 1, 1), 1, 1)
    with pytest.raises(ValueError, match="qp must be"):
        lsq_quantize(weight, torch.tensor(1.0), 1, 0)
    with pytest.raises(TypeError, match="qn must be"):
        lsq_quantize(weight, torch.tensor(1.0), 0.5, 1)


@pytest.mark.parametrize("axis", [None, 0])
def test_tiny_weights_keep_their_levels(axis):
    weight = randn(3, 40)
    small = weight * 2.0**-60
    assert torch.equal(LSQ(small, 4, axis)(small), LSQ(weight, 4, axis)(weight) * 2.0**-60)
    assert LSQ(small, 4, axis)(small).any()
