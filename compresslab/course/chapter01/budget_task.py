"""Exercise 1.14: LeNet-300-100 in a file of 24 kB."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from compresslab.course import mode
from compresslab.course.budget import BudgetTask, pickled_beside, submission_path
from compresslab.course.exercise import Exercise, Mistake

SPEC = {"model": "lenet300", "num_classes": 10}
TASK = BudgetTask(dataset="ink_digits", spec=SPEC, input_shape=(1, 28, 28), max_bytes=24_000, min_accuracy=0.95, images=5000)
SPARSITY = 0.985


def _prune_and_train(epochs: int) -> nn.Module:
    """The baseline, pruned by one ranking over all layers while it trains."""
    from compresslab.core.train import train
    from compresslab.data import load_data
    from compresslab.models import load_baseline
    from compresslab.pruning import GradualPruning
    images = load_data("ink_digits").train
    steps = epochs * -(-len(images) // 128)
    prune = GradualPruning(final=SPARSITY, begin=0, end=int(0.6 * steps), every=20, scope="global")
    return train(load_baseline("lenet300"), images, epochs=epochs, lr=0.2, after_step=prune, progress=False)


def _one_shot() -> nn.Module:
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_magnitude
    return prune_magnitude(load_baseline("lenet300"), SPARSITY, scope="global")


def _saved(model: nn.Module, name: str, code: str = "") -> str:
    """The path of the saved file, beside the learner's own."""
    from compresslab.core import GapSparseCode, SparseCode, bake, encode, save
    path = submission_path("1.14").with_name(f"1-14-{name}.safetensors")
    codes = {"gaps": GapSparseCode.from_dense, "mask": SparseCode.from_dense}
    plain = bake(model)
    save(encode(plain, codes[code]) if code else plain, path)
    return str(path)


def reference_file() -> str:
    """A file that keeps the budget; a smaller effort where notebooks are only tried."""
    return _saved(_prune_and_train(1 if mode.quick() else 4), "reference", "gaps")


def _stores_zeros(path: str) -> bool:
    return TASK.breaks("bytes", 1_000_000)(path)


def _stores_a_bit_for_each(path: str) -> bool:
    head = Path(path).read_bytes()[:20_000]
    return TASK.breaks("bytes")(path) and b"SparseCode" in head and b"GapSparseCode" not in head


def _never_trained(path: str) -> bool:
    return TASK.breaks("accuracy", high=0.85)(path)


EXERCISE = Exercise(
    id="1.14", name="my_file", title="24 kB", dots=4, minutes=25, points=5, track="stretch", value=True,
    misconception="the ratio of weights is the ratio of bytes",
    reference=reference_file, verify=TASK.verify,
    mistakes=(
        Mistake("zeros stored", lambda: _saved(_one_shot(), "dense"),
                "your file still stores every zero in 32 bits: `encode` the network before you save it", when=_stores_zeros),
        Mistake("a bit for each", lambda: _saved(_one_shot(), "mask", "mask"),
                "your mask takes one bit for each of 266,200 weights, 33 kB before the first weight: gaps are cheaper here",
                when=_stores_a_bit_for_each),
        Mistake("not trained", lambda: _saved(_one_shot(), "untrained", "gaps"),
                "small enough, but so many weights cannot go at once: let the network train while the sparsity rises", when=_never_trained),
        Mistake("pickle", lambda: pickled_beside("1.14"), "this is no file of `save`: a pickle can run code, and no check will open it", when=TASK.breaks("file")),
        Mistake("too large", lambda: _saved(_fewer_pruned(), "large", "gaps"), "the file is over the budget: 32 bits and a code for each weight "
                "that is left, and the biases: count how many weights fit", when=TASK.breaks("bytes"))),
    hints=("How many weights fit into 24,000 bytes? Prune to that number while the network trains, then encode and save.",
           "A weight costs 32 bits and a code of about 7; 410 biases cost 1,640 bytes, the header about 1,200. "
           "One ranking over all layers, four epochs at a learning rate of 0.2, sparsity about 0.985.",
           "network = train(lenet, ink.train, epochs=4, lr=0.2, after_step=prune_gradually(0.985, ...), progress=False)\n"
           "save(encode(bake(network), GapSparseCode.from_dense), submission_path('1.14'))\nmy_file = str(submission_path('1.14'))"))


def _fewer_pruned() -> nn.Module:
    from compresslab.models import load_baseline
    from compresslab.pruning import prune_magnitude
    return prune_magnitude(load_baseline("lenet300"), 0.95, scope="global")
