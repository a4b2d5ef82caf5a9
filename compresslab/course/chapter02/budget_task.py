"""Exercise 2.18: ResNet-8 in a file of 30 kB."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, saved_beside
from compresslab.course.exercise import Exercise, Mistake

SPEC = {"model": "resnet", "depth": 8, "width": 16, "num_classes": 10, "in_channels": 3}
TASK = BudgetTask(dataset="street_digits", spec=SPEC, input_shape=(3, 32, 32), max_bytes=30_000,
                  max_loss=0.005, baseline="resnet8", images=4000)
BITS = {"stage3.0.conv2": 2, "stage3.0.conv1": 3}       # the two largest layers, seven tenths of all weights; the others have 4


def simulated() -> nn.Module:
    """The baseline with simulated weights: the largest layer ternary, the next in 3 bits, the others in 4."""
    from compresslab.core import prepare
    from compresslab.models import load_baseline
    from compresslab.quantization import FakeQuantize, Ternary
    network = prepare(load_baseline("resnet8"), lambda weight: Ternary(axis=0), only=["stage3.0.conv2"])
    network = prepare(network, lambda weight: FakeQuantize(3), only=["stage3.0.conv1"])
    return prepare(network, lambda weight: FakeQuantize(4), skip=list(BITS))


def _trained(network: nn.Module, images: int) -> nn.Module:
    """One short pass towards the answers of the float network."""
    from compresslab.core.train import train
    from compresslab.data import load_data
    from compresslab.models import load_baseline
    teacher = load_baseline("resnet8")

    def imitate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = (teacher(x) / 2).softmax(1)
        return 4 * cross_entropy(model(x) / 2, wanted)

    data = load_data("street_digits").train.take(images)
    return train(network, data, epochs=1, lr=0.01, batch_size=64, loss=imitate, progress=False)


def folded_and_coded(network: nn.Module) -> nn.Module:
    """Batch norms folded into the trained weights: that only changes the scales, so the same integers are coded."""
    from compresslab.core import UniformCode, bake, encode, named_layers
    from compresslab.quantization import fold_batch_norm
    plain = fold_batch_norm(bake(network))
    return encode(plain, {name: partial(UniformCode.from_dense, bits=BITS.get(name, 4), axis=0) for name in named_layers(plain)})


_saved = partial(saved_beside, "2.18", entropy=True)


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    return _saved(folded_and_coded(_trained(simulated(), 1000 if mode.quick() else 5000)), "reference")


def _uniform(bits: int, *, fold: bool = True) -> nn.Module:
    """The baseline in so many bits, not trained."""
    from compresslab.core import UniformCode, encode
    from compresslab.models import load_baseline
    from compresslab.quantization import fold_batch_norm
    network = load_baseline("resnet8")
    return encode(fold_batch_norm(network) if fold else network, partial(UniformCode.from_dense, bits=bits, axis=0))


def simulated_file() -> str:
    """Fake-quantized weights, baked: 32 bits each."""
    from compresslab.core import bake
    return _saved(bake(simulated()), "simulated")


def _head(path: str) -> bytes:
    return Path(path).read_bytes()[:20_000]


def _over(path: str) -> bool:
    return TASK.breaks("bytes")(path)


EXERCISE = Exercise(
    id="2.18", name="my_file", title="30 kB", dots=4, minutes=30, points=5, track="stretch", value=True,
    misconception="three bits a weight make a file of three bits a weight",
    reference=reference_file, verify=TASK.verify,
    mistakes=(
        Mistake("pickle", lambda: pickled_beside("2.18"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("simulated only", simulated_file,
                "your weights are only simulated: rounded, and still stored in 32 bits each; `convert`, or `encode` the baked network",
                when=TASK.breaks("bytes", 200_000)),
        Mistake("batch norm kept", lambda: _saved(_uniform(3, fold=False), "unfolded"),
                "your batch norms and their entries in the header take 7 kB, a quarter of the budget: fold them before you encode",
                when=lambda path: _over(path) and b"running_mean" in _head(path)),
        Mistake("not entropy-coded", lambda: _saved(_uniform(3), "plain", entropy=False),
                "three bits for each of 77,360 weights are 29 kB already: most of them are 0 or one step away from it, "
                "and `save(..., entropy=True)` gives frequent integers short codes",
                when=lambda path: _over(path) and b"huffman" not in _head(path)),
        Mistake("not trained", lambda: _saved(folded_and_coded(simulated()), "untrained"),
                "small enough, but rounded once and never trained: let the network train through its rounding",
                when=TASK.breaks("accuracy", high=0.93)),
        Mistake("too large", lambda: _saved(_uniform(5), "large"),
                "the file is over the budget: count the bits of the largest layers first, one of them holds almost half of all weights",
                when=_over)),
    hints=("Where are the bytes? storage_report(resnet) says which layers hold the weights; the header and the batch norms count, too.",
           "Almost half of the weights are in stage3.0.conv2: ternary. A quarter is in stage3.0.conv1: 3 bits. The others: 4 bits, a scale per channel. "
           "Train through all that, one short pass with lr=0.01; fold; encode; save with entropy=True. Half a point too much? Train towards the float "
           "network's answers instead of the labels: loss=lambda model, x, y: F.cross_entropy(model(x), resnet(x).detach().softmax(1)).",
           "network = prepare(resnet, lambda w: Ternary(axis=0), only=[...])\nnetwork = prepare(network, lambda w: FakeQuantize(3), only=[...])\n"
           "network = prepare(network, lambda w: FakeQuantize(4), skip=[...])\nnetwork = train(network, ..., lr=0.01, batch_size=64, loss=..., progress=False)\n"
           "flat = fold_batch_norm(bake(network))\nflat = encode(flat, {name: partial(UniformCode.from_dense, bits=..., axis=0) for name in weights})\n"
           "save(flat, submission_path('2.18'), entropy=True)\nmy_file = str(submission_path('2.18'))"))
