"""Removing channels: torchvision's networks, exact counts, budgets, and every error."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import compresslab  # noqa: F401  (before torchvision)

import torchvision
from compresslab.core.macs import count_macs
from compresslab.core.modules import apply_mask_
from compresslab.pruning.channel_budget import prune_channels_to_macs, prune_channels_to_parameters
from compresslab.pruning.channel_choice import choose_channels
from compresslab.pruning.channels import masked_twin, prune_channels, remove_channels
from compresslab.pruning.criteria import norm_importance, random_importance
from compresslab.pruning.graph import trace_channels

NETWORKS = """alexnet vgg16 vgg16_bn resnet18 resnet50 resnext50_32x4d densenet121 mobilenet_v2
    mobilenet_v3_large squeezenet1_1 efficientnet_b0 googlenet inception_v3 shufflenet_v2_x1_0
    mnasnet1_0 regnet_y_400mf convnext_tiny""".split()
OPTIONS = {name: {"init_weights": False} for name in ("googlenet", "inception_v3", "vgg16", "vgg16_bn")}
HEAVY = {"vgg16_bn", "alexnet", "inception_v3"}  # trained by half only, to save time
SIZES = {"inception_v3": 299, "vit_b_16": 224, "swin_t": 224}  # 64 for the others
WHOLE = {
    "shufflenet_v2_x1_0": 17,
    "convnext_tiny": 41,
    "vit_b_16": 14,
    "swin_t": 17,
    "googlenet": 3,
    "inception_v3": 2,
}


def count(model):
    return sum(p.numel() for p in model.parameters())


def build(name):
    """A torchvision network with random weights and random batch-norm statistics, in eval mode."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None, **OPTIONS.get(name, {}))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def example(name, n=2):
    size = SIZES.get(name, 64)
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def outputs(model, x):
    found = model(x)
    return [found] if isinstance(found, torch.Tensor) else [out for out in found if out is not None]


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision_network(name):
    """By 30 % and by half: pruned = masked, every group loses exactly its share, and a training step
    works."""
    model, x = build(name), example(name)
    graph = trace_channels(model, x)
    assert len(graph.frozen) == WHOLE.get(name, 1)
    for ratio in (0.5,) if name == "vgg16" else (0.3, 0.5):
        removed = choose_channels(graph, random_importance(model), ratio)
        for group in graph.groups:
            for layer, channels in group.producers.items():
                gone = len(set(channels.flatten().tolist()) & set(removed.get(layer, [])))
                assert gone == math.floor(ratio * len(group)) * channels.shape[1]
        small = remove_channels(model, graph, removed)
        with torch.no_grad():
            expected = masked_twin(model, graph, removed)(x)
            torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        if ratio == 0.3 and name in HEAVY:
            continue
        small.train()
        loss = sum(F.cross_entropy(out, torch.tensor([1, 2])) for out in outputs(small, x))
        loss.backward()
        assert math.isfinite(loss.item())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_transformers_lose_hidden_units_only(name):
    with torch.device("meta"):  # tracing needs no weights
        model = getattr(torchvision.models, name)(weights=None)
    graph = trace_channels(model, example(name, 1))
    assert all("mlp" in layer for group in graph.groups for layer in group.producers)
    assert len(graph.groups) == 12 and len(graph.frozen) == WHOLE[name]


def test_pruned_transformer_equals_masked():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5).double().eval()
    nn.init.normal_(model.heads.head.weight)
    x = torch.randn(2, 3, 32, 32).double()
    graph = trace_channels(model, x)
    removed = choose_channels(graph, random_importance(model), 0.5)
    small = remove_channels(model, graph, removed)
    assert small.encoder.layers[0].mlp[0].out_features == 12
    with torch.no_grad():
        torch.testing.assert_close(small(x), masked_twin(model, graph, removed)(x), rtol=1e-10, atol=1e-12)


def test_pruned_equals_masked_in_double_precision():
    for name in ("resnet18", "shufflenet_v2_x1_0"):
        model, x = build(name).double(), example(name).double()
        graph = trace_channels(model, x)
        removed = choose_channels(graph, random_importance(model), 0.5)
        with torch.no_grad():
            expected = masked_twin(model, graph, removed)(x)
            small = remove_channels(model, graph, removed)
            torch.testing.assert_close(small(x), expected, rtol=1e-10, atol=1e-12)
            assert not torch.allclose(expected, model(x), rtol=1e-2)  # something was removed


def test_pruned_equals_filter_and_batch_norm_zeroed():
    """Zeroing weight, bias, gamma and beta of a channel is a mask, too; zeroing the filter alone leaks
    the shift."""
    model = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).double().eval()
    )
    for tensor in model[1].state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 9, 9).double()
    small = prune_channels(model, x, 0.5)
    kept = model[0].weight.detach().abs().sum((1, 2, 3)).argsort()[4:]
    zeroed = copy.deepcopy(model)
    gone = [c for c in range(8) if c not in kept]
    with torch.no_grad():
        for tensor in (zeroed[0].weight, zeroed[0].bias):
            tensor[gone] = 0
        assert not torch.allclose(small(x), zeroed(x))
        for tensor in (zeroed[1].weight, zeroed[1].bias):
            tensor[gone] = 0
        torch.testing.assert_close(small(x), zeroed(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2", "googlenet"])
def test_parameter_counts_equal_torch_pruning(name):
    torch_pruning = pytest.importorskip("torch_pruning")
    model, x = build(name), example(name, 1)
    if (
        name == "googlenet"
    ):  # torch-pruning traces in eval mode: it would leave the auxiliary heads as they are
        model.aux1 = model.aux2 = None
        model.aux_logits = False
    small = prune_channels(model, x, 0.5, importance="random")
    heads = [m for m in model.modules() if getattr(m, "out_features", getattr(m, "out_channels", 0)) == 1000]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        x,
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=0.5,
        ignored_layers=heads,
    )
    pruner.step()
    assert count(small) == count(model)


def test_l1_choice_equals_torch_ln_structured():
    layer = nn.Conv2d(3, 10, 3)
    graph = trace_channels(nn.Sequential(layer, nn.Conv2d(10, 2, 1)), torch.zeros(1, 3, 5, 5))
    for ratio in (0.0, 0.3, 0.5, 0.9):
        removed = choose_channels(graph, {"0": norm_importance(layer)[""]}, ratio)
        pruned = prune.ln_structured(copy.deepcopy(layer), "weight", ratio, n=1, dim=0)
        assert removed.get("0", []) == (pruned.weight_mask.sum((1, 2, 3)) == 0).nonzero().flatten().tolist()


@pytest.fixture
def chain():
    """conv 3-10, conv 10-8, conv 8-2 with a residual pair in the middle."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 10, 1), nn.Conv2d(10, 8, 1), nn.Conv2d(8, 8, 1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.b(self.a(x).relu()).relu()
            return self.head(x + self.c(x))

    torch.manual_seed(3)
    return Net(), torch.randn(1, 3, 4, 4)


def test_counts_round_down_and_choices_are_nested(chain):
    model, x = chain
    graph, scores = trace_channels(model, x), norm_importance(model)
    before = set()
    for ratio in (0.0, 0.1, 0.29, 0.3, 0.5, 0.7, 0.99):
        removed = choose_channels(graph, scores, ratio)
        assert len(removed.get("a", [])) == math.floor(ratio * 10 + 1e-9)
        assert len(removed.get("b", [])) == math.floor(ratio * 8 + 1e-9)
        assert before <= set(removed.get("a", []))
        before = set(removed.get("a", []))


def test_strength_zero_is_the_identity_and_one_leaves_one_channel(chain):
    model, x = chain
    assert torch.equal(prune_channels(model, x, 0.0)(x), model(x))
    small = prune_channels(model, x, 1.0)
    assert (small.a.out_channels, small.b.out_channels, small.c.out_channels) == (1, 1, 1)
    assert prune_channels(model, x, 1.0, min_channels=3).a.out_channels == 3


def test_ties_fall_in_index_order(chain):
    model, x = chain
    removed = choose_channels(trace_channels(model, x), {"a": torch.ones(10)}, 0.3)
    assert removed == {"a": [0, 1, 2]}


def test_coupled_scores_are_added(chain):
    model, x = chain
    b, c = torch.arange(8.0), torch.tensor([9.0, 0, 0, 0, 0, 0, 0, 0])
    removed = choose_channels(trace_channels(model, x), {"b": b, "c": c}, 0.25)
    assert removed == {"b": [1, 2], "c": [1, 2]}


def test_ratio_per_layer(chain):
    model, x = chain
    small = prune_channels(model, x, {"a": 0.5})
    assert small.a.out_channels == 5 and small.b.out_channels == 8
    assert prune_channels(model, x, {"c": 0.5}).b.out_channels == 4  # coupled
    assert prune_channels(model, x, {"b": 0.5, "c": 0.5}).b.out_channels == 4


def test_global_ranking_removes_the_lowest_anywhere(chain):
    model, x = chain
    graph = trace_channels(model, x)
    scores = {"a": torch.arange(10.0), "b": torch.arange(10.0, 18.0), "c": torch.zeros(8)}
    assert choose_channels(graph, scores, 0.5, scope="global") == {
        "a": list(range(9))
    }  # the best of a is safe
    removed = choose_channels(graph, scores, 10 / 18, scope="global")
    assert removed == {"a": list(range(9)), "b": [0], "c": [0]}
    even = choose_channels(graph, scores, 0.5, scope="global", normalize=True)
    assert 0 < len(even.get("b", [])) < 9


def test_round_to_keeps_multiples(chain):
    model, x = chain
    small = prune_channels(model, x, 0.6, round_to=4)
    assert (small.a.out_channels, small.b.out_channels) == (4, 4)
    assert prune_channels(model, x, 0.5, round_to=4).a.out_channels == 8  # 5 would be asked for
    grouped = nn.Sequential(nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, groups=4), nn.Conv2d(24, 2, 1))
    small = prune_channels(grouped, torch.zeros(1, 3, 5, 5), 0.5, round_to=4)
    assert small[1].out_channels == 12 and small[1].groups == 2


def test_importance_by_name_by_function_and_by_scores(chain):
    model, x = chain
    by_name = prune_channels(model, x, 0.5, importance="l1")
    assert torch.equal(by_name.a.weight, prune_channels(model, x, 0.5, importance=norm_importance).a.weight)
    assert torch.equal(
        by_name.a.weight, prune_channels(model, x, 0.5, importance=norm_importance(model)).a.weight
    )
    with pytest.raises(
        ValueError, match="importance must be one of l1, l2, fpgm, bn_scale, random, .*, got 'L1'"
    ):
        prune_channels(model, x, importance="L1")


def test_input_is_not_changed_and_nothing_is_shared(chain):
    model, x = chain
    before = copy.deepcopy(model.state_dict())
    small = prune_channels(model, x, 0.5)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    again = copy.deepcopy(prune_channels(model, x, 0.5))
    assert again(x).shape == (1, 2, 4, 4)


def test_frozen_parameters_stay_frozen_and_masks_are_baked(chain):
    model, x = chain
    model.b.weight.requires_grad_(False)
    mask = torch.ones_like(model.a.weight, dtype=torch.bool)
    mask[:, 0] = False
    apply_mask_(model.a, mask)
    small = prune_channels(model, x, 0.5)
    assert not small.b.weight.requires_grad and small.c.weight.requires_grad
    assert isinstance(small.a.weight, nn.Parameter) and (small.a.weight[:, 0] == 0).all()


def test_layers_without_bias_and_without_affine():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False),
        nn.BatchNorm2d(6, affine=False, track_running_stats=False),
        nn.Conv2d(6, 2, 1),
    )
    small = prune_channels(model, torch.zeros(1, 3, 4, 4))
    assert small(torch.randn(2, 3, 4, 4)).shape == (2, 2, 4, 4) and small[1].num_features == 3


def test_explicit_indices(chain):
    model, x = chain
    graph = trace_channels(model, x)
    small = remove_channels(model, graph, {"b": [1, 7], "c": torch.tensor([1])})
    assert torch.equal(small.c.bias, model.c.bias[[0, 2, 3, 4, 5, 6]])
    assert torch.equal(small.head.weight, model.head.weight[:, [0, 2, 3, 4, 5, 6]])
    assert torch.equal(remove_channels(model, graph, {})(x), model(x))


@pytest.mark.parametrize(
    ("removed", "error", "message"),
    [
        ({"a": [10]}, ValueError, r"channel must be in 0\.\.9, got 10 in layer 'a'"),
        ({"a": [-1]}, ValueError, r"channel must be in 0\.\.9, got -1 in layer 'a'"),
        ({"a": [3, 4, 3]}, ValueError, "channel 3 is given twice in layer 'a'"),
        ({"a": [1.5]}, TypeError, "channel indices must be whole numbers, got 1.5 in layer 'a'"),
        ({"a": [True]}, TypeError, "channel indices must be whole numbers, got True in layer 'a'"),
        ({"a": range(10)}, ValueError, "layer 'a' would lose all its 10 channels; at least one must stay"),
        ({"b": range(4), "c": range(4, 8)}, ValueError, "layer 'b' would lose all its 8 channels"),
        ({"head": [0]}, ValueError, "channel 0 of layer 'head' cannot go: output of the network"),
        ({"z": [0]}, ValueError, "no such layer: 'z'; the layers are a, b, c, head"),
    ],
)
@pytest.mark.parametrize("function", [remove_channels, masked_twin])
def test_bad_indices(chain, function, removed, error, message):
    model, x = chain
    with pytest.raises(error, match=message):
        function(model, trace_channels(model, x), removed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 80}, r"ratio must be in \[0, 1\], got 80; did you mean 0.8\?"),
        ({"ratio": -0.1}, r"ratio must be in \[0, 1\], got -0.1"),
        ({"ratio": math.nan}, r"ratio must be in \[0, 1\], got nan"),
        ({"ratio": {"a": 50}}, r"ratio must be in \[0, 1\], got 50 in layer 'a'"),
        ({"ratio": {"z": 0.5}}, "ratio names no such layer: 'z'"),
        ({"ratio": {"head": 0.5}}, "layer 'head' cannot be pruned: output of the network"),
        (
            {"ratio": {"b": 0.5, "c": 0.2}},
            "coupled layers must have the same ratio, got {'b': 0.5, 'c': 0.2}",
        ),
        ({"scope": "network"}, "scope must be 'layer' or 'global', got 'network'"),
        ({"round_to": 0}, "round_to must be a whole number of at least 1, got 0"),
        ({"min_channels": 0}, "min_channels must be a whole number of at least 1, got 0"),
        ({"keep": ["a", "b", "c"]}, "nothing can be pruned: .*a: named in keep"),
        (
            {"importance": {"a": torch.ones(9)}},
            r"scores of layer 'a' must be one number per channel, got shape \(9,\)",
        ),
        ({"importance": {"a": torch.full((10,), math.nan)}}, "scores of layer 'a' must be numbers, got nan"),
    ],
)
def test_bad_choices(chain, options, message):
    with pytest.raises(ValueError, match=message):
        prune_channels(*chain, **options)


def test_graph_of_another_network(chain):
    model, x = chain
    graph = trace_channels(model, x)
    with pytest.raises(ValueError, match="the graph is of another network: it has a layer 'a' with 10"):
        remove_channels(prune_channels(model, x, 0.5), graph, {"a": [9]})


def test_budget_of_macs_is_met_and_just_so():
    model, x = build("resnet18"), example("resnet18", 1)
    dense = count_macs(model, x).total
    total = count_macs(prune_channels_to_macs(model, x, 0.5), x).total
    assert 0.47 * dense < total <= 0.5 * dense
    even = prune_channels_to_macs(model, x, 0.5, round_to=8)
    assert count_macs(even, x).total <= 0.5 * dense
    assert all(m.out_channels % 8 == 0 for m in even.modules() if isinstance(m, nn.Conv2d))


def test_predicted_cost_is_the_cost(chain):
    from compresslab.pruning.channel_budget import macs_left, parameters_left
    from compresslab.pruning.channels import units_gone

    for model, x in (chain, (build("shufflenet_v2_x1_0"), example("shufflenet_v2_x1_0", 1))):
        graph = trace_channels(model, x)
        removed = choose_channels(graph, random_importance(model), 0.37)
        small, stays = remove_channels(model, graph, removed), ~units_gone(graph, removed)
        assert parameters_left(model, graph, stays) == pytest.approx(count(small))
        assert macs_left(graph, count_macs(model, x).by_layer, stays) == pytest.approx(
            count_macs(small, x).total
        )


def test_budget_of_parameters(chain):
    model, x = chain
    small = prune_channels_to_parameters(model, x, 0.5)
    assert 0.3 * count(model) < count(small) <= 0.5 * count(model)
    assert count(prune_channels_to_parameters(model, x, 1.0)) == count(model)


def test_bad_budgets(chain):
    with pytest.raises(ValueError, match=r"macs_ratio must be in \[0, 1\], got 50; did you mean 0.5\?"):
        prune_channels_to_macs(*chain, 50)
    with pytest.raises(ValueError, match=r"parameter_ratio must be in \[0, 1\], got nan"):
        prune_channels_to_parameters(*chain, math.nan)
    with pytest.raises(
        ValueError, match=r"a ratio of 0.01 cannot be reached: the smallest possible is 0\.0\d+"
    ):
        prune_channels_to_macs(*chain, 0.01)
