"""Train the baselines that ship with the course: `python -m compresslab baselines [NAME ...]`.

Every baseline is trained on the training part of its data set, as its recipe says, with seed 0, and is measured
once on the test part: the accuracy on 10,000 images, or, for a language model, bits per character. The command
writes `compresslab/checkpoints/NAME.safetensors` and one entry of `index.json`. All of them together take about
an hour on two cores; a name trains that one alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from compresslab.core.files import write_atomic
from compresslab.core.train import accuracy, train
from compresslab.data import Data, load_data
from compresslab.models import from_spec
from compresslab.models.pretrained import CHECKPOINTS
from compresslab.sequence.language import bits_per_character, train_language
from compresslab.sequence.text import Text, load_text

TEXT = "python_reference"  # the data set of the language models


@dataclass(frozen=True)
class Recipe:
    """How one baseline is made: its network, its data set, and the arguments of `train`."""

    spec: dict[str, Any]
    dataset: str
    epochs: int
    lr: float = 0.05
    warmup: float = 0.0
    seed: int = 0


RECIPES = {
    "lenet300": Recipe({"model": "lenet300"}, "ink_digits", epochs=15),
    "lenet5": Recipe({"model": "lenet5"}, "ink_digits", epochs=8),
    "resnet8_narrow": Recipe({"model": "resnet", "depth": 8, "width": 8}, "street_digits", epochs=6),
    "resnet8": Recipe({"model": "resnet", "depth": 8, "width": 16}, "street_digits", epochs=6),
    "vgg": Recipe({"model": "vgg", "width": 32}, "street_digits", epochs=6, lr=0.01),
    "mobilenet": Recipe({"model": "mobilenet"}, "street_digits", epochs=6),
    "gpt": Recipe({"model": "gpt", "dropout": 0.1}, TEXT, epochs=24, lr=0.002, warmup=0.1),
    "char_lstm": Recipe({"model": "char_lstm", "dropout": 0.2}, TEXT, epochs=24, lr=0.004, warmup=0.1),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train the baselines named on the command line, all of them where none is; returns the exit status."""
    parser = argparse.ArgumentParser("python -m compresslab baselines", description="Train the baselines.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all by default")
    parser.add_argument("--folder", type=Path, default=CHECKPOINTS, help="default: the package")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in RECIPES]
    if unknown:
        parser.error(f"there is no baseline {unknown[0]!r}; choose from {', '.join(RECIPES)}")
    for name in options.names or RECIPES:
        start = time.perf_counter()
        entry = train_baseline(name, options.folder)
        size, seconds = entry["parameters"], time.perf_counter() - start
        bits = entry.get("bits_per_character")
        quality = f"{entry['accuracy']:.2%}" if bits is None else f"{bits:.3f} bits per character"
        print(f"{name}: {size:,} parameters, {quality}, {seconds:.0f} s", flush=True)
    return 0


def train_baseline(name: str, folder: Path = CHECKPOINTS, data: Data | Text | None = None) -> dict[str, Any]:
    """Train one baseline and write its checkpoint and its entry of the index.

    Args:
        name: one of `RECIPES`.
        folder: where to write; made where it is missing.
        data: the data set; that of the recipe where None.
    Returns:
        the entry; see `baseline_info`.
    """
    recipe = RECIPES[name]
    is_text = recipe.dataset == TEXT
    data = data or (load_text() if is_text else load_data(recipe.dataset))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = from_spec(recipe.spec)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    schedule = {"epochs": recipe.epochs, "lr": recipe.lr, "warmup": recipe.warmup, "seed": recipe.seed}
    model = (train_language if is_text else train)(model, data.train, **schedule).cpu()
    content = safetensors.torch.save(model.state_dict())
    entry = {
        "spec": model.spec,
        "dataset": recipe.dataset,
        **(_bits(model, data) if is_text else _accuracies(model, data)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **schedule,
        "sha256": hashlib.sha256(content).hexdigest(),
        "command": f"python -m compresslab baselines {name}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{name}.safetensors", content)
    _write_entry(name, entry, folder / "index.json")
    return entry


def _accuracies(model: nn.Module, data: Data) -> dict[str, Any]:
    thousand = data.test.take(min(1000, len(data.test)))
    return {
        "accuracy": accuracy(model, data.test),
        "n": len(data.test),
        "accuracy_1000": accuracy(model, thousand),
        "train_images": len(data.train),
    }


def _bits(model: nn.Module, text: Text) -> dict[str, Any]:
    return {
        "bits_per_character": bits_per_character(model, text.test),
        "n": len(text.test),  # windows
        "train_windows": len(text.train),
    }


def _write_entry(name: str, entry: dict[str, Any], path: Path) -> None:
    """Put one entry into the index, in the order of `RECIPES`."""
    index = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    index[name] = entry
    ordered = {key: index[key] for key in (*RECIPES, *sorted(set(index) - set(RECIPES))) if key in index}
    write_atomic(path, (json.dumps(ordered, indent=1) + "\n").encode("utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
