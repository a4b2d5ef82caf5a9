"""A whole network in integers: quantize the input, compute with integers alone, dequantize the output.

The network is folded, traced, and run on calibration data to learn the range of every activation. From then
on each activation has a grid, each layer the constants of :mod:`compresslab.quantization.integer`, and
nothing between input and output is a real number.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from compresslab.core.calibrate import Batches
from compresslab.core.errors import check_int
from compresslab.core.layers import decompress
from compresslab.core.modules import bake
from compresslab.core.uniform import FindRange, Grid, choose_scale, dequantize, min_max, quantize, to_rows
from compresslab.quantization.folding import fold_batch_norm
from compresslab.quantization.graph import Add, SpatialMean, as_layer, trace
from compresslab.quantization.integer import (
    LARGEST_BIAS,
    AddConstants,
    Rescale,
    integer_add,
    integer_average_pool,
    integer_bias,
    integer_conv2d,
    integer_linear,
    make_add,
    make_rescale,
)

SUPPORTED = "Linear, Conv2d, ReLU, ReLU6, sums, average and max pooling, means over space, flatten"
MEANS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, SpatialMean)
RELUS = (nn.ReLU, nn.ReLU6)
MOVES = (nn.MaxPool2d, nn.Flatten)  # torch runs them on integers as they are; the grid stays

CHUNK = 64  # inputs at a time: 64-bit products are wide, and caches are not


class IntegerLayer(nn.Module):
    """``nn.Linear`` or ``nn.Conv2d``: an int8 weight, an int32 bias, and the factor to its output's grid.

    ``weight_scale`` (O,) is not computed with: it says what the integers of the weight stand for.
    """

    def __init__(
        self,
        weight: Tensor,
        weight_scale: Tensor,
        bias: Tensor,
        rescale: Rescale,
        options: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.options = options  # of the convolution; None for a linear layer
        self.weight_scale = weight_scale
        self.bounds = rescale[2:]
        for name, array in (("weight", weight), ("bias", bias), ("M0", rescale.M0), ("shift", rescale.shift)):
            self.register_buffer(name, array.to(torch.int8) if name == "shift" else array)

    def forward(self, x: Tensor) -> Tensor:
        rescale = Rescale(self.M0, self.shift, *self.bounds)
        if self.options is None:
            return integer_linear(x, self.weight, self.bias, rescale)
        return integer_conv2d(x, self.weight, self.bias, rescale, **self.options)


class IntegerAdd(nn.Module):
    """The sum of two activations on their grids."""

    def __init__(self, constants: AddConstants):
        super().__init__()
        self.constants = constants

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return integer_add(x, y, self.constants)


class IntegerMean(nn.Module):
    """Average pooling; ``flat`` drops height and width of 1. ``whole``: the window is the whole image."""

    def __init__(self, rescale: Rescale, flat: bool, whole: bool, **options: Any):
        super().__init__()
        self.rescale, self.flat, self.whole, self.options = rescale, flat, whole, options

    def forward(self, x: Tensor) -> Tensor:
        y = integer_average_pool(x, rescale=self.rescale, **self.options)
        return y.flatten(1) if self.flat else y


class Clamp(nn.Module):
    """A ReLU that could not be fused: a comparison with the zero point."""

    def __init__(self, low: int, high: int):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class IntegerNetwork(nn.Module):
    """A network that computes with integers; made by :func:`integer_network`.

    Args:
        steps: (name, layer, names of its inputs), in the order of execution; the last gives the output.
        grids: name -> grid of that value. The first is the input's.

    Attributes:
        grids: as given, for reading the integers of :meth:`tensors` as real numbers.
    """

    def __init__(self, steps: list[tuple[str, nn.Module, tuple[str, ...]]], grids: dict[str, Grid]):
        super().__init__()
        self.grids = grids
        self.plan = [(name, inputs) for name, _, inputs in steps]
        self.layers = nn.ModuleList(layer for _, layer, _ in steps)

    def forward(self, x: Tensor) -> Tensor:
        """Real inputs to real outputs (N, ...), with integers between."""
        return torch.cat([self._outputs(part) for part in x.split(CHUNK)])

    def _outputs(self, x: Tensor) -> Tensor:
        for name, q in self._run(x):
            pass
        return dequantize(q.int(), self.grids[name])

    def tensors(self, x: Tensor) -> dict[str, Tensor]:
        """The integers of every activation, by name, the quantized input first and the output last.

        ``dequantize(tensors[name].int(), network.grids[name])`` reads one as real numbers.
        """
        return dict(self._run(x))

    def _run(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        first, *_ = self.grids
        values = {first: _cast(quantize(x, self.grids[first]))}
        yield first, values[first]
        for (name, inputs), layer in zip(self.plan, self.layers, strict=True):
            values[name] = layer(*(values[i] for i in inputs))
            yield name, values[name]


@torch.no_grad()
def integer_network(
    model: nn.Module, batches: Batches, *, bits: int = 8, find_range: FindRange = min_max
) -> IntegerNetwork:
    """Build the integer network that does what ``model`` does in eval mode.

    Weights are symmetric with a scale per output channel, activations affine with one scale per tensor. Batch
    norm is folded; a ReLU that alone follows a layer or a sum becomes its lower bound; coded, masked and fake
    quantized weights are taken for what they decode to.

    Args:
        model: a network that ``torch.fx`` can trace, on the CPU; not changed.
        batches: calibration inputs (N, ...), or (inputs, targets) pairs. From the training images, never the
            test images.
        bits: of weights and activations, 2 to 8.
        find_range: the range of an activation in one batch, (1, n) -> low (1, 1), high (1, 1); over batches,
            the lowest and the highest count.

    Raises:
        ValueError: the network cannot be traced; an operation that has no integer form here, by its name; a
            batch norm with no layer to fold it into; no calibration data; an activation that is nan or inf.

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", CVPR 2018, sections 2 and 3.
    Differs: one scale per channel for weights, where the paper has one per tensor.

    Example:
        >>> network = integer_network(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), [torch.randn(8, 2)])
        >>> {name: q.dtype for name, q in network.tensors(torch.randn(3, 2)).items()}
        {'input_1': torch.uint8, '_1': torch.uint8}
    """
    check_int("bits", bits, 2, 8)
    model = fold_batch_norm(bake(decompress(model))).eval()
    graph = trace(model)
    layers = _layers(model, graph)
    ranges, shapes = _observe(model, graph, batches, find_range)
    return _Builder(layers, ranges, shapes, bits).build(graph)


def _layers(model: nn.Module, graph: fx.Graph) -> dict[fx.Node, nn.Module]:
    """The layer of every node that computes, in order; nodes that do nothing are taken out of the graph."""
    layers: dict[fx.Node, nn.Module] = {}
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:  # nobody asks for its value
            graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op in ("placeholder", "output"):
            continue
        layer = as_layer(model, node)
        if isinstance(layer, nn.Identity):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
        else:
            _check_supported(node, layer)
            layers[node] = layer
    inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
    outputs = next(node for node in graph.nodes if node.op == "output").args[0]
    if len(inputs) != 1 or not isinstance(outputs, fx.Node):
        raise ValueError("an integer network has one input and one output tensor")
    return layers


def _check_supported(node: fx.Node, layer: nn.Module | None) -> None:
    """Raise unless there is an integer form of the layer, with its settings."""
    name = f"'{node.target if isinstance(node.target, str) else node.name}'"
    name += f" ({type(layer).__name__})" if layer is not None else ""
    if type(layer) not in (nn.Linear, nn.Conv2d, Add, *RELUS, *MEANS, *MOVES):
        raise ValueError(f"{name} has no integer form here; supported: {SUPPORTED}")
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        got = f"{layer.padding_mode} {layer.padding}"
        raise ValueError(f"{name}: padding must be a number of zeros, got {got}")
    if isinstance(layer, nn.AvgPool2d):
        counts_all = layer.count_include_pad or layer.padding in (0, (0, 0))
        if layer.ceil_mode or layer.divisor_override is not None or not counts_all:
            raise ValueError(f"{name}: only means over whole windows that count padding have an integer form")
    if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
        raise ValueError(f"{name}: max pooling that returns indices has no integer form here")


class _Observer(fx.Interpreter):
    """Runs the graph and writes down the range and the shape of every value."""

    def __init__(self, model: nn.Module, graph: fx.Graph, find_range: FindRange):
        super().__init__(model, graph=graph)
        self.extra_traceback = False
        self.find_range = find_range
        self.ranges: dict[fx.Node, tuple[Tensor, Tensor]] = {}
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output" and value.numel():
            if not torch.isfinite(value).all():
                raise ValueError(f"activation '{n.name}' must be finite, got nan or inf while calibrating")
            low, high = (bound.reshape(()) for bound in self.find_range(value.reshape(1, -1).float()))
            if n in self.ranges:
                low, high = torch.minimum(low, self.ranges[n][0]), torch.maximum(high, self.ranges[n][1])
            self.ranges[n], self.shapes[n] = (low, high), value.shape
        return value


def _observe(
    model: nn.Module, graph: fx.Graph, batches: Batches, find_range: FindRange
) -> tuple[dict[fx.Node, tuple[Tensor, Tensor]], dict[fx.Node, torch.Size]]:
    observer = _Observer(model, graph, find_range)
    for batch in batches:
        observer.run(batch if isinstance(batch, Tensor) else batch[0])
    if not observer.ranges:
        raise ValueError("no calibration data: batches is empty")
    return observer.ranges, observer.shapes


class _Builder:
    """Turns the nodes of a graph into steps, one after the other."""

    def __init__(self, layers: dict, ranges: dict, shapes: dict, bits: int):
        self.layers, self.ranges, self.shapes, self.bits = layers, ranges, shapes, bits
        self.grids: dict[fx.Node, Grid] = {}
        self.steps: list[tuple[str, nn.Module, tuple[str, ...]]] = []

    def build(self, graph: fx.Graph) -> IntegerNetwork:
        grids: dict[str, Grid] = {}
        for node in graph.nodes:
            if node.op == "placeholder" and node.users:
                grids[node.name] = self._grid(node)
            elif node in self.layers and node not in self.grids:  # not fused into the node before
                last = self._add_step(node)
                grids[last.name] = self.grids[last]
        return IntegerNetwork(self.steps, grids)

    def _grid(self, node: fx.Node) -> Grid:
        self.grids[node] = choose_scale(*self.ranges[node], self.bits)
        return self.grids[node]

    def _add_step(self, node: fx.Node) -> fx.Node:
        """Append the step of a node, with the ReLU after it if they can be one; return the last node done."""
        layer, before = self.layers[node], node.all_input_nodes[0]
        inputs = tuple(x.name for x in node.args if isinstance(x, fx.Node)) or (before.name,)
        last, low, high = node, None, None
        if isinstance(layer, RELUS):
            self.grids[node] = self.grids[before]
            step = Clamp(*self._relu_bounds(layer, self.grids[node]))
        elif isinstance(layer, MOVES):
            self.grids[node], step = self.grids[before], layer
        else:
            follower = next(iter(node.users))
            if len(node.users) == 1 and isinstance(self.layers.get(follower), RELUS):
                last = follower
            self.grids[node] = grid = self._grid(last)
            if last is not node:
                low, high = self._relu_bounds(self.layers[last], grid)
            step = self._compute(node, layer, grid, low, high)
        self.steps.append((last.name, step, inputs))
        return last

    @staticmethod
    def _relu_bounds(layer: nn.Module, grid: Grid) -> tuple[int, int]:
        six = int(quantize(torch.tensor(6.0), grid)) if isinstance(layer, nn.ReLU6) else grid.qmax
        return int(grid.zero_point), six

    def _compute(
        self, node: fx.Node, layer: nn.Module, grid: Grid, low: int | None, high: int | None
    ) -> nn.Module:
        """The step of a node that computes new numbers, on the grid of its output."""
        first = node.all_input_nodes[0]
        if isinstance(layer, Add):
            return IntegerAdd(make_add(*(self.grids[summand] for summand in node.args), grid, low, high))
        if isinstance(layer, MEANS):
            options = _window(node, layer, self.shapes[first])
            kh, kw = options["kernel"]
            rescale = make_rescale(self.grids[first].scale.double() / (kh * kw), grid, low, high)
            flat = isinstance(layer, SpatialMean) and not layer.keepdim
            whole = tuple(options["kernel"]) == tuple(self.shapes[first][2:]) and not options.get("padding")
            return IntegerMean(rescale, flat, whole, zero_point=int(self.grids[first].zero_point), **options)
        try:
            return _weighted(layer, self.grids[first], grid, low, high, self.bits)
        except ValueError as error:
            raise ValueError(f"{error} in layer '{node.target}'") from error


def _weighted(
    layer: nn.Linear | nn.Conv2d, before: Grid, after: Grid, low: int | None, high: int | None, bits: int
) -> IntegerLayer:
    """Quantize the weight and bias of a layer whose inputs and outputs have these grids."""
    rows = to_rows(layer.weight.detach().float(), axis=0)
    grid = choose_scale(*min_max(rows), bits, symmetric=True)
    scale = before.scale.double() * grid.scale.double().flatten()  # S1 S2
    if layer.bias is not None:  # a channel of next to no weight: let its bias fit into 32 bits
        scale = torch.maximum(scale, layer.bias.detach().double().abs() / LARGEST_BIAS)
    step = (scale / before.scale.double()).unsqueeze(1)
    q = torch.round(rows.double() / step).clamp(grid.qmin, grid.qmax)
    weight = q.to(torch.int8).view(layer.weight.shape)
    zero_point = int(before.zero_point)
    bias = integer_bias(weight, layer.bias, scale, zero_point)
    options = None
    if isinstance(layer, nn.Conv2d):
        settings = ("stride", "padding", "dilation", "groups")
        options = {"zero_point": zero_point, **{name: getattr(layer, name) for name in settings}}
    return IntegerLayer(weight, step.squeeze(1), bias, make_rescale(scale, after, low, high), options)


def _window(node: fx.Node, layer: nn.Module, shape: torch.Size) -> dict[str, Any]:
    """Kernel, stride and padding of a mean over an input of this shape."""
    if isinstance(layer, nn.AvgPool2d):
        kernel, stride = _pair(layer.kernel_size), _pair(layer.stride)
        return {"kernel": kernel, "stride": stride, "padding": layer.padding}
    size = _pair(layer.output_size) if isinstance(layer, nn.AdaptiveAvgPool2d) else (1, 1)
    kernel = tuple(whole // (part or whole) for whole, part in zip(shape[2:], size, strict=True))
    if any(part and whole % part for whole, part in zip(shape[2:], size, strict=True)):
        inputs = tuple(shape[2:])
        raise ValueError(f"'{node.name}': the output size {size} does not divide the input's {inputs}")
    return {"kernel": kernel}


def _pair(value: int | tuple) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _cast(q: Tensor) -> Tensor:
    """int32 integers of an affine grid of at most 8 bits as uint8."""
    return q.to(torch.uint8)
