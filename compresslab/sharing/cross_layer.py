r"""Sharing across layers: one block used many times, one table at both ends of a network.

Inside a layer, sharing ties single weights. Across layers it ties whole modules: ALBERT runs one block twelve
times. What is stored and what is optimised shrinks by the number of uses; what is computed does not, for
every use multiplies again. In PyTorch sharing means that two names hold the *same object*: a copy is a second
set of weights from the first update on. ``core.save`` writes a shared module once, and ``core.load`` gives it
back shared.
"""

import copy
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from compresslab.core.calibrate import find_layers
from compresslab.core.codes import WeightCode
from compresslab.core.errors import check_int, where
from compresslab.core.geometry import geometry_of, is_plain
from compresslab.sharing.tables import keep_frozen_

ORDERS = ("cycle", "sequence")


def share_layers(model: nn.Module, sharing: Mapping[str, str]) -> nn.Module:
    """Return a copy of the model in which some layers are other layers: the same objects.

    Args:
        model: any network; it is not changed.
        sharing: name of the layer to replace, under all the names it has -> name of the layer that takes its
            place too. The two must have the same structure, the same arguments and the same shapes.

    Raises:
        ValueError: an unknown name; the two differ; one contains the other; or one of them is replaced
            itself, or with the layer it is part of. The message names the layer.

    Source: Z. Lan et al., "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations",
        ICLR 2020 (cross-layer parameter sharing).

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        >>> shared = share_layers(model, {"2": "0"})
        >>> shared[2] is shared[0], unique_parameters(shared), virtual_parameters(shared)
        (True, 20, 40)
    """
    model = copy.deepcopy(model)
    layers = dict(model.named_modules(remove_duplicate=False))
    for target, source in sharing.items():
        for name in (target, source):
            if not name or name not in layers:
                raise ValueError(f"the model has no layer {name!r}; it has {', '.join(filter(None, layers))}")
        if source in sharing:
            raise ValueError(
                f"'{source}' is replaced itself by '{sharing[source]}'; name that one{where(target)}"
            )
    moves = {target: source for target, source in sharing.items() if layers[target] is not layers[source]}
    for target, source in moves.items():
        one, other = layers[source], layers[target]
        if one in other.modules() or other in one.modules():
            raise ValueError(f"it cannot be '{source}': one of the two is part of the other{where(target)}")
        _check_alike(one, other, source, target)
    _check_kept(layers, moves)
    replaced = {id(layers[target]): layers[source] for target, source in moves.items()}
    for module in list(model.modules()):
        for name, child in module._modules.items():
            module._modules[name] = replaced.get(id(child), child)
    return model


def tie_embedding(model: nn.Module, embedding: str, output: str) -> nn.Module:
    """Return a copy of the model whose output layer uses the table of the embedding as its weight.

    Args:
        model: any network; it is not changed.
        embedding: name of an ``nn.Embedding``, a table (vocabulary, hidden).
        output: name of an ``nn.Linear`` from hidden to vocabulary features; its bias stays its own.

    Raises:
        ValueError: an unknown name, a weight that is parametrized (masked), or the shapes differ.
        TypeError: a layer of another class.

    Source: O. Press, L. Wolf, "Using the Output Embedding to Improve Language Models", EACL 2017.
    """
    model = copy.deepcopy(model)
    source = find_layers(model, [embedding], (nn.Embedding,))[embedding]
    layer = find_layers(model, [output], (nn.Linear,))[output]
    for name, part in ((embedding, source), (output, layer)):
        if is_parametrized(part, "weight"):
            raise ValueError(f"a weight with a mask or parametrization cannot be tied; bake it{where(name)}")
    table = source.weight
    if table.shape != layer.weight.shape:
        wanted, got = tuple(table.shape), tuple(layer.weight.shape)
        raise ValueError(f"the weight must have the table's shape {wanted}, got {got}{where(output)}")
    layer.weight = table
    return model


class CyclicStack(nn.Module):
    r"""B blocks used in turn until D have run: depth without parameters.

    .. math:: x \leftarrow f_{i \bmod B}(x), \qquad i = 0, \dots, D - 1

    Args:
        blocks: modules x -> x of one shape, at least one.
        depth: D, a multiple of B.
        order: "cycle" runs 1 2 3 1 2 3, "sequence" 1 1 2 2 3 3 (each block D/B times in a row).

    Raises:
        ValueError: no blocks, a depth that B does not divide, or another order.

    Source: Z. Lan et al., "ALBERT", ICLR 2020 (B = 1); S. Takase, S. Kiyono, "Lessons on Parameter Sharing
        across Layers in Transformers", 2021 (the orders).

    Example:
        >>> stack = CyclicStack([nn.Linear(3, 3), nn.Linear(3, 3)], depth=6)
        >>> unique_parameters(stack), virtual_parameters(stack)
        (24, 72)
    """

    def __init__(self, blocks: Iterable[nn.Module], depth: int, order: str = "cycle"):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if len(self.blocks) == 0:
            raise ValueError("blocks must hold at least one module, got none")
        self.depth = check_int("depth", depth, 1)
        if depth % len(self.blocks):
            raise ValueError(f"the {len(self.blocks)} blocks must divide the depth, got depth {depth}")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
        self.order = order

    def block_at(self, position: int) -> nn.Module:
        """The block that runs at a position, 0 to ``depth - 1``."""
        check_int("position", position, 0, self.depth - 1)
        count = len(self.blocks)
        return self.blocks[position % count if self.order == "cycle" else position * count // self.depth]

    def forward(self, x: Tensor) -> Tensor:
        for position in range(self.depth):
            x = self.block_at(position)(x)
        return x

    def unroll(self) -> nn.Sequential:
        """The same function as a plain row of the same block objects, which a file describes by itself."""
        return nn.Sequential(*(self.block_at(position) for position in range(self.depth)))

    def extra_repr(self) -> str:
        return f"depth={self.depth}, order={self.order!r}"


class FactorizedEmbedding(nn.Module):
    r"""An embedding through a narrow table: :math:`V H` numbers become :math:`V E + E H`.

    A token's row of E numbers is widened to H by a matrix that all tokens share. It is smaller for
    :math:`E < V H / (V + H)`, a little less than H where the vocabulary is large.

    Args:
        vocabulary: V. embedding_dim: E, at most V and H. hidden: H.
        embedding, projection: the layers, ``nn.Embedding(V, E)`` and ``nn.Linear(E, H, bias=False)``; None
            makes new ones.

    Raises:
        TypeError, ValueError: a size below 1, E above V or H, or a layer that does not fit.

    Source: Z. Lan et al., "ALBERT", ICLR 2020 (factorized embedding parameterization).

    Example:
        >>> unique_parameters(FactorizedEmbedding(1000, 16, 64))  # 1000 * 16 + 16 * 64, against 64,000
        17024
    """

    meta = ("vocabulary", "embedding_dim", "hidden")

    def __init__(
        self,
        vocabulary: int,
        embedding_dim: int,
        hidden: int,
        embedding: nn.Module | None = None,
        projection: nn.Module | None = None,
    ):
        super().__init__()
        self.vocabulary, self.hidden = check_int("vocabulary", vocabulary, 1), check_int("hidden", hidden, 1)
        self.embedding_dim = check_int("embedding_dim", embedding_dim, 1, min(vocabulary, hidden))
        self.embedding = nn.Embedding(vocabulary, embedding_dim) if embedding is None else embedding
        self.projection = nn.Linear(embedding_dim, hidden, bias=False) if projection is None else projection
        shapes = tuple(self.embedding.weight.shape), tuple(self.projection.weight.shape)
        if shapes != ((vocabulary, embedding_dim), (hidden, embedding_dim)):
            raise ValueError(
                f"embedding and projection must have weights of shapes {(vocabulary, embedding_dim)} and "
                f"{(hidden, embedding_dim)}, got {shapes[0]} and {shapes[1]}"
            )

    @classmethod
    def from_dense(cls, layer: nn.Embedding, embedding_dim: int) -> "FactorizedEmbedding":
        """The nearest table of rank E, by singular value decomposition, its scale split evenly.

        A frozen table gives frozen layers.

        Raises:
            TypeError, ValueError: the layer is no ``nn.Embedding``, or E is out of range.
        """
        if not isinstance(layer, nn.Embedding):
            raise TypeError(f"layer must be an nn.Embedding, got {type(layer).__name__}")
        vocabulary, hidden = layer.weight.shape
        check_int("embedding_dim", embedding_dim, 1, min(vocabulary, hidden))
        table = layer.weight.detach()
        U, S, Vh = torch.linalg.svd(table.double(), full_matrices=False)
        scale = S[:embedding_dim].sqrt()
        narrow, padding = (U[:, :embedding_dim] * scale).to(table), layer.padding_idx
        if padding is not None and not table[padding].any():
            narrow[padding] = 0  # rounding left a little there, which would never train
        embedding = nn.Embedding(vocabulary, embedding_dim, padding_idx=padding, _weight=narrow)
        projection = nn.utils.skip_init(nn.Linear, embedding_dim, hidden, bias=False, dtype=table.dtype)
        with torch.no_grad():
            projection.weight.copy_((scale.unsqueeze(1) * Vh[:embedding_dim]).T)
        made = cls(vocabulary, embedding_dim, hidden, embedding, projection)
        keep_frozen_(made, layer.weight)
        return made.train(layer.training)

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens``, whole numbers of any shape (...) -> (..., H)."""
        return self.projection(self.embedding(tokens))


def unique_parameters(model: nn.Module) -> int:
    """How many numbers the parameters of a model store: each distinct storage counted once.

    Tied tensors, shared modules and views of one tensor count once, copies count again. On the device "meta"
    there is no storage to compare, so only what is one parameter counts once.

    Example:
        >>> layer = nn.Linear(3, 3)
        >>> twin = copy.deepcopy(layer)
        >>> unique_parameters(nn.Sequential(layer, layer)), unique_parameters(nn.Sequential(layer, twin))
        (12, 24)
    """
    found = {}
    for name, parameter in model.named_parameters():
        storage = parameter.untyped_storage()
        placed = storage.nbytes() and not parameter.is_meta
        place = (str(parameter.device), storage.data_ptr()) if placed else name
        found[place] = storage.nbytes() // parameter.element_size()
    return sum(found.values())


def virtual_parameters(model: nn.Module) -> int:
    """How many parameters the model would have if nothing were shared: every use of every weight counts.

    A module counts under each of its names, a block of a ``CyclicStack`` at each of its turns, a coded weight
    with all its elements, and a layer that knows its dense form (a method ``to_dense``) as that.

    Example:
        >>> from compresslab.core import DenseCode, encode
        >>> layer = nn.Linear(3, 3)
        >>> virtual_parameters(nn.Sequential(layer, layer))
        24
        >>> virtual_parameters(encode(layer, DenseCode.from_dense))
        12
    """
    if isinstance(model, WeightCode):
        return model.numel
    if isinstance(model, CyclicStack):
        return sum(virtual_parameters(model.block_at(position)) for position in range(model.depth))
    if hasattr(model, "to_dense"):
        return sum(parameter.numel() for parameter in model.to_dense().parameters())
    own = sum(parameter.numel() for parameter in model._parameters.values() if parameter is not None)
    return own + sum(virtual_parameters(child) for child in model._modules.values() if child is not None)


def _check_kept(layers: dict[str, nn.Module], moves: dict[str, str]) -> None:
    """Raise ValueError if a layer of ``moves`` lies in one that is replaced, so that it would be gone."""
    for gone, by in moves.items():
        inside = set(layers[gone].modules())
        for target, source in moves.items():
            twice = layers[target] is layers[gone] and layers[source] is layers[by]  # one pair, by two names
            if layers[source] in inside:
                lost = source
            elif target != gone and not twice and layers[target] in inside:
                lost = target
            else:
                continue
            raise ValueError(f"'{lost}' goes with '{gone}', which is replaced by '{by}'{where(target)}")


def _check_alike(source: nn.Module, target: nn.Module, source_name: str, target_name: str) -> None:
    """Raise ValueError unless two modules have the same classes, arguments and shapes throughout."""
    one, other = (_structure(module) for module in (source, target))
    for path in [*one, *other]:
        if one.get(path) != other.get(path):
            inside = f" (its part '{path}')" if path else ""
            raise ValueError(
                f"it cannot be '{source_name}'{inside}: {one.get(path, 'nothing')} is not "
                f"{other.get(path, 'nothing')}{where(target_name)}"
            )


def _structure(module: nn.Module) -> dict[str, Any]:
    """For each part: its class, its arguments (or what it shows of them), the shapes of its own tensors."""
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        arguments = geometry_of(part) if is_plain(part) else _settings(part)
        tensors = part._parameters | part._buffers
        shapes = {name: None if tensor is None else tuple(tensor.shape) for name, tensor in tensors.items()}
        found[path] = (type(part).__name__, arguments, shapes)
    return found


def _settings(module: nn.Module) -> dict[str, Any]:
    """The numbers, words and functions among the attributes of a module, and what it prints of itself."""
    held = {name: value for name, value in vars(module).items() if name[0] != "_" and name != "training"}
    simple = (int, float, str, type(None), torch.dtype, FunctionType, BuiltinFunctionType)
    settings = {name: value for name, value in held.items() if isinstance(value, simple)}
    return settings | {"extra_repr": module.extra_repr()}
