"""The long runs behind chapter 07: Deep Compression stage by stage, the 24 orders, and searches under a budget.

``python -m compresslab evidence 07`` measures everything below; an entry is one network and one seed, one order
and one seed, or one search.
"""

import tempfile
from collections.abc import Callable
from functools import cache, partial
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compresslab.compare.methods import narrow_network
from compresslab.core import GapSparseCode, decompress, encode, save
from compresslab.core.layers import CodedLayer
from compresslab.core.measure import file_size
from compresslab.course.fresh import judge_fresh
from compresslab.data import Split, load_data
from compresslab.distillation import TeacherOutputs, teacher_outputs
from compresslab.hybrid.deep_compression import deep_compression_steps, gap_code, learn
from compresslab.hybrid.joint_options import Options, apply_settings, file_budget, layer_options
from compresslab.hybrid.joint_search import allocate, evolve_settings, settings_accuracy, uniform_settings
from compresslab.hybrid.orders import OPERATIONS, OrderSettings, finish, run_order
from compresslab.models import baseline_info, from_spec, load_baseline

Row = dict[str, Any]
SEEDS = (0, 1, 2)
STAGES = {"prune_gradually": "pruned", "tune_centroids": "shared", "gap_code": "coded"}

MEASURED = {"vgg": ("dense", "shared", "coded")}  # of a network that is slow to judge, and slower to train

# Deep Compression, by network: what is asked of every layer, and for how long it is trained (20,000 images an epoch)
RECIPES: dict[str, dict[str, Any]] = {
    "lenet300": {
        "sparsity": {"fc1": 0.96, "fc2": 0.93, "fc3": 0.7},
        "bits": 4, "prune_epochs": 8, "tune_epochs": 2,
    },
    "lenet5": {
        "sparsity": {"conv1": 0.5, "conv2": 0.9, "fc1": 0.985, "fc2": 0.9},
        "bits": 4, "prune_epochs": 6, "tune_epochs": 2,
    },
    "resnet8": {
        "sparsity": {
            "conv1": 0.2, "stage1.0.conv1": 0.5, "stage1.0.conv2": 0.5, "stage2.0.conv1": 0.6,
            "stage2.0.conv2": 0.7, "stage2.0.shortcut.0": 0.5, "stage3.0.conv1": 0.75, "stage3.0.conv2": 0.85,
            "stage3.0.shortcut.0": 0.6, "fc": 0.3,
        },
        "bits": 4, "prune_epochs": 6, "tune_epochs": 2, "lr": 0.003,
    },
    "vgg": {
        "sparsity": {
            "features.0": 0.4, "features.3": 0.75, "features.7": 0.8, "features.10": 0.85, "features.14": 0.9,
            "features.17": 0.92, "features.21": 0.94, "features.24": 0.95, "classifier": 0.8,
        },
        "bits": 4, "prune_epochs": 7, "tune_epochs": 2,
    },
}  # fmt: skip
MOONSHOTS: dict[str, dict[str, Any]] = {
    "lenet300": {
        "sparsity": {"fc1": 0.988, "fc2": 0.97, "fc3": 0.8},
        "bits": 3, "prune_epochs": 15, "tune_epochs": 4,
    },
    "lenet5": {
        "sparsity": {"conv1": 0.6, "conv2": 0.94, "fc1": 0.993, "fc2": 0.94},
        "bits": 3, "prune_epochs": 8, "tune_epochs": 3,
    },
}  # fmt: skip


def _training(network: str) -> Split:
    return load_data(baseline_info(network)["dataset"]).train


@cache
def _teacher(network: str) -> TeacherOutputs:
    return teacher_outputs(load_baseline(network), _training(network))


def _written(model: nn.Module, entropy: bool = True) -> int:
    """The bytes of the real file, Huffman-coded where that helps."""
    with tempfile.TemporaryDirectory() as folder:
        return save(model, Path(folder) / "network.safetensors", entropy=entropy)


def _narrow_gaps(coded: nn.Module) -> nn.Module:
    """The same weights with gaps of the width that packs smallest: without Huffman coding, 8 bits are too many."""
    codes = {name: layer.coded for name, layer in coded.named_modules() if isinstance(layer, CodedLayer)}
    return encode(decompress(coded), {
        name: lambda weight, code=code: GapSparseCode.from_dense(weight, lambda _: code.values)
        for name, code in codes.items()
    })  # fmt: skip


def _row(experiment: str, network: str, seed: int, stage: str, model: nn.Module) -> Row:
    """The network of a stage as it is stored there: gaps and floats, gaps and indices, and these Huffman-coded."""
    if stage == "pruned":
        model = encode(model, GapSparseCode.from_dense)
    elif stage == "shared":
        model = _narrow_gaps(gap_code(model))
    size, judged = _written(model, entropy=stage == "coded"), judge_fresh(decompress(model), network)
    ratio = round(file_size(load_baseline(network)) / size, 2)
    return {"experiment": experiment, "network": network, "seed": seed, "stage": stage, "file_bytes": size,
            "ratio": ratio, **judged, "images": 50_000}  # fmt: skip


def deep_compression(network: str, seed: int, recipe: dict[str, Any], experiment: str) -> list[Row]:
    """One run of all stages, judged on 50,000 fresh images after each that trains, and as the file."""
    model, rows = load_baseline(network), []
    wanted = ("coded",) if experiment == "moonshot" else MEASURED.get(network, ("dense", *STAGES.values()))
    if "dense" in wanted:
        rows.append(_row(experiment, network, seed, "dense", model))
    for step in deep_compression_steps(_training(network), teacher=_teacher(network), seed=seed, **recipe):
        model = step(model)
        stage = STAGES.get(getattr(step, "func", step).__name__)
        if stage in wanted:
            rows.append(_row(experiment, network, seed, stage, model))
    return rows


def _one_hidden(units: int, seed: int) -> nn.Module:
    """784 - units - 10: with so few bytes, a second hidden layer would be a bottleneck of one unit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [["flatten"], ["linear", {"out_features": units}], ["relu"], ["linear", {"out_features": 10}]]
        return from_spec({"input": [1, 28, 28], "layers": layers})


def small_dense(network: str, seed: int, budget: int) -> Row:
    """The control: a dense network whose float file has at most so many bytes, trained as long, by the same teacher."""
    make = partial(_one_hidden, seed=seed) if network == "lenet300" else partial(narrow_network, network, seed=seed)
    sizes = range(1, 301) if network == "lenet300" else [f / 200 for f in range(1, 201)]
    size = max(size for size in sizes if file_size(make(size)) <= budget)
    epochs = baseline_info(network)["epochs"] + RECIPES[network]["prune_epochs"] + RECIPES[network]["tune_epochs"]
    student = learn(make(size), _training(network), epochs=epochs, lr=0.003,
                    teacher=_teacher(network), seed=seed)  # fmt: skip
    return _row("small dense", network, seed, "dense", student)


def dense_trained_on(network: str, seed: int) -> Row:
    """The other control: the dense network itself, given the same further training."""
    recipe = RECIPES[network]
    model = learn(load_baseline(network), _training(network), epochs=recipe["prune_epochs"] + recipe["tune_epochs"],
                  lr=recipe.get("lr", 0.002), teacher=_teacher(network), seed=seed)  # fmt: skip
    return _row("dense, trained on", network, seed, "dense", model)


# ---- when order matters ------------------------------------------------------------------------------------

ORDER_IMAGES = 6_000
ORDER_SETTINGS = OrderSettings(sparsity=0.8, bits=4, fraction=0.5, epochs=2, lr=0.001)


@cache
def _order_images() -> tuple[Split, TeacherOutputs]:
    images = _training("lenet300").take(ORDER_IMAGES)
    return images, teacher_outputs(load_baseline("lenet300"), images)


def order(operations: tuple[str, ...], seed: int) -> Row:
    """All four operations in one order, on LeNet-300-100; the file holds the structure that is left."""
    images, teacher = _order_images()
    model, left = run_order(load_baseline("lenet300"), operations, images, teacher=teacher,
                            settings=ORDER_SETTINGS, seed=seed)  # fmt: skip
    stored = finish(model)
    judged = judge_fresh(decompress(stored), "lenet300", 20_000)
    return {"experiment": "order", "order": list(operations), "seed": seed, "left": left[-1],
            "file_bytes": _written(stored), **judged}  # fmt: skip


# ---- one budget for everything -----------------------------------------------------------------------------

BUDGETS = (44_000, 32_000)  # bytes of the file of ResNet-8, whose dense file takes 320 kB
SPARSITIES, WIDTHS = (0.0, 0.3, 0.5, 0.7, 0.85), (2, 3, 4, 6)
CHOOSERS = 400  # validation images that the errors and the scores are measured on


@cache
def _options() -> tuple[nn.Module, Split, Options]:
    model, images = load_baseline("resnet8"), load_data("street_digits").validation.take(CHOOSERS)
    return model, images, layer_options(model, images, SPARSITIES, WIDTHS)


def search(method: str, budget: int, seed: int) -> Row:
    """Settings for every layer of ResNet-8 under a budget for the whole file; nothing is trained afterwards."""
    model, images, options = _options()
    room = file_budget(model, options, budget)
    score = settings_accuracy(model, images, options)
    if method == "uniform":
        settings = uniform_settings(options, room, score=score)
    elif method == "integer program":
        settings = allocate(options, room)
    else:
        settings = evolve_settings(options, score, room, start=[allocate(options, room)], seed=seed).best
    stored = apply_settings(model, settings, options=options)
    return {"experiment": "search", "method": method, "budget_bytes": budget, "seed": seed,
            "settings": {layer: list(setting) for layer, setting in settings.items()},
            "validation_accuracy": score(settings), "file_bytes": _written(stored),
            **judge_fresh(decompress(stored), "resnet8", 20_000)}  # fmt: skip


# bytes of the coded files, and the seeds of the small dense networks beside them
CONTROLS = {"lenet300": (16_426, SEEDS), "lenet5": (16_292, (0,)), "resnet8": (31_548, (0,)), "vgg": (114_882, (0,))}

ENTRIES: dict[str, Callable[[], Any]] = {
    **{
        f"{network} {seed}": partial(deep_compression, network, seed, RECIPES[network], "deep compression")
        for network, seeds in {"lenet300": SEEDS, "lenet5": SEEDS[:1], "resnet8": SEEDS[:1], "vgg": SEEDS[:1]}.items()
        for seed in seeds
    },
    **{
        f"moonshot {network} {seed}": partial(deep_compression, network, seed, MOONSHOTS[network], "moonshot")
        for network, seeds in {"lenet300": SEEDS, "lenet5": SEEDS[:1]}.items()
        for seed in seeds
    },
    **{
        f"small dense {network} {seed}": partial(small_dense, network, seed, budget)
        for network, (budget, seeds) in CONTROLS.items()
        for seed in seeds
    },
    **{f"dense trained on {network}": partial(dense_trained_on, network, 0) for network in ("lenet300",)},
    **{
        f"{'-'.join(operations)} {seed}": partial(order, operations, seed)
        for operations in permutations(OPERATIONS)
        for seed in SEEDS
    },
    **{
        f"search {method} {budget} {seed}": partial(search, method, budget, seed)
        for budget in BUDGETS
        for method, seeds in {"uniform": (0,), "integer program": (0,), "evolution": SEEDS}.items()
        for seed in seeds
    },
}
