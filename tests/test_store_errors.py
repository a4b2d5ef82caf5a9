"""Files that cannot be written or read: one clear error each, and nothing is lost."""

import json
import pickle
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from store_models import Net, build
from torch import nn

from compresslab.core import (
    CompressedFileError,
    WeightCode,
    encode,
    header_bytes,
    load,
    save,
    sparse_codebook,
    store,
)
from compresslab.models import build_model


def rewrite(path: Path, change) -> None:
    """Let ``change`` edit a file's metadata and tensors, with a checksum that fits: a forger's file."""
    info, tensors = store._parse(path.read_bytes())
    change(info, tensors)
    info.pop("crc32", None)
    info["crc32"] = store._checksum(info, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"compresslab": json.dumps(info)}))


# ---- what cannot be saved ----------------------------------------------------------------------------------


class OtherCode(WeightCode):
    def decode(self):
        return torch.zeros(self.shape)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    model = encode(nn.Sequential(nn.Linear(3, 2)), lambda weight: OtherCode(weight.shape))
    with pytest.raises(TypeError, match="layer '0.coded': OtherCode is not in STORED_CLASSES"):
        save(model, tmp_path / "f")
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    with pytest.raises(TypeError, match="layer '0': only masks can be stored"):
        save(model, tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_a_network_that_does_not_follow_from_its_spec_is_not_saved(tmp_path):
    model = build_model("lenet300")
    model.fc2 = Net()
    with pytest.raises(TypeError, match="the network differs from its spec by more than a file can say"):
        save(model, tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save(nn.Linear(2, 2), tmp_path / "f")
    old = (tmp_path / "f").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"compresslab.core.store.os.{function}", full)
            with pytest.raises(OSError, match="No space left"):
                save(nn.Linear(3, 3), tmp_path / "f")
        assert [path.name for path in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_bytes() == old
    with pytest.raises(OSError):
        save(nn.Linear(2, 2), tmp_path / "no such folder" / "f")


# ---- bad files ---------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    save(encode(build(Net), sparse_codebook(bits=4)), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def fails(path: Path, reason: str, skeleton: nn.Module | None = None) -> None:
    with pytest.raises(CompressedFileError, match=f"(?s)cannot load .*{path.name}: .*{reason}"):
        load(path, skeleton or build(Net))


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing", build(Net))


def test_every_truncation_is_noticed(saved):
    data = saved.read_bytes()
    for size in [*range(0, len(data), 97), len(data) - 1]:
        saved.write_bytes(data[:size])
        fails(saved, "")
    saved.write_bytes(data + b"more")
    fails(saved, "")


def test_flipped_bits_are_noticed(saved):
    data = saved.read_bytes()
    for position in range(0, len(data), 61):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        saved.write_bytes(damaged)
        if damaged.rstrip(b" ") != data.rstrip(b" "):
            fails(saved, "")
    damaged = bytearray(data)
    damaged[-1] ^= 1
    saved.write_bytes(damaged)
    fails(saved, "it is damaged: its checksum does not match")


def test_pickle_files_are_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save(Bomb(), tmp_path / "net.pt")
    fails(tmp_path / "net.pt", "looks like a pickle")
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(Bomb()))
    fails(tmp_path / "net.pkl", "looks like a pickle")
    assert not (tmp_path / "exploded").exists()


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "foreign"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)}))
    fails(path, "a safetensors file, but not one of compresslab")
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)}, {"compresslab": "[1"}))
    fails(path, "")
    for text in (b"", b"hello, this is text", b"\x00" * 40, b"\x89PNG\r\n\x1a\n" + b"\x00" * 50):
        path.write_bytes(text)
        fails(path, "")
    with pytest.raises(CompressedFileError, match="cannot read .*foreign"):
        header_bytes(path)


def test_another_version_is_refused(saved):
    rewrite(saved, lambda info, tensors: info.update(version=2))
    fails(saved, "it has format version 2, and this compresslab reads version 1")


def test_without_spec_and_skeleton_the_error_says_what_to_pass(saved):
    with pytest.raises(CompressedFileError, match="does not say which network it holds; pass skeleton="):
        load(saved)


def test_a_skeleton_of_another_network_is_refused(saved):
    fails(saved, "layer 'conv': the skeleton has no such layer", nn.Linear(2, 2))
    model = build(Net)
    model.extra = nn.Linear(2, 2)
    fails(saved, "tensor 'extra.bias' is missing: the file does not fit the network", model)


class Holder(nn.Module):
    """A network with a parameter of its own, which only the skeleton knows."""

    def __init__(self, parameter: torch.Tensor):
        super().__init__()
        self.scale = nn.Parameter(parameter, requires_grad=False)


def test_shapes_and_types_are_strict(tmp_path):
    save(Holder(torch.zeros(3)), tmp_path / "f")
    fails(
        tmp_path / "f",
        r"tensor 'scale' has shape \(3,\) in the file, \(4,\) in the network",
        Holder(torch.zeros(4)),
    )
    fails(
        tmp_path / "f",
        "tensor 'scale' has type torch.float32 in the file, torch.int64",
        Holder(torch.zeros(3).long()),
    )
    fails(tmp_path / "f", "tensor 'scale' is not wanted", nn.Module())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda layers: layers.update(conv=["os.system", {}]),
            "layer 'conv': 'os.system' is none of the plain layers",
        ),
        (lambda layers: layers.update(conv=["Module"]), "'Module' is none of the plain layers"),
        (lambda layers: layers.update(conv=[["Linear"], {}]), "layer 'conv'"),
        (lambda layers: layers.update(conv=None), "layer 'conv'"),
        (lambda layers: layers.update(conv=7), "layer 'conv'"),
        (lambda layers: layers.update(conv=[]), "layer 'conv'"),
        (lambda layers: layers.update(conv="nowhere"), "shares a layer 'nowhere' that is not there"),
        (
            lambda layers: layers.update({"forward.__globals__": ["Identity"]}),
            "the skeleton has no such layer",
        ),
        (
            lambda layers: layers.update(conv=["Linear", {"in_features": 10**15, "out_features": 10**15}]),
            "layer 'conv'",
        ),
        (lambda layers: layers.update(conv=["Linear", {"in_features": 10**9, "out_features": 10**9}]), ""),
        (
            lambda layers: layers.update(
                conv=["LSTM", {"input_size": 1, "hidden_size": 1, "num_layers": 10**9}]
            ),
            "num_layers",
        ),
        (lambda layers: layers.update(conv=["Linear", {"device": "cuda"}]), "takes no argument 'device'"),
        (lambda layers: layers.update(conv=["Sequential", 10**12]), "layer 'conv'"),
        (
            lambda layers: layers.update(conv=["Sequential", ["0"]]),
            "a child of the Sequential is not described",
        ),
        (lambda layers: layers["conv"][2]["coded"][1].update(shape=[10**9, 10**9]), "layer 'conv'"),
        (lambda layers: layers["conv"][2]["coded"][1].update(shape="x"), "layer 'conv'"),
        (lambda layers: layers["conv"][2].pop("coded"), "layer 'conv': coded must be a WeightCode"),
        (lambda layers: layers["conv"][2].update(forward=["Identity"]), "layer 'conv'"),
    ],
)
def test_hostile_structures_are_refused(saved, change, reason):
    rewrite(saved, lambda info, tensors: change(info["layers"]))
    fails(saved, reason)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("layers", [1]),
        ("ties", {"head.bias": "nothing"}),
        ("views", {"head.bias": ["head.bias", "float32", 0, [10**12], [1]]}),
        ("views", {"head.bias": ["head.bias", "__class__", 0, [5], [1]]}),
        ("huffman", {"head.coded.mask": [4, "uint8", 5]}),
        ("huffman", {"head.bias": [4, "float32", 5]}),
    ],
)
def test_hostile_entries_are_refused(saved, entry, value):
    rewrite(saved, lambda info, tensors: info.update({entry: value}))
    fails(saved, "")


def test_a_hostile_spec_is_refused(saved):
    rewrite(saved, lambda info, tensors: info.update(spec={"model": "lenet300", "num_classes": 10**9}))
    with pytest.raises(CompressedFileError, match="cannot load"):
        load(saved)
    rewrite(saved, lambda info, tensors: info.update(spec="__import__('os')"))
    with pytest.raises(CompressedFileError, match="cannot load"):
        load(saved)


def test_nothing_is_imported_for_an_unknown_class(saved):
    rewrite(saved, lambda info, tensors: info["layers"].update(conv=["this", {}]))
    sys.modules.pop("this", None)
    fails(saved, "'this' is none of the plain layers")
    assert "this" not in sys.modules


def test_a_missing_array_is_named(saved):
    rewrite(saved, lambda info, tensors: tensors.pop("head.bias"))
    fails(saved, "layer 'head': bias must be a Tensor, got NoneType")


def test_an_extra_array_is_named(saved):
    rewrite(saved, lambda info, tensors: tensors.update({"zzz": torch.zeros(2)}))
    fails(saved, "tensor 'zzz' is not wanted")


@pytest.mark.parametrize("low_byte", [0x80, 0x50])
def test_a_header_whose_length_starts_like_a_pickle_is_none(tmp_path, low_byte):
    model, path = nn.Sequential(nn.Linear(2, 2)), tmp_path / "net.safetensors"
    for extra in range(1, 2000):  # the name's length steers the header's
        named = nn.Module()
        named.add_module("x" * extra, model)
        save(named, path)
        if path.read_bytes()[0] == low_byte:
            break
    assert path.read_bytes()[0] == low_byte
    assert torch.equal(load(path, named).get_submodule("x" * extra)[0].weight, model[0].weight)
