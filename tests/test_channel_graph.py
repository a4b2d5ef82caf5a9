"""The channel graph: which channels hang together, in every way that networks connect them.

Each small network is also pruned by half in float64 and compared with its masked twin: if the graph
    missed a coupling,
shapes or values disagree.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compresslab  # noqa: F401
from compresslab.pruning.channel_choice import choose_channels
from compresslab.pruning.channels import masked_twin, remove_channels
from compresslab.pruning.criteria import random_importance
from compresslab.pruning.graph import trace_channels

IMAGE = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def randomize(model):
    """Random weights and batch-norm statistics, float64, eval mode."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data.normal_(0, 0.5, generator=generator)
            if name.endswith("running_var"):
                tensor.data.abs_().add_(0.5)
    return model.double().eval()


def prune_and_compare(model, x=IMAGE, ratio=0.5, **options):
    """Prune; the result must run, in train mode too, and equal the masked twin. Returns the graph and
    the network."""
    model = randomize(model)
    graph = trace_channels(model, x, **options)
    removed = choose_channels(graph, random_importance(model), ratio)
    small, twin = remove_channels(model, graph, removed), masked_twin(model, graph, removed)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(small(x), twin(x), rtol=1e-10, atol=1e-10)
    small.train()(x)
    return graph, small


class Forward(nn.Module):
    """A network from layers and a function of (self, x)."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def conv(inputs, outputs, kernel=1, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def partners(graph):
    """The layers that write together, as a set of sets."""
    return {frozenset(group.producers) for group in graph.groups}


def test_chain_with_batch_norm():
    graph, small = prune_and_compare(
        nn.Sequential(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6), nn.ReLU6(), conv(6, 10))
    )
    assert partners(graph) == {frozenset({"0"}), frozenset({"3"})}
    assert list(graph.groups[0].norms) == ["1"] and list(graph.groups[0].consumers) == ["3"]
    assert (small[0].out_channels, small[1].num_features, small[3].in_channels, small[3].out_channels) == (
        4,
        4,
        4,
        3,
    )
    assert graph.frozen == {"5": "output of the network"}


def test_residual_addition_couples_its_writers():
    def forward(net, x):
        x = F.relu(net.a(x))
        x = x + net.b(x)
        x += net.c(x)
        return net.head(x)

    graph, _ = prune_and_compare(
        Forward(forward, a=conv(3, 8), b=conv(8, 8, 3), c=conv(8, 8), head=conv(8, 2))
    )
    assert partners(graph) == {frozenset({"a", "b", "c"})}


def test_concatenation_keeps_its_parts_apart():
    def forward(net, x):
        x = torch.cat([net.a(x), net.b(x)], 1)
        return net.head(torch.cat([net.norm(x), F.relu(net.c(x))], dim=1))

    graph, small = prune_and_compare(
        Forward(forward, a=conv(3, 4), b=conv(3, 6), c=conv(10, 2), norm=nn.BatchNorm2d(10), head=conv(12, 5))
    )
    assert partners(graph) == {frozenset({"a"}), frozenset({"b"}), frozenset({"c"})}
    assert small.norm.num_features == 5 and small.head.in_channels == 6


def test_concatenation_along_positions_couples():
    def forward(net, x):
        return net.head(torch.cat([net.a(x), net.b(x)], 2).flatten(1))

    graph, _ = prune_and_compare(Forward(forward, a=conv(3, 4), b=conv(3, 4), head=nn.Linear(4 * 16 * 8, 2)))
    assert partners(graph) == {frozenset({"a", "b"})}


def test_chunk_couples_the_same_place_of_each_part():
    def forward(net, x):
        left, right = net.a(x).chunk(2, dim=1)
        return net.head(left * 2 + 1) + net.other(right)

    graph, small = prune_and_compare(Forward(forward, a=conv(3, 8), head=conv(4, 5), other=conv(4, 5)))
    assert graph.groups[0].producers["a"].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert small.a.out_channels == 4


def test_channel_shuffle():
    def forward(net, x):
        x = net.a(x)
        n, c, h, w = x.size()
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        return net.head(x)

    graph, small = prune_and_compare(Forward(forward, a=conv(3, 8), head=conv(8, 5)))
    assert graph.groups[0].producers["a"].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert small.head.in_channels == 4


def test_maxout_reduces_over_coupled_channels():
    def forward(net, x):
        n, c, h, w = net.a(x).shape
        return net.head(net.a(x).view(n, 2, c // 2, h, w).amax(1))

    graph, small = prune_and_compare(Forward(forward, a=conv(3, 8), head=conv(4, 5)))
    assert len(graph.groups[0]) == 4 and small.head.in_channels == 2


def test_split_with_written_sizes_is_left_whole():
    def forward(net, x):
        left, right = net.b(net.a(x)).split([3, 5], dim=1)
        return net.head(left) + net.other(right)

    graph, _ = prune_and_compare(
        Forward(forward, a=conv(3, 6), b=conv(6, 8), head=conv(3, 2), other=conv(5, 2))
    )
    assert partners(graph) == {frozenset({"a"})} and "fixed" in graph.frozen["b"]


def test_operands_by_keyword():
    def forward(net, x):
        x = torch.add(input=net.a(x), other=net.b(x))
        x = torch.cat(tensors=(F.relu(input=x), net.c(x)), dim=1)
        return net.head(torch.mean(input=x, dim=(2, 3), keepdim=True))

    graph, _ = prune_and_compare(Forward(forward, a=conv(3, 8), b=conv(3, 8), c=conv(8, 4), head=conv(12, 2)))
    assert partners(graph) == {frozenset({"a", "b"}), frozenset({"c"})}


def test_stack_couples_its_parts():
    def forward(net, x):
        return net.head(torch.stack([net.a(x), net.b(x)], 2).flatten(3).mean(3).amax(2))

    graph, _ = prune_and_compare(Forward(forward, a=conv(3, 8), b=conv(3, 8), head=nn.Linear(8, 2)))
    assert partners(graph) == {frozenset({"a", "b"})}


def test_gated_linear_unit():
    graph, small = prune_and_compare(nn.Sequential(conv(3, 8), nn.GLU(1), conv(4, 2)))
    assert len(graph.groups[0]) == 4 and small[2].in_channels == 2


def test_depthwise_convolution_follows_its_input():
    graph, small = prune_and_compare(
        nn.Sequential(conv(3, 8), conv(8, 8, 3, groups=8), nn.BatchNorm2d(8), conv(8, 4))
    )
    assert partners(graph) == {frozenset({"0", "1"})}
    assert small[1].groups == small[1].in_channels == small[1].out_channels == 4


def test_depthwise_convolution_with_multiplier():
    graph, small = prune_and_compare(nn.Sequential(conv(3, 4), conv(4, 12, 3, groups=4), conv(12, 4)))
    assert graph.groups[0].producers["1"].shape == (4, 3)
    assert (small[1].groups, small[1].in_channels, small[1].out_channels) == (2, 2, 6)


def test_grouped_convolution_loses_whole_groups():
    graph, small = prune_and_compare(nn.Sequential(conv(3, 8), conv(8, 12, 3, groups=4), conv(12, 5)))
    assert graph.groups[0].producers["0"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert (small[1].groups, small[1].in_channels, small[1].out_channels) == (2, 4, 6)
    assert small[1].weight.shape == (6, 2, 3, 3)


@pytest.mark.parametrize("flatten", [nn.Flatten(), None])
def test_flatten_gives_each_channel_a_block_of_columns(flatten):
    def forward(net, x):
        x = net.a(x)
        return net.head(net.flatten(x) if net.flatten else x.view(x.size(0), -1))

    graph, small = prune_and_compare(Forward(forward, a=conv(3, 4), head=nn.Linear(256, 5), flatten=flatten))
    assert graph.groups[0].consumers["head"][1].tolist() == list(range(64, 128))
    assert small.head.in_features == 128


def test_a_written_size_cannot_shrink():
    def forward(net, x):
        return net.head(net.b(net.a(x)).view(-1, 4 * 64))

    graph, _ = prune_and_compare(Forward(forward, a=conv(3, 6), b=conv(6, 4), head=nn.Linear(256, 5)))
    assert (
        partners(graph) == {frozenset({"a"})} and graph.frozen["b"] == "its channels can only go all together"
    )


def test_mean_and_permute():
    def forward(net, x):
        tokens = net.a(x).flatten(2).permute(0, 2, 1)  # (N, positions, C)
        return net.head(net.hidden(tokens).mean(1))

    graph, small = prune_and_compare(
        Forward(forward, a=conv(3, 8), hidden=nn.Linear(8, 6), head=nn.Linear(6, 5))
    )
    assert (small.a.out_channels, small.hidden.in_features, small.head.in_features) == (4, 4, 3)


def test_mean_over_channels_needs_them_all():
    def forward(net, x):
        x = net.b(net.a(x))
        return net.head(x.mean(1, keepdim=True))

    graph, _ = prune_and_compare(Forward(forward, a=conv(3, 6), b=conv(6, 4), head=conv(1, 2)))
    assert partners(graph) == {frozenset({"a"})} and "needs all channels" in graph.frozen["b"]


def test_shared_layer_is_pruned_once_for_all_calls():
    def forward(net, x):
        x = F.relu(net.a(x))
        x = F.relu(net.shared(x))
        return net.head(F.relu(net.norm(net.shared(x))))

    net = Forward(forward, a=conv(3, 8), shared=conv(8, 8, 3), norm=nn.BatchNorm2d(8), head=conv(8, 2))
    graph, small = prune_and_compare(net)
    assert partners(graph) == {frozenset({"a", "shared"})}
    assert small.shared.weight.shape == (4, 4, 3, 3)


def test_module_with_two_names_stays_shared():
    layer = conv(8, 8)
    _, small = prune_and_compare(nn.Sequential(conv(3, 8), layer, nn.ReLU(), layer, conv(8, 2)))
    assert small[1] is small[3]


def test_tied_weights_are_left_whole():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    graph, _ = prune_and_compare(
        nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 6), first, second, nn.Linear(6, 2)),
        torch.randn(2, 3).double(),
    )
    assert partners(graph) == {frozenset({"0"})}
    assert "shares a weight" in graph.frozen["2"] and "shares a weight" in graph.frozen["1"]


def test_squeeze_and_excitation():
    def forward(net, x):
        x = net.a(x)
        scale = torch.sigmoid(net.up(F.relu(net.down(F.adaptive_avg_pool2d(x, 1)))))
        return net.head(scale * x)

    graph, _ = prune_and_compare(
        Forward(forward, a=conv(3, 8), down=conv(8, 4), up=conv(4, 8), head=conv(8, 2))
    )
    assert partners(graph) == {frozenset({"a", "up"}), frozenset({"down"})}


def test_spatial_gate_serves_all_channels():
    def forward(net, x):
        x = net.a(x)
        return net.head(x * torch.sigmoid(net.gate(x)))

    graph, small = prune_and_compare(Forward(forward, a=conv(3, 8), gate=conv(8, 1), head=conv(8, 2)))
    assert partners(graph) == {frozenset({"a"})} and small.gate.out_channels == 1


def test_auxiliary_head_is_traced_though_it_only_trains():
    def forward(net, x):
        x = net.a(x)
        return (net.head(x), net.auxiliary(x)) if net.training else net.head(x)

    graph, small = prune_and_compare(Forward(forward, a=conv(3, 8), head=conv(8, 2), auxiliary=conv(8, 2)))
    assert small.auxiliary.in_channels == 4
    assert set(graph.frozen) == {"head", "auxiliary"}


def test_shortcut_padded_with_zero_channels():
    def forward(net, x):
        x = net.a(x)
        return net.head(net.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))

    graph, small = prune_and_compare(
        Forward(forward, a=conv(3, 4), b=conv(4, 8, 3, stride=2), head=conv(8, 2))
    )
    assert graph.groups[0].producers["b"].flatten().tolist() == [2, 3, 4, 5]
    assert small.b.out_channels == 6 and "4 of 8 channels" in graph.frozen["b"]


def test_one_dimensional_and_transposed_convolutions():
    net = nn.Sequential(
        nn.Conv1d(3, 8, 3),
        nn.BatchNorm1d(8),
        nn.MaxPool1d(2),
        nn.ConvTranspose1d(8, 6, 2),
        nn.Conv1d(6, 2, 1),
    )
    _, small = prune_and_compare(net, torch.randn(2, 3, 20, dtype=torch.float64))
    assert small[3].weight.shape == (4, 3, 2)
    net = nn.Sequential(
        conv(3, 8), nn.ConvTranspose2d(8, 4, 2, groups=2), nn.Upsample(scale_factor=2), conv(4, 2)
    )
    _, small = prune_and_compare(net)
    assert small[1].weight.shape == (4, 2, 2, 2) and small[1].groups == 1


def test_other_layers_with_parameters_per_channel():
    net = nn.Sequential(
        conv(3, 8), nn.GroupNorm(4, 8), nn.PReLU(8), conv(8, 4), nn.InstanceNorm2d(4, affine=True), conv(4, 2)
    )
    graph, small = prune_and_compare(net)
    assert (small[1].num_groups, small[1].num_channels, small[2].num_parameters) == (2, 4, 4)
    assert len(graph.groups[0]) == 4  # the groups of the norm


def test_layer_norm_needs_all_channels():
    net = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 4))
    graph, _ = prune_and_compare(net, torch.randn(2, 5, 3, dtype=torch.float64))
    assert partners(graph) == {frozenset({"2"})} and "LayerNorm" in graph.frozen["0"]


def test_constant_tensor_has_a_fixed_size():
    def forward(net, x):
        return net.head(net.b(net.a(x)) * net.scale)

    net = Forward(forward, a=conv(3, 6), b=conv(6, 4), head=conv(4, 2))
    net.scale = nn.Parameter(torch.ones(4, 1, 1))
    graph, _ = prune_and_compare(net)
    assert partners(graph) == {frozenset({"a"})} and "constant tensor" in graph.frozen["b"]


@pytest.mark.parametrize("name", ["LeNet300", "LeNet5", "VGGLike", "ResNet", "MobileNetLike"])
def test_course_models(name):
    import compresslab.models

    model = getattr(compresslab.models, name)()
    x = torch.randn(2, *((1, 28, 28) if name.startswith("LeNet") else (3, 32, 32)), dtype=torch.float64)
    graph, _ = prune_and_compare(model, x)
    assert list(graph.frozen.values()) == ["output of the network"]


def test_keep_leaves_the_channels_of_a_layer():
    net = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), conv(6, 2))
    graph, small = prune_and_compare(net, keep=["0"])
    assert small[0].out_channels == 8 and small[2].out_channels == 3
    assert graph.frozen["0"] == "named in keep"


@pytest.mark.parametrize("kept", ["1", "2", "relu"])
def test_keep_of_a_norm_an_activation_a_function(kept):
    layers = {"0": conv(3, 8), "1": nn.BatchNorm2d(8), "2": nn.Tanh(), "3": conv(8, 6), "4": conv(6, 2)}

    def forward(net, x):
        for name in "01234":
            x = getattr(net, name)(F.relu(x) if name == "3" else x)
        return x

    graph, _ = prune_and_compare(Forward(forward, **layers), keep=[kept])
    assert partners(graph) == {frozenset({"3"})}


class Undecided(nn.Module):
    """Cannot be traced: what it does depends on values."""

    def __init__(self):
        super().__init__()
        self.layer = conv(8, 8)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_untraceable_module_is_named_and_keep_helps():
    net = nn.Sequential(conv(3, 6), conv(6, 8), Undecided(), conv(8, 6), conv(6, 2))
    with pytest.raises(ValueError, match=r"cannot be traced in '2': .*pass keep=\('2',\)"):
        trace_channels(net, IMAGE)
    graph, _ = prune_and_compare(net, keep=["2"])
    assert partners(graph) == {frozenset({"0"}), frozenset({"3"})}


class Opaque(nn.Module):
    """Traceable only as a whole."""

    def forward(self, x):
        return x.sort(dim=1).values if isinstance(x, torch.Tensor) else 1 / 0


def test_module_named_in_keep_is_not_looked_into():
    net = nn.Sequential(conv(3, 6), conv(6, 8), Opaque(), conv(8, 6), conv(6, 2))
    with pytest.raises(ValueError, match="cannot be traced in '2'"):
        trace_channels(net, IMAGE)
    graph, _ = prune_and_compare(net, keep=["2"])
    assert partners(graph) == {frozenset({"0"}), frozenset({"3"})}
    assert "Opaque" in graph.frozen["1"]


def test_unknown_function_is_named_and_keep_helps():
    net = Forward(
        lambda net, x: net.head(torch.sort(net.b(net.a(x)), 1)[0]),
        a=conv(3, 6),
        b=conv(6, 4),
        head=conv(4, 2),
    )
    with pytest.raises(ValueError, match=r"channels pass through the function 'sort' .*keep=\('sort',\)"):
        trace_channels(net, IMAGE)
    graph, _ = prune_and_compare(net, keep=["sort"])
    assert partners(graph) == {frozenset({"a"})}


def test_unknown_layer_is_named():
    net = nn.Sequential(conv(3, 8), nn.PixelShuffle(2), conv(2, 2))
    with pytest.raises(ValueError, match=r"the layer '1' of type PixelShuffle; pass keep=\('1',\)"):
        trace_channels(net, IMAGE)


def test_subclass_of_a_layer():
    """Without a forward of its own it is its parent; with one, nobody knows what it does with its weight."""

    class Named(nn.Conv2d):
        pass

    class Standardized(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)

    net = nn.Sequential(Named(3, 8, 1), Named(8, 6, 1), Standardized(6, 8, 1), conv(8, 6), conv(6, 2))
    for keep in ((), ("2",)):
        graph, _ = prune_and_compare(net, keep=keep)
        assert partners(graph) == {frozenset({"0"}), frozenset({"3"})}
        assert "1" in graph.frozen


def test_recurrent_and_transformer_layers_are_left_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.inner = nn.Linear(3, 8), nn.Linear(8, 8)
            self.lstm = nn.LSTM(8, 6, batch_first=True)
            self.encoder = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
            self.hidden, self.head = nn.Linear(6, 10), nn.Linear(10, 2)

        def forward(self, x):
            x, _ = self.lstm(self.inner(self.before(x).relu()))
            return self.head(self.hidden(self.encoder(x)).relu()[:, -1])

    graph, _ = prune_and_compare(Net(), torch.randn(2, 5, 3, dtype=torch.float64))
    assert partners(graph) == {frozenset({"before"}), frozenset({"hidden"})}
    assert "LSTM" in graph.frozen["inner"]


def test_unbind_counts_channels():
    def forward(net, x):
        first, second = net.b(net.a(x)).unbind(1)
        return net.head(torch.stack([first, second], 1))

    graph, _ = prune_and_compare(Forward(forward, a=conv(3, 6), b=conv(6, 2), head=conv(2, 2)))
    assert partners(graph) == {frozenset({"a"})} and "unbind" in graph.frozen["b"]


def test_bad_arguments():
    net = nn.Sequential(conv(3, 8), conv(8, 2))
    with pytest.raises(ValueError, match=r"keep must be a collection of names, got the string '0'"):
        trace_channels(net, IMAGE, keep="0")
    with pytest.raises(ValueError, match="keep names 'layer9', no module and no function of Sequential"):
        trace_channels(net, IMAGE, keep=["layer9"])
    with pytest.raises(
        ValueError, match=r"Sequential.* does not run on an example of shape \(2, 5, 8, 8\): "
    ):
        trace_channels(net, torch.zeros(2, 5, 8, 8))


def test_tracing_leaves_the_network_as_it_was():
    net = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.Dropout(), conv(8, 2)).train()
    net[1].eval()
    before = copy.deepcopy(net.state_dict())
    trace_channels(net, IMAGE.float())
    assert [module.training for module in net.modules()] == [True, True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_printing():
    text = str(trace_channels(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(8, 2)), IMAGE))
    assert text == (
        "group 0: 8 units | written by 0 | normalized by 1\n    read by 2\nwhole: 2 (output of the network)"
    )
