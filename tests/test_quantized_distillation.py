"""Bucketed scaling, a student in few bits under a teacher, and levels whose gradient is exact."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compresslab.core import convert, decompress, load, prepare, save, storage_bits
from compresslab.core.modules import named_layers
from compresslab.core.train import accuracy, predict_logits, train
from compresslab.data import load_data
from compresslab.distillation import adamw, teacher_outputs
from compresslab.hybrid.buckets import BucketCode, at_points, bucket_ranges, nearest_points, uniform_points
from compresslab.hybrid.quantized_distillation import (
    BucketQuantize,
    DifferentiableQuantization,
    compact_distil_quantize,
    differentiable_quantization,
    quantized_distillation,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(width=16, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


@pytest.fixture(scope="module")
def split():
    return load_data("digits").train.take(300)


@pytest.fixture(scope="module")
def teacher(split):
    return train(network(48), split, epochs=12, progress=False)


@pytest.fixture(scope="module")
def student(split):
    return train(network(seed=1), split, epochs=8, progress=False)


# ---- buckets -----------------------------------------------------------------------------------------------


def one_by_one(weight: torch.Tensor, points: list[float], bucket: int) -> torch.Tensor:
    flat, out = weight.flatten().tolist(), []
    for i, v in enumerate(flat):
        members = flat[i // bucket * bucket : (i // bucket + 1) * bucket]
        low, extent = min(members), max(members) - min(members)
        x = (v - low) / extent if extent else 0.0
        out.append(low + extent * min(points, key=lambda p: (abs(p - x), p)))
    return torch.tensor(out).view(weight.shape)


@pytest.mark.parametrize("shape, bucket", [((24,), 8), ((5, 7), 8), ((3, 2, 3, 3), 256), ((4, 4), 1)])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_each_weight_is_at_the_nearest_point_of_its_bucket(shape, bucket, bits):
    weight = randn(*shape, seed=bits)
    code = BucketCode.from_dense(weight, bits, bucket=bucket)
    torch.testing.assert_close(code.decode(), one_by_one(weight, uniform_points(bits).tolist(), bucket))
    crooked = torch.tensor([0.9, 0.1])  # in no order
    code = BucketCode.from_dense(weight, bits, bucket=bucket, points=crooked)
    torch.testing.assert_close(code.decode(), one_by_one(weight, [0.9, 0.1], bucket))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_error_is_at_most_half_a_step_of_the_own_bucket(bits):
    weight = randn(40, 25) * torch.logspace(-3, 2, 40)[:, None]
    error = (BucketCode.from_dense(weight, bits, bucket=50).decode() - weight).view(-1, 50).abs().amax(1)
    step = bucket_ranges(weight, 50)[0] / (2**bits - 1)
    assert (error <= step / 2 * (1 + 1e-4) + 1e-6).all()


def test_an_outlier_spoils_its_own_bucket_alone():
    weight = randn(512)
    spoiled = weight.clone()
    spoiled[3] = 1000.0
    before, after = (BucketCode.from_dense(w, 4, bucket=256).decode() for w in (weight, spoiled))
    assert torch.equal(before[256:], after[256:])
    assert (after[:256] - spoiled[:256]).abs().max() > 10 * (before[:256] - weight[:256]).abs().max()


def test_ranges_of_the_last_bucket_and_of_constant_ones():
    weight = torch.tensor([2.0, 2.0, -1.0, 5.0, 7.0])
    scale, offset = bucket_ranges(weight, 2)
    assert scale.tolist() == [0.0, 6.0, 0.0] and offset.tolist() == [2.0, -1.0, 7.0]
    assert torch.equal(BucketCode.from_dense(weight, 1, bucket=2).decode(), weight)
    assert BucketCode.from_dense(torch.zeros(0, 4), 4).decode().shape == (0, 4)
    assert nearest_points(weight, torch.tensor([0.0, 1.0]), scale, offset, 2).tolist() == [0, 0, 0, 1, 0]


def test_bits_are_counted():
    weight = randn(100, 10)
    bits = 1000 * 4 + 16 * 32 + 2 * 4 * 32  # indices, points, scale and offset of 4 buckets
    assert storage_bits(BucketCode.from_dense(weight, 4, bucket=256)) == bits


@pytest.mark.parametrize("bits, bucket", [(1, 3), (4, 16), (4, 256)])
def test_simulated_is_stored_bit_for_bit(bits, bucket):
    weight = randn(9, 14)
    for simulated in (BucketQuantize(bits, bucket), DifferentiableQuantization(weight, bits, bucket)):
        assert torch.equal(simulated(weight), simulated.to_code(weight).decode())


def test_straight_through_to_every_weight():
    weight, gradient = randn(8, 9).requires_grad_(), randn(8, 9, seed=1)
    BucketQuantize(2, 16)(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)


# ---- points that learn -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits, bucket", [(1, 4), (2, 8), (3, 5), (3, 1000)])
def test_point_gradient_by_hand_and_by_finite_differences(bits, bucket):
    weight, gradient = randn(6, 7, seed=bits), randn(6, 7, seed=9)
    simulated = DifferentiableQuantization(weight, bits, bucket)
    simulated(weight).backward(gradient)
    scale, offset = bucket_ranges(weight, bucket)
    at = nearest_points(weight, simulated.points, scale, offset, bucket).tolist()
    by_hand = [0.0] * len(simulated.points)
    for i, (j, g) in enumerate(zip(at, gradient.flatten().tolist(), strict=True)):
        by_hand[j] += scale[i // bucket].item() * g
    torch.testing.assert_close(simulated.points.grad, torch.tensor(by_hand), rtol=1e-4, atol=1e-5)

    def loss(points):  # the assignment does not move for small steps
        shown = at_points(points, torch.tensor(at), scale.double(), offset.double(), bucket)
        return (shown * gradient.flatten()).sum()

    points = simulated.points.detach().double()
    for j in range(len(points)):
        step = torch.zeros_like(points)
        step[j] = 1e-4
        slope = (loss(points + step) - loss(points - step)) / 2e-4
        assert slope.item() == pytest.approx(by_hand[j], rel=1e-4, abs=1e-4)


def test_weights_go_over_when_another_point_comes_nearer():
    weight = torch.tensor([0.0, 4.0, 10.0])
    simulated = DifferentiableQuantization(weight, 1, 3)
    simulated.points.data = torch.tensor([0.0, 1.0])
    assert simulated(weight).tolist() == [0.0, 0.0, 10.0]
    simulated.points.data = torch.tensor([1.0, 0.3])  # they have even changed places
    assert torch.allclose(simulated(weight), torch.tensor([3.0, 3.0, 10.0]))


def test_the_weights_behind_the_points_get_no_gradient():
    weight = randn(4, 5).requires_grad_()
    simulated = DifferentiableQuantization(weight, 2, 8)
    simulated(weight).sum().backward()
    assert weight.grad is None and simulated.points.grad is not None


def test_training_points_lowers_a_loss_that_uniform_ones_leave_high():
    """Weights at few odd places: points can go there, an even grid cannot."""
    places = torch.tensor([0.0, 0.25, 0.6, 1.0])
    weight = places[torch.randint(4, (64,), generator=torch.Generator().manual_seed(0))]
    simulated = DifferentiableQuantization(weight, 2, 64)
    simulated.points.data = uniform_points(2)
    optimizer = torch.optim.SGD(simulated.parameters(), lr=0.02)
    losses = []
    for _ in range(200):
        loss = (simulated(weight) - weight).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.05 and losses[-1] < 1e-3 * losses[0]


# ---- under a teacher ---------------------------------------------------------------------------------------


def test_without_soft_targets_it_is_quantization_aware_training(student, teacher, split):
    coded = quantized_distillation(
        student, teacher, split, bits=2, bucket=32, alpha=0.0, epochs=2, lr=0.003, seed=5, progress=False
    )
    prepared = prepare(student, lambda weight: BucketQuantize(2, 32))
    options = {"epochs": 2, "lr": 0.003, "optimizer": adamw, "loss": cross_entropy, "seed": 5}
    aware = convert(train(prepared, split, progress=False, **options))
    assert torch.equal(predict_logits(coded, split), predict_logits(aware, split))
    taught = quantized_distillation(
        student, teacher, split, bits=2, bucket=32, alpha=0.5, epochs=2, lr=0.003, seed=5, progress=False
    )
    assert not torch.equal(predict_logits(coded, split), predict_logits(taught, split))


def cross_entropy(model, x, y):
    return F.cross_entropy(model(x), y)


@pytest.mark.parametrize("method", [quantized_distillation, differentiable_quantization])
def test_training_helps_and_files_agree(method, student, teacher, split, tmp_path):
    taught = teacher_outputs(teacher, split)
    run = partial(method, student, taught, split, bits=2, bucket=64, seed=2, progress=False)
    state = copy.deepcopy(student.state_dict())
    before, after = run(epochs=0), run(epochs=6)
    assert divergence(after, taught.logits, split) < divergence(before, taught.logits, split)
    assert all(torch.equal(student.state_dict()[key], value) for key, value in state.items())
    assert {type(layer.coded) for layer in (after[1], after[3])} == {BucketCode}
    save(after, tmp_path / "net.safetensors", entropy=True)
    loaded = load(tmp_path / "net.safetensors", student)
    assert torch.equal(loaded(split.x()), after(split.x()))
    assert torch.equal(predict_logits(run(epochs=6), split), predict_logits(after, split))


def divergence(model, logits, split):
    ours = F.log_softmax(predict_logits(decompress(model), split) / 4, 1)
    return F.kl_div(ours, F.softmax(logits / 4, 1), reduction="batchmean").item()


def test_differentiable_quantization_leaves_the_assigned_weights_alone(student, teacher, split):
    """Only points and biases change: equal weights in a bucket stay equal, the order stays the order."""
    before, after = (
        differentiable_quantization(student, teacher, split, bits=3, epochs=e, progress=False) for e in (0, 2)
    )
    for name in ("1", "3"):
        one, two = (model.get_submodule(name).coded for model in (before, after))
        assert torch.equal(one.scale, two.scale) and torch.equal(one.offset, two.offset)
        assert not torch.equal(one.points, two.points)
        weight = student.get_submodule(name).weight
        expected = BucketCode.from_dense(weight, 3, points=two.points).decode()
        assert torch.equal(two.decode(), expected)


def test_the_whole_recipe(teacher, split):
    run = partial(compact_distil_quantize, partial(network_unseeded, 12), teacher, split, bits=4, bucket=64,
                  epochs=20, quantize_epochs=3, lr=0.01, progress=False)  # fmt: skip
    state = torch.get_rng_state()
    coded = run(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert storage_bits(coded) < storage_bits(teacher) / 8
    assert accuracy(decompress(coded), split) > 0.8
    assert torch.equal(predict_logits(coded, split), predict_logits(run(seed=4), split))
    assert not torch.equal(predict_logits(coded, split), predict_logits(run(seed=5), split))


def network_unseeded(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def test_skipped_layers_stay_in_floats(student, teacher, split):
    coded = quantized_distillation(student, teacher, split, epochs=0, skip=["1"], progress=False)
    assert list(named_layers(coded)) == ["1"] and torch.equal(coded[1].weight, student[1].weight)


# ---- bad input ---------------------------------------------------------------------------------------------


def test_codes_of_the_wrong_size():
    packed = torch.zeros(2, dtype=torch.uint8)  # 4 indices of 4 bits
    points, one = torch.zeros(16), torch.zeros(1)
    BucketCode(packed, points, one, one, (4,), 4, 4)
    with pytest.raises(ValueError, match=r"scale must have shape \(2,\), one per bucket, got \(1,\)"):
        BucketCode(packed, points, one, one, (4,), 4, 3)
    with pytest.raises(ValueError, match="points must have shape"):
        BucketCode(packed, torch.zeros(17), one, one, (4,), 4, 4)
    with pytest.raises(ValueError, match="points must have shape"):
        BucketCode(packed, torch.zeros(0), one, one, (4,), 4, 4)


@pytest.mark.parametrize("bad", [{"bits": 0}, {"bits": 9}, {"bucket": 0}])
def test_settings_out_of_range(bad, student, teacher, split):
    makers = DifferentiableQuantization, BucketCode.from_dense
    for make in (BucketQuantize, *(partial(maker, torch.ones(3)) for maker in makers)):
        with pytest.raises(ValueError, match="must be a whole number"):
            make(**bad)
    with pytest.raises(ValueError, match="in layer '1'"):
        quantized_distillation(student, teacher, split, epochs=1, **bad)


def test_losses_out_of_range(student, teacher, split):
    with pytest.raises(ValueError, match="alpha must be in"):
        quantized_distillation(student, teacher, split, epochs=1, alpha=1.5)
    with pytest.raises(ValueError, match="temperature must be positive"):
        differentiable_quantization(student, teacher, split, epochs=1, temperature=0.0)
    with pytest.raises(TypeError, match="make_student must return a network, got str"):
        compact_distil_quantize(lambda: "lenet5", teacher, split, epochs=1)


def test_weights_that_are_none():
    for bad in (torch.tensor([math.nan, 1.0]), torch.tensor([1, 2])):
        with pytest.raises((TypeError, ValueError)):
            DifferentiableQuantization(bad)
    with pytest.raises(ValueError, match="at least one entry, got none"):
        DifferentiableQuantization(torch.zeros(0))
