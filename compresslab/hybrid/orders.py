r"""Four operations on one network, in any order: prune, quantize, decompose, distil.

Published pipelines fix an order; here it is an argument. Every operation works on the network that the
earlier ones left, and keeps what it can keep of their work. What can be kept is the point:

- a mask and a code book hold through any later training;
- pruning a quantized network ranks rounded weights, so many of them tie, and the levels that lose all their
  members are lost to the code book;
- the factors of a sparse matrix are not sparse, and those of a quantized one are on no grid: ``decompose``
  throws both away, in the layers that it splits.

``finish`` stores the structure that is left, and no other, so that the file tells which orders paid.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.codes import DenseCode, WeightCode
from compresslab.core.errors import check_fraction, check_int, where
from compresslab.core.layers import CodedLayer, encode
from compresslab.core.modules import bake, named_layers
from compresslab.core.prepare import Simulated, convert, prepare
from compresslab.core.size import storage_bits
from compresslab.core.sparse import GapSparseCode
from compresslab.data import Split
from compresslab.distillation import Labels, SoftTargets, TeacherOutputs, distill, teacher_outputs
from compresslab.hybrid.deep_compression import SparseCodebook
from compresslab.lowrank import decompose, ranks_for_budget
from compresslab.pruning import mask_layers, masks_of, prune_magnitude
from compresslab.quantization import TrainedCodebook

OPERATIONS = ("prune", "quantize", "decompose", "distil")
GAP_BITS = 8  # no gap of these needs padding often, and Huffman coding makes the frequent ones short


@dataclass(frozen=True)
class OrderSettings:
    """How strong each operation is, and how long the network may recover after it; the same in every order.

    Args:
        sparsity: fraction of every layer's weights that pruning leaves at zero, in [0, 1].
        bits: of an index into a layer's code book, 1 to 8.
        fraction: of the network's parameters that decomposing leaves, in (0, 1]; which layers give up which
            ranks is chosen by ``lowrank.ranks_for_budget`` from the weights of that moment.
        ranks: layer -> rank, instead of ``fraction``: the same in every order.
        epochs: passes over the images after each operation, at least 0.
        lr: the largest learning rate of each of these trainings (AdamW), positive.
        temperature: of the soft targets when distilling, positive.
        alpha: weight of the soft targets when distilling, in [0, 1]; the labels have the rest.

    Raises:
        TypeError, ValueError: a number out of its range.
    """

    sparsity: float = 0.8
    bits: int = 4
    fraction: float = 0.5
    ranks: Mapping[str, int] | None = None
    epochs: int = 1
    lr: float = 0.002
    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self):
        check_fraction("sparsity", self.sparsity)
        check_int("bits", self.bits, 1, 8)
        if check_fraction("fraction", self.fraction) == 0:
            raise ValueError("fraction must be positive: no network is left of a fraction of 0")
        check_int("epochs", self.epochs, 0)
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        check_fraction("alpha", self.alpha)
        SoftTargets(self.temperature)


def run_order(
    model: nn.Module,
    order: Sequence[str],
    split: Split,
    *,
    teacher: nn.Module | TeacherOutputs,
    settings: OrderSettings = OrderSettings(),
    seed: int = 0,
) -> tuple[nn.Module, list[str]]:
    """Apply operations one after the other, with a training of the same length after each.

    The training follows the labels, except after "distil", which is nothing but a training on the teacher's
    soft targets. Masks and code books hold in all of them.

    Args:
        model: a trained network with plain weights; it is not changed.
        order: names out of ``OPERATIONS``, each at most once, such as ``("prune", "quantize")``.
        split: the images of every training.
        teacher: a network, or its ``TeacherOutputs`` for this split, which all orders can share.
        settings: of the operations.
        seed: of the order of the images; step k of an order trains with ``seed + k``.

    Returns:
        the network, its compression simulated (``finish`` stores it), in eval mode; and what was left after
        each operation, a name from ``structure_of``.

    Raises:
        ValueError: no operation, an unknown one, or one that is repeated; a network that is encoded or
            simulated already; ranks out of reach.

    Example:
        >>> import torch
        >>> from compresslab.data import load_data
        >>> train = load_data("digits").train
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> plain = OrderSettings(epochs=0)
        >>> run_order(model, ["prune", "quantize"], train, teacher=model, settings=plain)[1]
        ['sparse floats', 'sparse codebook']
        >>> run_order(model, ["quantize", "decompose"], train, teacher=model, settings=plain)[1]
        ['codebook', 'floats']
    """
    order = check_order(order)
    _check_untouched(model)
    taught = teacher if isinstance(teacher, TeacherOutputs) else teacher_outputs(teacher, split)
    soft = [(1 - settings.alpha, Labels()), (settings.alpha, SoftTargets(settings.temperature))]
    left = []
    for number, operation in enumerate(order):
        changed = _ACTIONS[operation](model, settings)
        terms = soft if operation == "distil" else [(1.0, Labels())]
        model = distill(changed, taught, split, terms, epochs=settings.epochs, lr=settings.lr,
                        seed=seed + number, progress=False)  # fmt: skip
        left.append(structure_of(model))
    return model, left


def check_order(order: Sequence[str]) -> tuple[str, ...]:
    """The order as a tuple, if it is one.

    Raises:
        ValueError: no operation, an unknown one, or one that is repeated; a string in the place of a
            sequence.

    Example:
        >>> check_order(["prune", "prune"])
        Traceback (most recent call last):
        ValueError: an order has each operation once, got 'prune' twice
    """
    if isinstance(order, str):
        raise ValueError(f"an order is a sequence of operations, got the string {order!r}; write [{order!r}]")
    order = tuple(order)
    if not order:
        raise ValueError(f"an order has at least one operation of {', '.join(OPERATIONS)}, got none")
    for number, operation in enumerate(order):
        if operation not in OPERATIONS:
            raise ValueError(f"an operation is one of {', '.join(OPERATIONS)}, got {operation!r}")
        if operation in order[:number]:
            raise ValueError(f"an order has each operation once, got {operation!r} twice")
    return order


def structure_of(model: nn.Module) -> str:
    """What compression holds in most of a network's weights: its layers vote with their numbers of weights.

    Returns:
        "sparse codebook", "codebook", "sparse floats" or "floats".

    Raises:
        ValueError: the network has no Linear, Conv1d or Conv2d layer.

    Example:
        >>> structure_of(prune_magnitude(nn.Linear(4, 2), 0.5))
        'sparse floats'
    """
    masks, shared, votes = masks_of(model), shared_layers(model), {}
    for name, layer in named_layers(model).items():
        kind = ("sparse " if name in masks else "") + ("codebook" if name in shared else "floats")
        votes[kind] = votes.get(kind, 0) + layer.weight.numel()
    if not votes:
        raise ValueError("the model has no Linear, Conv1d or Conv2d layer that could hold a structure")
    return max(votes, key=votes.get)


def shared_layers(model: nn.Module) -> list[str]:
    """The names of the layers whose weights are simulated as shared values."""
    return [name for name, layer in named_layers(model).items() if _is_simulated(layer)]


def finish(model: nn.Module) -> nn.Module:
    """Store what is left, layer by layer: gaps and code book, code book, gaps and floats, or plain floats.

    Args:
        model: of ``run_order``; it is not changed.

    Returns:
        a coded network for ``save(..., entropy=True)``. Masked weights whose gaps would cost more than their
        zeros are stored as floats, zeros and all.

    Example:
        >>> finish(prune_magnitude(nn.Sequential(nn.Linear(40, 20)), 0.9))[0].coded.values
        DenseCode(shape=(80,))
    """
    sparse = [name for name in masks_of(model) if name not in shared_layers(model)]
    stored = convert(model) if shared_layers(model) else bake(model)
    codes = {name: _sparse_code(layer.weight) for name, layer in named_layers(stored, only=sparse).items()}
    smaller = {name: code for name, code in codes.items() if isinstance(code, GapSparseCode)}
    return encode(stored, {name: lambda weight, code=code: code for name, code in smaller.items()})


def _sparse_code(weight: Tensor) -> WeightCode:
    """Gaps and floats, if that is smaller than all the floats."""
    codes = DenseCode.from_dense(weight), GapSparseCode.from_dense(weight, index_bits=GAP_BITS)
    return min(codes, key=storage_bits)


# ---- the operations: each takes the network and the settings, and returns a changed copy -----------------


def _prune(model: nn.Module, settings: OrderSettings) -> nn.Module:
    """Mask the smallest weights as they are seen; code-book values that are left stay what they were."""
    plain, masks, shared = _take_apart(model)
    pruned = prune_magnitude(mask_layers(plain, masks), settings.sparsity)
    return _hold(bake(pruned), masks_of(pruned), shared, settings.bits)


def _quantize(model: nn.Module, settings: OrderSettings) -> nn.Module:
    """Cluster the weights of every layer; of a pruned one, the weights that are left."""
    plain, masks, _ = _take_apart(model)
    return _hold(plain, masks, list(named_layers(plain)), settings.bits)


def _decompose(model: nn.Module, settings: OrderSettings) -> nn.Module:
    """Split layers into factors, which are dense and off the grid; the other layers keep what they have."""
    plain, masks, shared = _take_apart(model)
    ranks = settings.ranks
    if ranks is None:
        ranks = ranks_for_budget(plain, (), settings.fraction, unit="parameters")
    kept = {name: mask for name, mask in masks.items() if name not in ranks}
    return _hold(decompose(plain, ranks), kept, [n for n in shared if n not in ranks], settings.bits)


def _distil(model: nn.Module, settings: OrderSettings) -> nn.Module:
    """Nothing before its training, which is all that it is."""
    return model


_ACTIONS: dict[str, Callable[[nn.Module, OrderSettings], nn.Module]] = {
    "prune": _prune,
    "quantize": _quantize,
    "decompose": _decompose,
    "distil": _distil,
}


def _take_apart(model: nn.Module) -> tuple[nn.Module, dict[str, Tensor], list[str]]:
    """The network with the weights that it is seen with, its masks, and the names of its shared layers."""
    return bake(model), masks_of(model), shared_layers(model)


def _hold(plain: nn.Module, masks: Mapping[str, Tensor], shared: Collection[str], bits: int) -> nn.Module:
    """A copy in which masks hold again, and code books of the values that the shared layers have now."""
    model = mask_layers(plain, masks)
    masked = [name for name in shared if name in masks]
    model = prepare(model, partial(SparseCodebook, bits=bits, index_bits=GAP_BITS), only=masked)
    return prepare(model, partial(TrainedCodebook, bits=bits), only=[n for n in shared if n not in masks])


def _is_simulated(layer: nn.Module) -> bool:
    chain = layer.parametrizations.weight if parametrize.is_parametrized(layer, "weight") else ()
    return any(isinstance(part, Simulated) for part in chain)


def _check_untouched(model: nn.Module) -> None:
    """Raise if a layer is coded or simulated: an order begins with a network that is neither."""
    for name, layer in model.named_modules():
        if isinstance(layer, CodedLayer):
            raise ValueError(f"this network is encoded already{where(name)}: decompress it first")
        if _is_simulated(layer):
            raise ValueError(f"a weight is simulated already{where(name)}: bake or convert it first")
