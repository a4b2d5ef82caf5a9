"""The ledger of a file: every byte has a part, and each part is what was stored there."""

from functools import partial

import pytest
import safetensors.torch
import torch
from torch import nn

from compresslab.core import (
    CodebookCode,
    CompressedFileError,
    GapSparseCode,
    SparseCode,
    UniformCode,
    encode,
    gap_codebook,
    header_bytes,
    save,
    storage_report,
)
from compresslab.hybrid.file_ledger import PARTS, file_ledger
from compresslab.models import build_model
from compresslab.pruning import prune_magnitude


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model("resnet", depth=8, width=4)


def coded(make, sparsity=0.8):
    return encode(prune_magnitude(network(), sparsity), make)


MODELS = {
    "plain": network,
    "masked": lambda: prune_magnitude(network(), 0.5),
    "gaps": lambda: coded(gap_codebook(4, index_bits=8)),
    "mask and floats": lambda: coded(SparseCode.from_dense),
    "uniform": lambda: coded(partial(UniformCode.from_dense, bits=4, axis=0)),
    "codebook": lambda: coded(partial(CodebookCode.from_dense, bits=3)),
}


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_parts_add_up_to_the_file(name, entropy, tmp_path):
    path = tmp_path / "net.safetensors"
    size = save(MODELS[name](), path, entropy=entropy)
    ledger = file_ledger(path)
    assert tuple(ledger) == (*PARTS, "total")
    assert ledger["total"] == size == path.stat().st_size == sum(ledger[part] for part in PARTS)
    assert ledger["header"] == header_bytes(path)
    assert all(isinstance(value, int) and value >= 0 for value in ledger.values())


@pytest.mark.parametrize("name", MODELS)
def test_without_entropy_coding_each_part_is_what_the_model_stores(name, tmp_path):
    model = MODELS[name]()
    save(model, tmp_path / "net.safetensors")
    ledger, roles = file_ledger(tmp_path / "net.safetensors"), storage_report(model).by_role
    held = {role: bits // 8 for role, bits in roles.items()}
    assert ledger["values"] == sum(held.get(role, 0) for role in ("weight", "values", "indices"))
    assert ledger["index"] == sum(held.get(role, 0) for role in ("mask", "positions"))
    assert ledger["codebooks"] == sum(held.get(role, 0) for role in ("codebook", "scales"))
    assert (ledger["biases"], ledger["norm"]) == (held["bias"], held["norm"])
    assert ledger["other"] == 0
    assert ledger["total"] - ledger["header"] == sum(held.values())


def test_entropy_coding_shrinks_values_and_index_and_nothing_else(tmp_path):
    model = MODELS["gaps"]()
    ledgers = []
    for entropy in (False, True):
        save(model, tmp_path / "net.safetensors", entropy=entropy)
        ledgers.append(file_ledger(tmp_path / "net.safetensors"))
    packed, huffman = ledgers
    assert huffman["index"] < packed["index"]
    assert huffman["values"] <= packed["values"]
    for part in ("codebooks", "biases", "norm", "other"):
        assert huffman[part] == packed[part]
    assert huffman["header"] > packed["header"]  # says which arrays are coded, and how


def test_one_layer_by_hand(tmp_path):
    weight = torch.zeros(4, 25)
    weight.view(-1)[::10] = torch.arange(1.0, 11.0)  # 10 weights, 9 zeros before all but the first
    layer = nn.Linear(25, 4)
    layer.weight.data = weight
    values = partial(CodebookCode.from_dense, bits=2)
    model = encode(layer, partial(GapSparseCode.from_dense, values=values, index_bits=4))
    save(model, tmp_path / "net.safetensors")
    ledger = file_ledger(tmp_path / "net.safetensors", layer)
    assert ledger["index"] == 5  # 10 gaps of 4 bits
    assert ledger["values"] == 3  # 10 indices of 2 bits, rounded up to bytes
    assert ledger["codebooks"] == 16  # 4 floats
    assert ledger["biases"] == 16


def test_a_shared_weight_counts_once(tmp_path):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    size = save(model, tmp_path / "net.safetensors")
    ledger = file_ledger(tmp_path / "net.safetensors", model)
    assert (ledger["values"], ledger["biases"], ledger["total"]) == (144, 48, size)


def test_arrays_of_other_names_are_other(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3))

    save(Scaled(), tmp_path / "net.safetensors")
    assert file_ledger(tmp_path / "net.safetensors", Scaled())["other"] == 12


def test_files_that_are_none(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(OSError):
        file_ledger(path)
    save(network(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CompressedFileError, match="net.safetensors"):
        file_ledger(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)}))
    with pytest.raises(CompressedFileError, match="not one of compresslab"):
        file_ledger(path)
    save(nn.Linear(2, 2), path)
    with pytest.raises(CompressedFileError, match="skeleton"):
        file_ledger(path)
