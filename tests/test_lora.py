"""LoRA: nothing changes at the start, only adapters train, merging changes nothing, files, every error."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.core.codes import UniformCode
from compresslab.core.layers import CodedLinear, encode
from compresslab.core.macs import count_macs
from compresslab.core.store import load, save
from compresslab.lowrank.lora import LoRALinear, add_lora, merge_lora, trainable_parameters


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    return nn.Sequential(nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 6, bias=False))


def stirred(model):
    """As after training: B is no longer zero."""
    for k, module in enumerate(module for module in model.modules() if isinstance(module, LoRALinear)):
        module.b.data.copy_(randn(*module.b.shape, seed=k))
    return model


class TestLoRALinear:
    @pytest.mark.parametrize("alpha, scale", [(None, 1.0), (6, 2.0), (1.5, 0.5)])
    def test_by_its_equation(self, alpha, scale):
        layer = nn.Linear(5, 4)
        adapted = stirred(LoRALinear(layer, 3, alpha))
        x = randn(2, 7, 5)
        expected = x @ (layer.weight + scale * adapted.b @ adapted.a).T + layer.bias
        torch.testing.assert_close(adapted(x), expected)
        torch.testing.assert_close(adapted.weight @ x[0, 0] + adapted.bias, expected[0, 0])
        assert torch.linalg.matrix_rank(adapted.weight - layer.weight) == 3

    def test_starts_as_the_layer_was(self):
        layer = nn.Linear(50, 40)
        adapted = LoRALinear(layer, 30, 7)
        x = randn(3, 50)
        assert torch.equal(adapted(x), layer(x)) and not adapted.b.any()
        assert adapted.a.var().item() == pytest.approx(1 / 50, rel=0.2)

    def test_gradients_go_to_a_and_b_only(self):
        adapted = stirred(LoRALinear(nn.Linear(5, 4), 2))
        adapted(randn(3, 5)).square().sum().backward()
        assert adapted.layer.weight.grad is None and adapted.layer.bias.grad is None
        assert adapted.a.grad.any() and adapted.b.grad.any()

    def test_a_quantized_weight_is_adapted_as_it_is(self):
        net = encode(nn.Sequential(nn.Linear(8, 4)), UniformCode.from_dense)
        adapted = stirred(add_lora(net, 2))
        x = randn(3, 8)
        weight = net[0].weight + adapted[0].b @ adapted[0].a
        torch.testing.assert_close(adapted(x), F.linear(x, weight, net[0].bias))
        assert isinstance(adapted[0].layer, CodedLinear) and type(merge_lora(adapted)[0]) is nn.Linear
        torch.testing.assert_close(merge_lora(adapted)(x), adapted(x))

    def test_macs_of_both_branches(self):
        adapted = add_lora(network(), 2)
        assert count_macs(adapted, (12,)).total == 12 * 10 + 10 * 6 + 2 * (12 + 10) + 2 * (10 + 6)

    def test_errors(self):
        layer = nn.Linear(5, 4)
        for rank in (0, 5):
            with pytest.raises(ValueError, match=f"rank must be a whole number from 1 to 4, got {rank}"):
                LoRALinear(layer, rank)
        with pytest.raises(TypeError, match="rank must be a whole number"):
            LoRALinear(layer, 0.5)
        for alpha in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="alpha must be a number above 0"):
                LoRALinear(layer, 2, alpha)
        with pytest.raises(TypeError, match="alpha must be a number above 0, got '8'"):
            LoRALinear(layer, 2, "8")
        with pytest.raises(TypeError, match="expected an nn.Linear or a CodedLinear, got Conv2d"):
            LoRALinear(nn.Conv2d(1, 1, 1), 1)
        with pytest.raises(ValueError, match=r"a must have shape \(2, 5\), got \(5, 2\)"):
            LoRALinear(layer, 2, a=torch.ones(5, 2))
        with pytest.raises(ValueError, match=r"b must have shape \(4, 2\), got \(2, 4\)"):
            LoRALinear(layer, 2, b=torch.ones(2, 4))


class TestSteps:
    def test_add_changes_no_output_and_freezes_the_rest(self):
        net = network().eval()
        adapted = add_lora(net, 2, alpha=4)
        x = randn(5, 12)
        assert torch.equal(adapted(x), net(x)) and not adapted[0].training
        assert [n for n, p in adapted.named_parameters() if p.requires_grad] == ["0.a", "0.b", "3.a", "3.b"]
        assert trainable_parameters(adapted) == 2 * (12 + 10) + 2 * (10 + 6)
        assert trainable_parameters(net) == 12 * 10 + 10 + 20 + 60  # the input is as it was

    def test_merge_changes_no_output_and_leaves_plain_layers(self):
        adapted = stirred(add_lora(network(), 2, alpha=3)).eval()
        merged = merge_lora(adapted)
        x = randn(5, 12)
        torch.testing.assert_close(merged(x), adapted(x))
        assert [type(layer) for layer in merged] == [type(layer) for layer in network()]
        assert all(p.requires_grad for p in merged.parameters()) and not merged[0].training
        assert isinstance(adapted[0], LoRALinear) and not adapted[0].layer.weight.requires_grad

    def test_training_moves_the_adapters_and_nothing_else(self):
        adapted = add_lora(network().eval(), 2)
        before = copy.deepcopy(adapted.state_dict())
        optimizer = torch.optim.AdamW(adapted.parameters(), lr=0.01, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            adapted(randn(5, 12)).square().sum().backward()
            optimizer.step()
        moved = {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == {"0.a", "0.b", "3.a", "3.b"}

    def test_only_some_layers_and_each_with_its_own_numbers(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
        adapted = add_lora(net, 2, only=["0", "2"])
        assert [type(layer) for layer in adapted] == [LoRALinear, nn.Linear, LoRALinear]
        assert not adapted[1].weight.requires_grad and not torch.equal(adapted[0].a, adapted[2].a)
        assert torch.equal(add_lora(net, 2, only=["2", "0"])[2].a, adapted[2].a)
        assert not torch.equal(add_lora(net, 2, seed=9)[0].a, adapted[0].a)

    def test_a_shared_layer_stays_shared(self):
        shared = nn.Linear(4, 4)
        adapted = stirred(add_lora(nn.Sequential(shared, nn.ReLU(), shared), 2))
        assert adapted[0] is adapted[2] and trainable_parameters(adapted) == 16
        merged = merge_lora(adapted)
        assert merged[0] is merged[2]

    def test_in_attention(self):
        """Its output projection is read by its weight, not called."""
        block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        adapted = add_lora(block, 2)
        x = randn(3, 5, 8)
        torch.testing.assert_close(adapted(x), block(x))
        stirred(adapted)
        assert not torch.allclose(adapted(x), block(x), atol=1e-3)
        torch.testing.assert_close(merge_lora(adapted)(x), adapted(x))

    def test_saved_and_loaded(self, tmp_path):
        adapted = stirred(add_lora(network(), 2, alpha=3)).eval()
        save(adapted, tmp_path / "net.safetensors")
        loaded = load(tmp_path / "net.safetensors", network()).eval()
        x = randn(5, 12)
        assert torch.equal(loaded(x), adapted(x)) and torch.equal(copy.deepcopy(adapted)(x), adapted(x))
        assert isinstance(loaded[0], LoRALinear) and loaded[0].alpha == 3
        assert not loaded[0].layer.weight.requires_grad and loaded[0].a.requires_grad

    def test_global_random_state_and_input_stay(self):
        net, state = network(), torch.get_rng_state()
        before = copy.deepcopy(net.state_dict())
        stirred(add_lora(net, 2))[0].layer.weight.data.zero_()
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())

    def test_errors(self):
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 6, got 7 in layer '3'"):
            add_lora(network(), 7)
        with pytest.raises(ValueError, match="alpha must be .* in layer '0'"):
            add_lora(network(), 2, alpha=0)
        with pytest.raises(ValueError, match="only names no such layer: '1'"):
            add_lora(network(), 2, only=["1"])
        with pytest.raises(ValueError, match="no linear layer to adapt"):
            add_lora(nn.Sequential(nn.ReLU()), 2)
        with pytest.raises(ValueError, match="has adapters already"):
            add_lora(add_lora(network(), 2), 2)
