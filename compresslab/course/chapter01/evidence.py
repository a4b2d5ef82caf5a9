"""The long runs behind chapter 01: pruning with retraining, beside the controls that papers leave out.

``python -m compresslab evidence 01`` measures everything below, about a quarter of an hour; an entry is one setting and one seed.
Accuracies are those of 50,000 freshly drawn images that no training saw.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from compresslab.core import GapSparseCode, encode, named_layers, train
from compresslab.core.measure import file_size
from compresslab.course.chapter01.opening import opening
from compresslab.course.fresh import judge_fresh
from compresslab.data import Split, load_data
from compresslab.models import baseline_info, from_spec, load_baseline
from compresslab.pruning import GradualPruning, mask_layers, masks_of, random_masks

SEEDS = (0, 1, 2)
SPARSITIES = (0.9, 0.95, 0.98)
RETRAINING = {"epochs": 10, "lr": 0.1}  # chosen on other fresh images than those that judge


@cache
def _training_images() -> Split:
    return load_data("ink_digits").train


@cache
def _prune(sparsity: float, seed: int) -> nn.Module:
    """LeNet-300-100 pruned gradually to a global sparsity within the first six of ten epochs of retraining."""
    steps = RETRAINING["epochs"] * -(-len(_training_images()) // 128)
    gradual = GradualPruning(final=sparsity, begin=0, end=int(0.6 * steps), every=20, scope="global")
    return _retrain(load_baseline("lenet300"), seed, after_step=gradual)


def _fresh_weights(spec: dict[str, Any], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)
        return from_spec(spec)


def _retrain(model: nn.Module, seed: int, **options: Any) -> nn.Module:
    return train(model, _training_images(), seed=seed, **(RETRAINING | options))


def _train_as_long(model: nn.Module, seed: int) -> nn.Module:
    """Train for as many epochs as the baseline and its retraining together."""
    return _retrain(model, seed, epochs=baseline_info("lenet300")["epochs"] + RETRAINING["epochs"])


def _small_dense(file_bytes: int) -> dict[str, Any]:
    """The spec of the 784 - 3k - k - 10 network whose float32 weights take about this many bytes."""
    def size(k: int) -> int:
        return 4 * (784 * 3 * k + 3 * k + 3 * k * k + k + 10 * k + 10)

    k = max(1, min(range(1, 101), key=lambda k: abs(size(k) - file_bytes)))
    layers = [["flatten"], ["linear", {"out_features": 3 * k}], ["relu"], ["linear", {"out_features": k}], ["relu"], ["linear", {"out_features": 10}]]
    return {"input": [1, 28, 28], "layers": layers}


def _count_weights(model: nn.Module) -> int:
    """Weights that are not zero; biases are not counted."""
    return sum(int((layer.weight != 0).sum()) for layer in named_layers(model).values())


def _candidate(method: str, sparsity: float, seed: int) -> nn.Module:
    """The network of one row, trained."""
    if method == "dense, retrained":
        return _retrain(load_baseline("lenet300"), seed)
    pruned = _prune(sparsity, seed)
    if method == "random mask":
        return _retrain(random_masks(load_baseline("lenet300"), like=pruned, seed=seed), seed)
    if method == "same mask, new weights":
        return _train_as_long(mask_layers(_fresh_weights({"model": "lenet300"}, seed), masks_of(pruned)), seed)
    if method == "small dense network":
        size = file_size(encode(pruned, GapSparseCode.from_dense))
        return _train_as_long(_fresh_weights(_small_dense(size), seed), seed)
    return pruned


def lenet300(method: str, sparsity: float, seed: int) -> dict[str, Any]:
    """One network of the sparsity figure, as a row: its accuracy on 50,000 fresh images and the bytes of its file."""
    dense, model = load_baseline("lenet300"), _candidate(method, sparsity, seed)
    stored = model if "dense" in method else encode(model, GapSparseCode.from_dense)
    return {
        "experiment": "lenet300", "method": method, "sparsity": sparsity, "seed": seed,
        "weights_ratio": round(_count_weights(dense) / _count_weights(model), 3),
        "file_bytes": file_size(stored), "file_ratio": round(file_size(dense) / file_size(stored), 3),
        **judge_fresh(model, "lenet300"),
    }  # fmt: skip


METHODS = ("magnitude", "random mask", "same mask, new weights", "small dense network")

ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    "opening": opening,
    **{f"lenet300, dense, retrained, seed {seed}": partial(lenet300, "dense, retrained", 0.0, seed) for seed in SEEDS},
    **{f"lenet300, {method}, {sparsity:g}, seed {seed}": partial(lenet300, method, sparsity, seed)
       for sparsity in SPARSITIES for method in METHODS for seed in SEEDS},
}  # fmt: skip
TIMED = ("opening",)
