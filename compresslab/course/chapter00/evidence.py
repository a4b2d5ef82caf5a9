"""Chapter 00: the first figure, computed once and shipped: `python -m compresslab evidence 00`."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

SPARSITY, BITS = 0.8, 4


def drop_smallest(model: nn.Module, sparsity: float) -> nn.Module:
    """A copy in which the smallest weights of every linear layer are zero; nothing is trained again."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            flat = layer.weight.data.flatten()
            flat[flat.abs().argsort()[: round(sparsity * len(flat))]] = 0
            layer.weight.data = flat.view_as(layer.weight)
    return model


def round_weights(model: nn.Module, bits: int) -> nn.Module:
    """A copy whose linear layers' weights are whole multiples of one step, at most 2^(bits-1)-1 of them."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            scale = layer.weight.abs().max() / (2 ** (bits - 1) - 1)
            layer.weight.data = (layer.weight.data / scale).round() * scale
    return model


def ruler() -> list[dict[str, Any]]:
    """The baseline and three compressions of it: bytes of the file, change of accuracy with its interval."""
    from compresslab.core.codes import UniformCode
    from compresslab.core.layers import encode
    from compresslab.core.measure import file_size
    from compresslab.core.sparse import SparseCode
    from compresslab.core.statistics import paired_difference
    from compresslab.core.train import predict_labels
    from compresslab.data import load_data
    from compresslab.models import load_baseline

    test = load_data("ink_digits", train=0, validation=0).test
    dense = load_baseline("lenet300")
    dropped = drop_smallest(dense, SPARSITY)
    rounded = encode(dense, lambda weight: UniformCode.from_dense(weight, bits=BITS))
    networks = (("dense", "dense", dense, dense), ("80 % zeros, dense file", "pruning", dropped, dropped),
                ("80 % zeros, sparse file", "pruning", encode(dropped, SparseCode.from_dense), dropped),
                ("4-bit codes, packed", "quantization", rounded, round_weights(dense, BITS)))
    right, rows = predict_labels(dense, test) == test.y, []
    for name, family, stored, simulated in networks:
        change = paired_difference(predict_labels(simulated, test) == test.y, right)
        rows.append({"name": name, "family": family, "file_bytes": file_size(stored), "change": change.difference,
                     "low": change.low, "high": change.high})
    rows[0] |= {"low": 0.0, "high": 0.0}  # nothing is uncertain between a network and itself
    return rows


ENTRIES = {"ruler": ruler}
