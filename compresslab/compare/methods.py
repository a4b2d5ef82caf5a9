"""The methods that are compared: a few representatives of every family, each a short recipe at a few settings.

One ruler means one budget: for one network, every method that trains sees the same images of the training split
(`IMAGES`) for EPOCHS passes with AdamW. A network that starts from scratch sees them SCRATCH_EPOCHS times: it has
no trained weights to start from, and its rows say so by their seconds. A method that needs no training gets none.
Nothing is tuned per network, and nothing is chosen on the images that judge.

A recipe gets (network's name, its trained model, setting, data, seed) and returns a network as it shall be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from compresslab.compact import separate_conv
from compresslab.core import (
    GapSparseCode, Simulated, UniformCode, convert, encode, map_layers, named_layers, prepare, train,
)  # fmt: skip
from compresslab.core.codes import check_weight
from compresslab.data import Data, Split
from compresslab.distillation import Labels, SoftTargets, adamw, distill
from compresslab.hybrid.deep_compression import gap_code, prune_gradually, share_weights, tune_centroids
from compresslab.lowrank import decompose, decompose_responding, ranks_for_budget
from compresslab.models import baseline_info, from_spec
from compresslab.pruning import (
    GradualPruning, NMCode, prune_channels_to_macs, prune_magnitude, prune_nm, random_masks,
)  # fmt: skip
from compresslab.quantization import BWN, FakeQuantize, LSQ, Ternary
from compresslab.sharing import ClusterCode, HashedCode, ProductCode

NETWORKS = ("lenet300", "lenet5", "resnet8")
IMAGES = {"ink_digits": 12_000, "street_digits": 4_000}  # what every method sees, by data set
BATCH = {"ink_digits": 128, "street_digits": 64}
EPOCHS, SCRATCH_EPOCHS = 3, 12
LR, SCRATCH_LR, CODE_LR = 0.001, 0.003, 0.0005
CALIBRATION = 256  # images, where a method only looks at activations

Recipe = Callable[[str, nn.Module, str, Data, int], nn.Module]


@dataclass(frozen=True)
class Method:
    """One method of the comparison.

    Args:
        family: one of the seven, in the words of the results. text: one line of what it does.
        settings: what is tried, as it stands in the rows; the recipe reads it.
        run: the recipe.
        only: the networks that it makes sense for; None is all.
    """

    family: str
    text: str
    settings: tuple[str, ...]
    run: Recipe
    only: tuple[str, ...] | None = None

    def suits(self, network: str) -> bool:
        """Whether the method makes sense for a network."""
        return self.only is None or network in self.only


def images_of(data: Data) -> Split:
    """The training images that every method sees."""
    return data.train.take(IMAGES[data.name])


def _tune(model: nn.Module, data: Data, seed: int, *, lr: float = LR, **options: object) -> nn.Module:
    """The fine-tuning that all methods share."""
    options = {"epochs": EPOCHS, "batch_size": BATCH[data.name], "optimizer": adamw, "progress": False} | options
    return train(model, images_of(data), lr=lr, seed=seed, **options)


# ---- pruning -----------------------------------------------------------------------------------------------


def _store_sparse(model: nn.Module) -> nn.Module:
    return encode(model, GapSparseCode.from_dense)


def magnitude(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """The smallest weights of all layers at once go in one go; then the rest is tuned."""
    return _store_sparse(_tune(prune_magnitude(model, float(setting), scope="global"), data, seed))


def gradual(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """The same number of weights goes step by step during the same training."""
    steps = EPOCHS * -(-len(images_of(data)) // BATCH[data.name])
    prune = GradualPruning(float(setting), begin=0, end=int(0.4 * steps), every=10, scope="global")
    return _store_sparse(_tune(model, data, seed, after_step=prune))


def random_weights(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """The control: as many weights of each layer as `magnitude` keeps, but any."""
    like = prune_magnitude(model, float(setting), scope="global")
    return _store_sparse(_tune(random_masks(model, like=like, seed=seed), data, seed))


def two_of_four(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Two of every four weights stay, in the layers whose rows divide by four."""
    n, m = map(int, setting.split(":"))
    only = [name for name, layer in named_layers(model).items() if layer.weight.flatten(1).shape[1] % m == 0]
    pruned = _tune(prune_nm(model, n, m, only=only), data, seed)
    return encode(pruned, partial(NMCode.from_dense, n=n, m=m), only=only)


def channels(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Whole channels of small L1 norm go until this fraction of the multiply-accumulates is left."""
    example = torch.zeros(1, *data.shape)
    return _tune(prune_channels_to_macs(model, example, float(setting)), data, seed)


# ---- quantization ------------------------------------------------------------------------------------------


def rounding(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Every weight goes to the nearest of its channel's levels. No training."""
    return encode(model, partial(UniformCode.from_dense, bits=int(setting), axis=0))


def _train_through(model: nn.Module, make: Callable[[Tensor], Simulated], data: Data, seed: int) -> nn.Module:
    return convert(_tune(prepare(model, make), data, seed, lr=CODE_LR))


def quantization_aware(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Trained through the rounding, the step of each channel learned along (LSQ); at 8 bits plain rounding would do."""
    return _train_through(model, partial(LSQ, bits=int(setting), axis=0), data, seed)


def ternary(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Minus, zero, plus one scale per channel, trained straight through."""
    return _train_through(model, lambda weight: Ternary(axis=0), data, seed)


def binary(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """A sign, times one scale per channel, trained straight through."""
    return _train_through(model, lambda weight: BWN(axis=0), data, seed)


# ---- compact networks and distillation ---------------------------------------------------------------------


def narrow_network(network: str, factor: float, seed: int) -> nn.Module:
    """An untrained network of the same kind, its layers `factor` as wide, for any of NETWORKS."""
    def wide(width: int) -> int:
        return max(1, round(factor * width))

    spec = dict(baseline_info(network)["spec"])
    if network == "lenet300":
        hidden = [layer for width in (300, 100) for layer in (["linear", {"out_features": wide(width)}], ["relu"])]
        spec = {"input": [1, 28, 28], "layers": [["flatten"], *hidden, ["linear", {"out_features": 10}]]}
    elif network == "lenet5":
        pieces = [piece for width in (20, 50) for piece in (["conv", {"out_channels": wide(width), "kernel_size": 5}], ["max_pool", {"kernel_size": 2}])]
        head = [["flatten"], ["linear", {"out_features": wide(500)}], ["relu"], ["linear", {"out_features": 10}]]
        spec = {"input": [1, 28, 28], "layers": pieces + head}
    else:
        spec["width"] = wide(spec["width"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return from_spec(spec)


def narrow(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """A narrower network of the same kind, trained from scratch on labels: the control of every other method."""
    student = narrow_network(network, float(setting), seed)
    return _tune(student, data, seed, epochs=SCRATCH_EPOCHS, lr=SCRATCH_LR)


def separable(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Every dense 3x3 or 5x5 convolution becomes the nearest depthwise-separable one; then it is tuned."""
    def split(name: str, conv: nn.Conv2d) -> nn.Module | None:
        dense = conv.groups == 1 and conv.kernel_size != (1, 1) and conv.in_channels > 3
        return separate_conv(conv, rank=int(setting)) if dense else None

    return _tune(map_layers(model, nn.Conv2d, split), data, seed)


def distilled(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """The same narrow network, the same images and steps, but taught by the dense one."""
    student = narrow_network(network, float(setting), seed)
    terms = [(0.1, Labels()), (0.9, SoftTargets(4.0))]
    return distill(student, model, images_of(data), terms, epochs=SCRATCH_EPOCHS, lr=SCRATCH_LR,
                   batch_size=BATCH[data.name], seed=seed, progress=False)  # fmt: skip


# ---- low rank and sharing ----------------------------------------------------------------------------------


def _ranks(network: str, model: nn.Module, data: Data, fraction: float) -> dict[str, int]:
    """Ranks that lose the least; by MACs where there are convolutions, by parameters where there are none."""
    scheme = {"scheme": "channel", "unit": "parameters" if network == "lenet300" else "macs"}
    return ranks_for_budget(model, data.shape, fraction, **scheme)


def svd(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Layers become pairs of thin ones, nearest to the old weights, at this fraction of the cost; then tuned."""
    return _tune(decompose(model, _ranks(network, model, data, float(setting))), data, seed)


def response_svd(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """The same ranks, but nearest to the old *outputs* on calibration images. No training."""
    batches = images_of(data).take(CALIBRATION).batches(CALIBRATION, labels=False)
    return decompose_responding(model, _ranks(network, model, data, float(setting)), list(batches), seed=seed)


def _shared(model: nn.Module, make_code: Callable[[Tensor], nn.Module], data: Data, seed: int) -> nn.Module:
    """Share, then train the shared values; layers of under 1,000 weights stay dense."""
    large = [name for name, layer in named_layers(model).items() if layer.weight.numel() >= 1_000]
    return _tune(encode(model, make_code, only=large), data, seed)


def hashed(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """A hash says which weights share a value; this fraction of the values is stored."""
    return _shared(model, partial(HashedCode.from_dense, fraction=float(setting), seed=seed), data, seed)


def clusters(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Similar weights share a value (k-means), and the values are trained."""
    return _shared(model, partial(ClusterCode.from_dense, bits=int(setting)), data, seed)


def product(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Groups of this many neighbouring weights share one of 64 vectors (product quantization), which are trained."""
    length = int(setting)

    def code(weight: Tensor) -> nn.Module:
        columns = check_weight(weight).flatten(1).shape[1]
        return ProductCode.from_dense(weight, columns // _divisor(columns, length), 64, shared=True, seed=seed)

    return _shared(model, code, data, seed)


def _divisor(columns: int, length: int) -> int:
    """The largest divisor of `columns` that is at most `length`."""
    return max(d for d in range(1, length + 1) if columns % d == 0)


# ---- hybrid ------------------------------------------------------------------------------------------------


def deep_compression(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Prune step by step, share 16 values, tune them, code gaps and indices: the same images in all."""
    learning = {"split": images_of(data), "progress": False, "batch_size": BATCH[data.name], "seed": seed}
    pruned = prune_gradually(model, sparsity=float(setting), scope="global", epochs=EPOCHS - 1, lr=LR, settle=0.6, every=10, **learning)
    return gap_code(tune_centroids(share_weights(pruned, 4), epochs=1, lr=CODE_LR, **learning))


def _four_bits(model: nn.Module, data: Data, seed: int) -> nn.Module:
    return convert(_tune(prepare(model, lambda weight: FakeQuantize(bits=4)), data, seed, epochs=1, lr=CODE_LR))


def channels_and_bits(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Channels go, the rest is tuned, then trained through four bits."""
    example = torch.zeros(1, *data.shape)
    pruned = prune_channels_to_macs(model, example, float(setting))
    return _four_bits(_tune(pruned, data, seed, epochs=EPOCHS - 1), data, seed)


def distilled_and_bits(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """The distilled narrow network, trained through four bits."""
    return _four_bits(distilled(network, model, setting, data, seed), data, seed)


def svd_and_bits(network: str, model: nn.Module, setting: str, data: Data, seed: int) -> nn.Module:
    """Decomposed, tuned, trained through four bits."""
    thin = decompose(model, _ranks(network, model, data, float(setting)))
    return _four_bits(_tune(thin, data, seed, epochs=EPOCHS - 1), data, seed)


CONVOLUTIONAL = ("lenet5", "resnet8")

METHODS: Mapping[str, Method] = {
    "magnitude": Method("pruning", "smallest weights of all layers, in one go", ("0.5", "0.8", "0.9"), magnitude),
    "gradual": Method("pruning", "smallest weights, step by step", ("0.9", "0.95"), gradual),
    "random": Method("pruning", "control: any weights, same layer sparsities", ("0.9",), random_weights),
    "n-of-m": Method("pruning", "n of every m weights stay", ("2:4",), two_of_four),
    "channels": Method("pruning", "whole channels, to a fraction of the MACs", ("0.5", "0.25"), channels),
    "rounding": Method("quantization", "to the nearest level, no training", ("8", "4", "3"), rounding),
    "quantization-aware": Method("quantization", "trained through the rounding", ("4", "2"), quantization_aware),
    "ternary": Method("quantization", "three values, trained", ("2",), ternary),
    "binary": Method("quantization", "two values, trained", ("1",), binary),
    "narrow": Method("compact", "a narrower network from scratch", ("0.5", "0.25"), narrow),
    "separable": Method("compact", "depthwise-separable convolutions", ("1",), separable, CONVOLUTIONAL),
    "distilled": Method("distillation", "the narrow network under a teacher", ("0.5", "0.25"), distilled),
    "svd": Method("lowrank", "pairs of thin layers, tuned", ("0.5", "0.25"), svd),
    "response": Method("lowrank", "pairs of thin layers by outputs, no training", ("0.5",), response_svd),
    "hashed": Method("sharing", "values shared by a hash", ("0.25", "0.1"), hashed),
    "clusters": Method("sharing", "values shared by likeness", ("2",), clusters),
    "product": Method("sharing", "vectors of weights shared", ("4",), product),
    "deep-compression": Method("hybrid", "prune, share, code", ("0.9", "0.95"), deep_compression),
    "channels+bits": Method("hybrid", "channels, then four bits", ("0.5",), channels_and_bits),
    "distilled+bits": Method("hybrid", "distil, then four bits", ("0.5",), distilled_and_bits),
    "svd+bits": Method("hybrid", "decompose, then four bits", ("0.5",), svd_and_bits),
}
