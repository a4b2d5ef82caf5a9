"""Replace layers of a network by chains of smaller ones: the step that every method of the family ends in."""

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from compresslab.core.calibrate import find_layers
from compresslab.core.errors import naming
from compresslab.core.geometry import plain_class
from compresslab.core.modules import bake, map_layers
from compresslab.core.structure import STORED_CLASSES, find_class

from .convolution import factor_conv
from .cp import cp_conv
from .svd import svd_linear
from .tucker import tucker_conv

Rank = int | tuple[int, int]
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)  # of torch: they read weights of layers inside
METHODS = {  # what each does to a convolution
    "svd": lambda conv, rank: factor_conv(conv, rank, "channel"),
    "input": lambda conv, rank: factor_conv(conv, rank, "input"),
    "spatial": lambda conv, rank: factor_conv(conv, rank, "spatial"),
    "tucker": lambda conv, rank: tucker_conv(conv, (rank, rank) if isinstance(rank, int) else rank),
    "cp": lambda conv, rank: cp_conv(conv, rank),
}


def decompose(model: nn.Module, ranks: Mapping[str, Rank], *, method: str = "svd") -> nn.Module:
    """Copy of ``model`` whose named layers are chains of small ones, each close to its layer in the weights.

    A layer that is reached by two names is decomposed once and stays shared; a masked one is decomposed as it
    is seen, with its zeros (which the factors do not keep). What is frozen stays frozen.

    Args:
        model: any network; not changed.
        ranks: layer -> rank, from ``ranks_for_budget`` or by hand. Layers that are not named stay as they
            are. Tucker takes (outputs, inputs), or one number for both.
        method: for convolutions: "svd" (kh x kw, then 1x1), "input" (1x1, then kh x kw), "spatial" (kh x 1,
            then 1 x kw), "tucker" (1x1, kh x kw, 1x1) or "cp" (1x1, kh x 1, 1 x kw, 1x1). Linear layers are
            split in two by SVD, always.

    Returns:
        a new network, whose outputs are those of the old one if every rank is full.

    Raises:
        TypeError: a named layer is neither ``nn.Linear`` nor ``nn.Conv2d``.
        ValueError: an unknown layer or method, a rank out of its range, groups, or a layer whose weight
            something else reads (see ``bound_layers``), with the layer's name.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10))
        >>> small = decompose(model, {"0": 4, "3": 5}, method="spatial")
        >>> small[0].reduce, small[3].expand
        (Conv2d(3, 4, kernel_size=(3, 1), stride=(1, 1), bias=False),
         Linear(in_features=5, out_features=10, bias=True))
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    check_layers(model, ranks)

    def replace(name: str, layer: nn.Module) -> nn.Module | None:
        if name not in ranks:
            return None
        with naming(name):
            return decompose_layer(layer, ranks[name], method)

    return map_layers(model, (nn.Linear, nn.Conv2d), replace)


def decompose_layer(layer: nn.Linear | nn.Conv2d, rank: Rank, method: str = "svd") -> nn.Sequential:
    """One layer of ``decompose``, without the name in its errors."""
    plain = bake(layer)
    return svd_linear(plain, rank) if isinstance(plain, nn.Linear) else METHODS[method](plain, rank)


def can_decompose(layer: nn.Module) -> bool:
    """Whether a chain can stand for the layer: a plain ``nn.Linear``, or an ungrouped ``nn.Conv2d``.

    Its place in a network may forbid it nevertheless; ``bound_layers`` tells.
    """
    if isinstance(layer, NonDynamicallyQuantizableLinear):  # of attention, which reads the weight itself
        return False
    return plain_class(layer) is nn.Linear or (plain_class(layer) is nn.Conv2d and layer.groups == 1)


def bound_layers(model: nn.Module) -> dict[int, str]:
    """The layers of a network whose weight is read by more than their own forward: a chain has no weight.

    They share a parameter with another module (a chain would untie it), or lie inside a module that reads
    their weight: attention and torch's encoder layer, whose fast path in eval mode calls no layer, and the
    stored classes (``core.structure``), which a file can only bring back with the layers they are built of.

    Returns:
        id of the layer -> the reason, as an error message begins.

    Example:
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
        >>> model[1].weight = model[0].weight
        >>> bound_layers(model)[id(model[1])]
        'its parameters are tied to those of another layer'
    """
    modules = list(model.modules())
    owners = Counter(id(p) for module in modules for p in module._parameters.values() if p is not None)
    tied = "its parameters are tied to those of another layer"
    bound = {id(layer): tied for layer in modules if any(owners[id(p)] > 1 for p in layer.parameters())}
    for reader in modules:
        name = type(reader).__name__
        if isinstance(reader, READERS) or (name in STORED_CLASSES and find_class(name) is type(reader)):
            inside = (layer for layer in reader.modules() if layer is not reader)
            bound |= {id(layer): f"{name} reads this weight itself" for layer in inside}
    return bound


def check_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers of these names, if a chain can stand for each of them.

    Raises:
        TypeError, ValueError: as ``decompose``, except for ranks and groups.
    """
    layers, bound = find_layers(model, names), bound_layers(model)
    for name, layer in layers.items():
        if plain_class(layer) not in (nn.Linear, nn.Conv2d):
            kind = type(layer).__name__
            raise TypeError(f"Linear and Conv2d can be decomposed, got {kind} in layer '{name}'")
        if id(layer) in bound:
            raise ValueError(f"{bound[id(layer)]}, a chain cannot stand for it: layer '{name}'")
    return layers
