"""Quantized activations: find a range for the input of each layer, then run the network with rounded inputs.

A weight's range can be read off the weight. An activation's can only be seen on data: ``calibrate`` runs a
few hundred images that are used for nothing else and returns a grid per layer, ``simulate_activations`` puts
the grids into the network.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, find_layers
from compresslab.core.errors import check_int, where
from compresslab.core.modules import named_layers
from compresslab.core.train import evaluating
from compresslab.core.uniform import FindRange, Grid, choose_scale, fake_quantize, min_max
from compresslab.quantization.fake import fake_quantize_ste
from compresslab.quantization.ranges import MovingAverage, entropy_range, mse_range, percentile_range

METHODS = ("min_max", "moving_average", "percentile", "mse", "entropy")


def calibrate(
    model: nn.Module,
    batches: Batches,
    *,
    layers: Collection[str] | None = None,
    bits: int = 8,
    symmetric: bool = False,
    method: str | FindRange = "min_max",
    max_samples: int = 10_000,
    seed: int = 0,
) -> dict[str, Grid]:
    """Choose a grid for what flows into each layer, from a few batches, in eval mode; the model stays.

    ``"min_max"`` and ``"moving_average"`` see every number. The other methods get a random sample of at most
    ``max_samples`` numbers of each layer and batch, so that memory stays bounded.

    Args:
        model: the network.
        batches: of the calibration split and no other: inputs (N, ...), or (inputs, targets) pairs.
        layers: names of the layers to calibrate; None: every Linear, Conv1d and Conv2d, grouped ones too.
        bits, symmetric: of the grids, as in ``choose_scale``; one grid per tensor.
        method: ``"min_max"``, ``"moving_average"``, ``"percentile"``, ``"mse"`` or ``"entropy"``, each with
            the defaults of ``quantization.ranges``; or a function from a sample (m,) to its range, such as
            ``partial(percentile_range, fraction=0.99)``.
        max_samples: at least 1.
        seed: of the draw of the samples.

    Returns:
        name -> grid whose ``scale`` and ``zero_point`` have shape (1,).

    Raises:
        TypeError, ValueError: an unknown method or layer name; ``bits`` or ``max_samples`` out of range; no
            batch; a layer that the model never runs; nan or inf in an activation (the message names the
            layer).

    Source:
        B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, section 3.1 (moving average); H. Wu et al., "Integer Quantization for Deep
        Learning Inference", 2020 (percentile and entropy).
    Differs: Jacob et al. average while training; here the network is trained already.

    Example:
        >>> grids = calibrate(nn.Sequential(nn.ReLU(), nn.Linear(2, 1)), [torch.tensor([[-3.0, 51.0]])])
        >>> grids["1"].scale, grids["1"].zero_point
        (tensor([0.2000]), tensor([0], dtype=torch.int32))
    """
    choose_scale(0.0, 0.0, bits, symmetric=symmetric)  # fires the checks of bits before the network runs
    check_int("max_samples", max_samples, 1)
    chosen = named_layers(model, only=layers)
    generator = torch.Generator().manual_seed(seed)
    seen = {name: _observer(method, bits, symmetric, max_samples, generator) for name in chosen}
    unseen = set(chosen) - _watch(model, chosen, batches, seen)
    if unseen:
        first = next(name for name in chosen if name in unseen)
        raise ValueError(f"no calibration data: nothing flowed{where(first)}")
    return {name: choose_scale(*o.range(), bits, symmetric=symmetric) for name, o in seen.items()}


@dataclass
class _Extremes:
    """The smallest and the largest number so far, (1,) each."""

    low: Tensor = torch.tensor([torch.inf])
    high: Tensor = torch.tensor([-torch.inf])

    def update(self, x: Tensor) -> None:
        low, high = min_max(x)
        self.low, self.high = torch.minimum(self.low.to(low), low), torch.maximum(self.high.to(high), high)

    def range(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high


@dataclass
class _Sample:
    """A random sample of every batch, whose range is found at the end."""

    find_range: FindRange
    size: int
    generator: torch.Generator
    parts: list[Tensor] = field(default_factory=list)

    def update(self, x: Tensor) -> None:
        if len(x) > self.size:
            x = x[torch.randint(len(x), (self.size,), generator=self.generator).to(x.device)]
        self.parts.append(x.clone())

    def range(self) -> tuple[Tensor, Tensor]:
        return self.find_range(torch.cat(self.parts))


Observer = _Extremes | _Sample | MovingAverage


def _observer(
    method: str | FindRange, bits: int, symmetric: bool, size: int, generator: torch.Generator
) -> Observer:
    """What watches one layer under a method."""
    from_sample = {
        "percentile": percentile_range,
        "mse": partial(mse_range, bits=bits, symmetric=symmetric),
        "entropy": partial(entropy_range, bits=bits),
    }
    if method == "min_max":
        return _Extremes()
    if method == "moving_average":
        return MovingAverage()
    if not callable(method) and method not in from_sample:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, or a function, got {method!r}")
    return _Sample(method if callable(method) else from_sample[method], size, generator)


def _watch(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Batches, seen: Mapping[str, Observer]
) -> set[str]:
    """Run the model over the batches, show each observer what flows into its layer; the layers that ran."""
    ran: set[str] = set()

    def see(name: str, x: Tensor) -> None:
        if not torch.isfinite(x).all():
            raise ValueError(f"an activation is nan or infinite{where(name)}")
        if x.numel():
            seen[name].update(x.detach().flatten())
            ran.add(name)

    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: see(name, args[0]))
        for name, layer in layers.items()
    ]
    empty = True
    try:
        with evaluating(model):
            for batch in batches:
                model(batch if isinstance(batch, Tensor) else batch[0])
                empty = False
    finally:
        for hook in hooks:
            hook.remove()
    if empty:
        raise ValueError("no calibration data: batches is empty")
    return ran


@dataclass(frozen=True)
class QuantizedInput:
    """A forward pre-hook that rounds a layer's input to a grid.

    Backward it is straight through, inside the range only: what saturated gets no gradient.

    Args:
        grid: of one scale.
    """

    grid: Grid

    def __call__(self, layer: nn.Module, args: tuple) -> tuple:
        x, *others = args
        scale, zero_point = self.grid.scale.to(x.device), self.grid.zero_point.to(x.device)
        grid = self.grid._replace(scale=scale, zero_point=zero_point)
        if not (x.requires_grad and torch.is_grad_enabled()):
            return fake_quantize(x, grid), *others
        return fake_quantize_ste(x, grid), *others


def simulate_activations(model: nn.Module, grids: Mapping[str, Grid]) -> nn.Module:
    r"""Copy of ``model`` in which the input of each named layer is rounded to its grid.

    .. math:: \hat x = S\,(\mathrm{clamp}(\mathrm{round}(x / S) + Z, q_{min}, q_{max}) - Z), \qquad
              \partial \hat x / \partial x = \mathbb 1[\,q_{min} \le \mathrm{round}(x / S) + Z \le q_{max}\,]

    The rounding is a hook on the layer: names, parameters and the size of the network stay as they are, and
    it can be trained and deep-copied. Steps that replace layers (``encode``, ``convert``, ``decompress``)
    drop the hook, so simulate after them.

    Args:
        model: the network; layers that have a grid already get the new one.
        grids: name -> grid of one scale, as :func:`calibrate` gives them; layers of any type.

    Raises:
        ValueError: a name that is no layer of the model, or a grid of more than one scale.

    Source:
        Jacob et al., CVPR 2018, section 3.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False))
        >>> _ = nn.init.ones_(model[0].weight)
        >>> rounded = simulate_activations(model, {"0": choose_scale(0.0, 3.0, bits=2)})
        >>> rounded(torch.tensor([[1.4], [7.0]])).tolist()
        [[1.0], [3.0]]
    """
    model = copy.deepcopy(model)
    modules = find_layers(model, grids)
    for name, grid in grids.items():
        if grid.scale.numel() != 1:
            raise ValueError(f"activations have one scale per tensor, got {grid.scale.numel()}{where(name)}")
        _remove_hooks_(modules[name])
        grid = grid._replace(scale=grid.scale.flatten(), zero_point=grid.zero_point.flatten())
        modules[name].register_forward_pre_hook(QuantizedInput(grid))
    return model


def restore_activations(model: nn.Module) -> nn.Module:
    """Copy of ``model`` without what :func:`simulate_activations` put into it."""
    model = copy.deepcopy(model)
    for module in model.modules():
        _remove_hooks_(module)
    return model


def _remove_hooks_(module: nn.Module) -> None:
    hooks = module._forward_pre_hooks  # a copy has no handles to its hooks, so they are found by their class
    for key in [key for key, hook in hooks.items() if isinstance(hook, QuantizedInput)]:
        del hooks[key]
