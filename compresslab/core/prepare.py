"""From training to storage: show a weight as its code will give it back, train it so, then store the code.

``prepare`` puts a ``Simulated`` parametrization on the weights; training then moves the latent weights while
the network computes with the simulated ones. ``convert`` stores the codes. Both ask the same object, so the
simulated and the stored weights are equal bit for bit.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.codes import WeightCode
from compresslab.core.errors import naming, where
from compresslab.core.layers import encode
from compresslab.core.modules import map_layers, named_layers, register_


class Simulated(nn.Module):
    """A parametrization that shows a weight as it will be after it is stored.

    A subclass gives ``to_code``, how the latent weight is stored, and ``forward``, the same values with a
    gradient that training can use (``straight_through``, or a rule of its own).
    """

    def forward(self, weight: Tensor) -> Tensor:
        """The values of ``self.to_code(weight).decode()``, bit for bit, differentiable."""
        return straight_through(weight, self.to_code(weight.detach()).decode())

    def to_code(self, weight: Tensor) -> WeightCode:
        """The code of a latent weight."""
        raise NotImplementedError


def straight_through(x: Tensor, value: Tensor, passes: Tensor | None = None) -> Tensor:
    r"""``value`` going forward; going backward, the gradient of ``x``: 1, or ``passes`` where that is given.

    The straight-through estimator: a staircase is flat almost everywhere, so its own gradient teaches
    nothing.

    Args:
        x: what is trained.
        value: what the network sees, the shape of ``x``; gradients do not flow into it.
        passes: factor of the gradient, broadcastable: False or 0 where none should reach ``x``.

    Source:
        Y. Bengio, N. Leonard, A. Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
        for Conditional Computation", 2013.

    Example:
        >>> x = torch.tensor([0.4, 1.7], requires_grad=True)
        >>> y = straight_through(x, torch.round(x), passes=x < 1)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.0, 2.0], [1.0, 0.0])
    """
    nothing = x - x.detach()  # exactly zero, with the gradient of x
    return value.detach() + (nothing if passes is None else nothing * passes)


def prepare(
    model: nn.Module,
    make: Callable[[Tensor], Simulated],
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Return a copy whose weights are simulated; train it, then ``convert`` it.

    Args:
        model: any network; masks stay, and act before the simulation.
        make: weight (detached) -> its ``Simulated``; called once for each Linear, Conv1d and Conv2d layer.
        only, skip: names of layers, as in ``named_layers``.

    Raises:
        TypeError: ``make`` returns no ``Simulated``.
        ValueError: an unknown layer name, a weight that is simulated already, or one that ``make`` refuses;
            the message names the layer.

    Example:
        >>> from compresslab.quantization import FakeQuantize
        >>> model = prepare(nn.Sequential(nn.Linear(4, 2)), lambda weight: FakeQuantize(bits=4))
        >>> convert(model)[0].coded
        UniformCode(shape=(2, 4), bits=4, axis=0)
    """
    chosen = named_layers(model, only=only, skip=skip)

    def replace(name: str, layer: nn.Module) -> None:
        if name not in chosen:
            return
        if _simulation(layer) is not None:
            raise ValueError(f"the weight is simulated already{where(name)}")
        with naming(name):
            simulated = make(layer.weight.detach())
            if not isinstance(simulated, Simulated):
                raise TypeError(f"make must return a Simulated, got {type(simulated).__name__}")
            simulated.to_code(layer.weight.detach())
        register_(layer, "weight", simulated)

    return map_layers(model, tuple({type(layer) for layer in chosen.values()}), replace)


@torch.no_grad()
def convert(model: nn.Module) -> nn.Module:
    """Return a copy in which every simulated weight is stored as its code.

    Raises:
        ValueError: no weight of the model is simulated, or one cannot be stored, for training left nan in it;
            the message names the layer.
    """
    codes = {}
    for name, layer in model.named_modules():
        simulation = _simulation(layer)
        if simulation is not None:
            latent = layer.parametrizations.weight.original
            for earlier in list(layer.parametrizations.weight)[:-1]:
                latent = earlier(latent)
            with naming(name):
                codes[name] = simulation.to_code(latent)
    if not codes:
        raise ValueError("no weight of this model is simulated; prepare it first")
    return encode(model, {name: lambda weight, code=code: code for name, code in codes.items()})


def _simulation(layer: nn.Module) -> Simulated | None:
    """What simulates the layer's weight: the last of its parametrizations, if it is a ``Simulated``."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    last = layer.parametrizations.weight[-1]
    return last if isinstance(last, Simulated) else None
