"""The trained baselines that ship with the course: loaded by name, their checksum verified.

`compresslab/checkpoints/index.json` has one entry per baseline: the specification of the network, the data
set, the accuracy measured on test images, how it was trained, and the sha256 of its safetensors file. All of
it is written by `python -m compresslab baselines`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from compresslab.models.spec import from_spec

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


def baseline_names(folder: Path = CHECKPOINTS) -> list[str]:
    """The names that `load_baseline` knows."""
    return list(_index(folder))


def baseline_info(name: str, folder: Path = CHECKPOINTS) -> dict[str, Any]:
    """What is known about a baseline.

    Returns:
        a dictionary with `spec`, `dataset`, `accuracy` (fraction), `n` (test images it was measured on),
        `accuracy_1000` (on the first thousand of them), `parameters`, `epochs`, `lr`, `warmup`,
        `seed`, `sha256` and `command`.
    Raises:
        ValueError: an unknown name.
    Example:
        >>> baseline_info("lenet300")["parameters"]
        266610
    """
    index = _index(folder)
    if name not in index:
        raise ValueError(f"there is no baseline {name!r}; choose one of {', '.join(index)}")
    return index[name]


def load_baseline(name: str, folder: Path = CHECKPOINTS) -> nn.Module:
    """A trained network, in eval mode.

    Args:
        name: one of `baseline_names()`.
        folder: where the checkpoints are.
    Raises:
        ValueError: an unknown name, or a file that is missing or does not match its checksum.
    Example:
        >>> load_baseline("lenet300").fc1
        Linear(in_features=784, out_features=300, bias=True)
    """
    info = baseline_info(name, folder)
    path = folder / f"{name}.safetensors"
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != info["sha256"]:
        state = "altered" if content else "missing"
        repair = f"install the package again, or run `{info['command']}`"
        raise ValueError(f"the checkpoint {path} is {state}: {repair}")
    model = from_spec(info["spec"])
    model.load_state_dict(safetensors.torch.load(content))
    return model.eval()


def _index(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "index.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
