"""Walking a model: replace layers, name layers, hold a mask, drop parametrizations.

Everything here returns a new model or says by its name that it works in place.
"""

import copy
from collections.abc import Callable, Collection

import torch  # noqa: F401  (for the examples)
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.errors import check_names

WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def map_layers(
    model: nn.Module,
    types: type | tuple[type, ...],
    replace: Callable[[str, nn.Module], nn.Module | None],
) -> nn.Module:
    """Return a copy of ``model`` in which ``replace`` has exchanged layers.

    A layer that is reached by two names is handed to ``replace`` once, under its first name, and stays shared. What
    ``replace`` returns is not walked again.

    Args:
        model: any module; it is not changed.
        types: the classes of the layers to offer. ``model`` itself is offered too, under the name "".
        replace: gets (name, layer) with a layer of the copy; returns the new layer, or None to keep it.

    Example:
        >>> twice = map_layers(nn.Sequential(nn.Linear(2, 3)), nn.Linear, lambda name, layer: nn.Linear(2, 5))
        >>> twice[0].out_features
        5
    """
    model = copy.deepcopy(model)
    done: dict[int, tuple[nn.Module, nn.Module]] = {}  # id of a visited module -> (it, kept alive; what stands for it)

    def visit(name: str, module: nn.Module) -> nn.Module:
        if id(module) not in done:
            new = replace(name, module) if isinstance(module, types) else None
            done[id(module)] = (module, module if new is None else new)
            if new is None:
                for child_name, child in list(module._modules.items()):  # named_children() would hide aliases
                    if child is not None:
                        module._modules[child_name] = visit(f"{name}.{child_name}".lstrip("."), child)
        return done[id(module)][1]

    return visit("", model)


def named_layers(
    model: nn.Module,
    types: type | tuple[type, ...] = WEIGHT_LAYERS,
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> dict[str, nn.Module]:
    """Name the layers of the given types, each object once under its first name, in the model's order.

    Args:
        model: any module.
        types: classes to list; by default those with a weight matrix or kernel.
        only: the names to keep; None keeps all.
        skip: names to leave out.

    Raises:
        ValueError: a name in ``only`` or ``skip`` is no layer of these types, or ``only`` is a plain string.

    Example:
        >>> list(named_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), skip=["0"]))
        ['2']
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, types)}
    for argument, names in (("only", only), ("skip", skip)):
        check_names(argument, names)
        unknown = [name for name in names or () if name not in layers]
        if unknown:
            raise ValueError(f"{argument} names no such layer: {unknown[0]!r}; the layers are {', '.join(layers) or 'none'}")
    return {
        name: layer for name, layer in layers.items() if (only is None or name in only) and name not in skip
    }


class Mask(nn.Module):
    """A parametrization that holds entries of a weight at zero: ``weight`` where ``mask`` is True, else 0.

    Args:
        mask: bool, the shape of the weight; True keeps the entry.
    """

    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("mask", mask.bool())

    def forward(self, weight: Tensor) -> Tensor:
        return weight.masked_fill(~self.mask, 0.0)


def _find_mask(layer: nn.Module, name: str) -> Mask | None:
    if not parametrize.is_parametrized(layer, name):
        return None
    return next((p for p in layer.parametrizations[name] if isinstance(p, Mask)), None)


def get_mask(layer: nn.Module, name: str = "weight") -> Tensor | None:
    """The layer's mask (bool, the weight's shape), or None if it has none."""
    found = _find_mask(layer, name)
    return None if found is None else found.mask


def apply_mask_(layer: nn.Module, mask: Tensor, name: str = "weight") -> None:
    """Hold masked entries of ``layer.<name>`` at zero from now on, in place; a mask that is there is replaced.

    Training then moves the kept entries only: the gradient of a masked entry is zero, and whatever momentum or weight
    decay do to it stays hidden behind the mask.

    Args:
        layer: a layer with a parameter of that name.
        mask: bool, the parameter's shape; True keeps the entry.

    Raises:
        ValueError: the shapes differ.
    """
    weight = getattr(layer, name)
    if mask.shape != weight.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, but {name} has {tuple(weight.shape)}")
    found = _find_mask(layer, name)
    if found is None:
        register_(layer, name, Mask(mask.to(weight.device)))
    else:
        found.mask = mask.bool().to(weight.device)


def as_parameter(array: Tensor | None) -> nn.Parameter | None:
    """The array as a parameter, the same object if it is one; None stays None."""
    return array if array is None or isinstance(array, nn.Parameter) else nn.Parameter(array)


def register_(layer: nn.Module, name: str, parametrization: nn.Module) -> None:
    """Parametrize ``layer.<name>``, after what parametrizes it already, in place; copies of the layer are safe.

    A copy of a parametrized layer shares its generated class with the original, and torch edits that class.
    """
    if parametrize.is_parametrized(layer):
        layer.__class__ = type(type(layer).__name__, type(layer).__bases__, dict(vars(type(layer))))
    parametrize.register_parametrization(layer, name, parametrization)


def bake(model: nn.Module) -> nn.Module:
    """Return a copy without parametrizations: what they compute becomes the plain parameter.

    A masked network becomes an ordinary one with zeros in its weights. Tied parametrized weights stay tied only if
    the layer itself is shared. (``parametrize.remove_parametrizations`` will not do: a deep copy of a parametrized
    layer shares its generated class with the original, and that function edits the class.)

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> apply_mask_(layer, torch.tensor([[True, False]]))
        >>> plain = bake(layer)
        >>> parametrize.is_parametrized(plain), plain.weight[0, 1].item()
        (False, 0.0)
    """
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            values = {name: getattr(module, name).detach() for name in module.parametrizations}
            trainable = {name: p.original.requires_grad for name, p in module.parametrizations.items()}
            del module._modules["parametrizations"]
            module.__class__ = type(module).__bases__[0]
            plain = {name: nn.Parameter(value, requires_grad=trainable[name]) for name, value in values.items()}
            module._parameters = {**plain, **module._parameters}
    return model
