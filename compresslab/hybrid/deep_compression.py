r"""Deep Compression, whole: prune, retrain, share, tune the shared values, code, and write the file.

Each stage is a step of ``core.pipeline``, so the method reads as its list of stages, and a measured row stands
after each of them. What the file holds at the end: for every weight that is left a gap to the one before and an
index into a code book, both Huffman-coded, the code books, the biases, and a header that describes all that.
"""

from collections.abc import Collection, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from compresslab.core import CodebookCode, GapSparseCode, Simulated, convert, pack_bits, prepare, train
from compresslab.core.codes import check_weight
from compresslab.core.errors import check_int, where
from compresslab.core.layers import CodedLayer
from compresslab.core.modules import bake, named_layers
from compresslab.core.pipeline import Step
from compresslab.data import Split
from compresslab.distillation import Labels, SoftTargets, TeacherOutputs, adamw, distill
from compresslab.pruning import GradualPruning, mask_layers, masks_of

ALPHA, TEMPERATURE = 0.3, 3.0  # weight of the labels beside a teacher, and how soft the teacher is


class SparseCodebook(Simulated):
    r"""A pruned weight whose remaining entries share K values that learn; the zeros stay zeros.

    .. math:: \hat w_i = c_{a(i)} \text{ where } w_i \ne 0, \text{ else } 0, \qquad
              \frac{\partial L}{\partial c_j} = \sum_{i : a(i) = j} \frac{\partial L}{\partial \hat w_i}

    The clusters are made of the nonzero entries alone: a code book for all of them would spend a value on the
    zeros, and pull it away from zero when it learns.

    Args:
        weight: the pruned weight; its exact zeros are what was pruned.
        bits: of an index, 1 to 8: K is ``2**bits``, or the number of nonzero entries where that is less.
        index_bits: of a gap in the file, 2 to 8; None takes the width that packs smallest. With Huffman coding
            8 is best: it needs no padding, and frequent gaps are short all the same.

    Raises:
        TypeError, ValueError: no finite floating-point weight, or bits out of range; in ``forward``: a weight
            of another shape.

    Source:
        S. Han, H. Mao, W. Dally, "Deep Compression", ICLR 2016, section 3.
    Differs:
        No gradient flows to the weights that the clusters were made of.

    Example:
        >>> shared = SparseCodebook(torch.tensor([0.0, 0.2, 0.0, 1.0]), bits=1)
        >>> shared(torch.zeros(4)).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> shared.codebook.grad  # the pruned entries pass nothing on
        tensor([2., 4.])
    """

    def __init__(self, weight: Tensor, bits: int = 4, *, index_bits: int | None = None):
        super().__init__()
        self.bits = check_int("bits", bits, 1, 8)
        self.index_bits = index_bits if index_bits is None else check_int("index_bits", index_bits, 2, 8)
        weight = check_weight(weight)
        left = weight != 0
        code = CodebookCode.from_dense(weight[left], bits)
        labels = torch.zeros(weight.shape, dtype=torch.int64, device=weight.device)
        labels[left] = _nearest(weight[left], code.codebook) + 1
        self.register_buffer("labels", labels)  # 0 for a pruned entry, else 1 + its cluster
        self.codebook = nn.Parameter(code.codebook)

    def forward(self, weight: Tensor) -> Tensor:
        self._check(weight)
        table = torch.cat([self.codebook.new_zeros(1), self.codebook])
        return table.index_select(0, self.labels.flatten()).view(self.labels.shape).to(weight.dtype)

    def to_code(self, weight: Tensor) -> GapSparseCode:
        self._check(weight)

        def values(labels: Tensor) -> CodebookCode:
            packed = pack_bits(labels.long() - 1, self.bits)
            return CodebookCode(packed, self.codebook.detach().float().clone(), labels.shape, self.bits)

        return GapSparseCode.from_dense(self.labels.float(), values, index_bits=self.index_bits)

    def _check(self, weight: Tensor) -> None:
        if weight.shape != self.labels.shape:
            ours, got = tuple(self.labels.shape), tuple(weight.shape)
            raise ValueError(f"this code book is for a weight of shape {ours}, got {got}")

    def extra_repr(self) -> str:
        return f"shape={tuple(self.labels.shape)}, bits={self.bits}"


def _nearest(values: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest entry of an ascending code book, (n,)."""
    return torch.bucketize(values.double(), (codebook[1:].double() + codebook[:-1].double()) / 2)


def learn(
    model: nn.Module,
    split: Split,
    *,
    epochs: int,
    lr: float,
    teacher: nn.Module | TeacherOutputs | None = None,
    after_step: object = None,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    r"""Train a copy by AdamW: on the labels, or, with a teacher, on :math:`\alpha\,CE + (1 - \alpha)\,T^2 KL`.

    Args:
        model, split, epochs, lr, after_step, batch_size, seed, progress: as in ``core.train.train``.
        teacher: a network, or its ``TeacherOutputs`` for this split; None trains on labels alone.
    """
    options = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "after_step": after_step, "seed": seed,
               "progress": progress}  # fmt: skip
    if teacher is None:
        return train(model, split, optimizer=adamw, **options)
    terms = [(ALPHA, Labels()), (1 - ALPHA, SoftTargets(TEMPERATURE))]
    return distill(model, teacher, split, terms, **options)


def prune_gradually(
    model: nn.Module,
    split: Split,
    sparsity: float | Mapping[str, float],
    *,
    epochs: int,
    lr: float = 0.002,
    scope: str = "layer",
    settle: float = 0.4,
    every: int = 20,
    skip: Collection[str] = (),
    batch_size: int = 128,
    **learning: object,
) -> nn.Module:
    """Prune by magnitude while training, along the cubic schedule, then let the network settle.

    Args:
        model: plain or masked; it is not changed.
        sparsity: fraction of the weights that shall be zero at the end, or one for each named layer.
        epochs: at least 1: without training nothing would be pruned.
        lr, batch_size, learning: of the training, see ``learn``.
        scope: ``"layer"`` or ``"global"``, as in ``prune_magnitude``; of no account where ``sparsity`` names layers.
        settle: last fraction of the steps, in (0, 1), in which nothing more is pruned.
        every: steps between two prunings.
        skip: names of layers to leave dense.

    Raises:
        ValueError: the network is encoded already (the message names the layer); a sparsity, a scope or a
            layer's name that ``GradualPruning`` refuses; ``settle`` outside (0, 1); ``epochs`` below 1.
    """
    _check_plain(model, "prune")
    check_int("epochs", epochs, 1)
    if not 0 < settle < 1:
        raise ValueError(f"settle must be in (0, 1), got {settle}")
    steps = epochs * -(-len(split) // batch_size)
    end = max(1, int((1 - settle) * steps))
    plan = sparsity if isinstance(sparsity, Mapping) else {None: sparsity}
    prunings = [
        GradualPruning(
            final=final, begin=0, end=end, every=every, scope=scope,
            only=None if name is None else [name], skip=skip if name is None else (),
        )
        for name, final in plan.items()
    ]  # fmt: skip

    def prune(network: nn.Module, step: int) -> None:
        for pruning in prunings:
            pruning(network, step)

    return learn(model, split, epochs=epochs, lr=lr, after_step=prune, batch_size=batch_size, **learning)


def share_weights(
    model: nn.Module,
    bits: int | Mapping[str, int] = 4,
    *,
    index_bits: int | None = 8,
    skip: Collection[str] = (),
) -> nn.Module:
    """Cluster what is left of every weight; the network then computes with the shared values, and trains them.

    Args:
        model: pruned (masked or with zeros); it is not changed.
        bits: of an index, or a number for each named layer; layers without one are left as they are, with
            their masks.
        index_bits: see ``SparseCodebook``.
        skip: names of layers to leave as they are, where ``bits`` is one number.

    Raises:
        ValueError: the network is encoded already (the message names the layer), bits out of range, an unknown
            layer.
    """
    _check_plain(model, "share")
    plain = bake(model)
    each = bits if isinstance(bits, Mapping) else dict.fromkeys(named_layers(plain, skip=skip), bits)
    plain = mask_layers(plain, {name: mask for name, mask in masks_of(model).items() if name not in each})
    for name, layer_bits in each.items():
        make = partial(SparseCodebook, bits=layer_bits, index_bits=index_bits)
        plain = prepare(plain, make, only=[name])
    return plain


def gap_code(model: nn.Module) -> nn.Module:
    """Store every shared weight: gaps, indices, code book; ``save(..., entropy=True)`` Huffman-codes the first two.

    Raises:
        ValueError: nothing is shared in this network: share before you code.
    """
    return convert(model)


def deep_compression_steps(
    split: Split,
    *,
    sparsity: float | Mapping[str, float],
    bits: int | Mapping[str, int] = 4,
    prune_epochs: int = 5,
    tune_epochs: int = 2,
    lr: float = 0.002,
    tune_lr: float = 0.0005,
    teacher: nn.Module | TeacherOutputs | None = None,
    skip: Collection[str] = (),
    seed: int = 0,
) -> list[Step]:
    """The stages as steps for ``core.pipeline``: prune_gradually, share_weights, tune_centroids, gap_code.

    Args:
        split: the training images.
        sparsity, bits: of all layers, or of each named layer.
        prune_epochs, lr: of pruning and retraining. tune_epochs, tune_lr: of the shared values.
        teacher: the dense network, usually: its soft answers then guide every training.
        skip: names of layers to leave as they are.
        seed: of the order of the images.

    Source:
        S. Han, H. Mao, W. Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
        Quantization and Huffman Coding", ICLR 2016.
    Differs:
        Pruning is gradual, not in one go, and a teacher may help.

    Example:
        >>> from compresslab.data import load_data
        >>> steps = deep_compression_steps(load_data("digits").train, sparsity=0.9, bits=4)
        >>> [step.func.__name__ if isinstance(step, partial) else step.__name__ for step in steps]
        ['prune_gradually', 'share_weights', 'tune_centroids', 'gap_code']
    """
    learning = {"teacher": teacher, "seed": seed}
    return [
        partial(prune_gradually, split=split, sparsity=sparsity, epochs=prune_epochs, lr=lr, skip=skip, **learning),
        partial(share_weights, bits=bits, skip=skip),
        partial(tune_centroids, split=split, epochs=tune_epochs, lr=tune_lr, **learning),
        gap_code,
    ]  # fmt: skip


def tune_centroids(model: nn.Module, split: Split, *, epochs: int, lr: float = 0.0005, **learning: object) -> nn.Module:
    """Train the shared values, and the biases; clusters and zeros stay as they are. Arguments as in ``learn``."""
    _check_plain(model, "tune")
    return learn(model, split, epochs=epochs, lr=lr, **learning)


def _check_plain(model: nn.Module, verb: str) -> None:
    """Raise if a layer is coded: what is stored can no longer be pruned, shared or tuned."""
    for name, layer in model.named_modules():
        if isinstance(layer, CodedLayer):
            raise ValueError(
                f"this network is encoded already{where(name)}: {verb} before you encode, or decompress it first"
            )
