"""Files: what was saved comes back."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from store_models import Net, Tied, build, images, pruned, tokens
from torch import nn

from compresslab.core import (
    CodebookCode,
    DenseCode,
    SparseCode,
    UniformCode,
    apply_mask_,
    encode,
    gap_codebook,
    get_mask,
    header_bytes,
    load,
    payload_bits,
    save,
    sparse_codebook,
    storage_bits,
)
from compresslab.core.structure import STORED_CLASSES, describe, difference, find_class
from compresslab.models import build_model

MAKE = {
    "dense": DenseCode.from_dense,
    "uniform": partial(UniformCode.from_dense, bits=4, axis=0),
    "codebook": partial(CodebookCode.from_dense, bits=3),
    "sparse codebook": sparse_codebook(bits=2),
    "gaps": gap_codebook(bits=4),
}


def metadata(path: Path) -> dict:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["compresslab"])


@pytest.mark.parametrize("make_code", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize(("make", "x"), [(Net, images), (Tied, tokens)], ids=["net", "tied"])
@pytest.mark.parametrize("entropy", [False, True])
def test_reload_gives_identical_outputs_and_sizes(tmp_path, make_code, make, x, entropy):
    model = encode(pruned(build(make)), make_code)
    path, skeleton = tmp_path / "net.safetensors", build(make, seed=7)
    before = {name: value.clone() for name, value in skeleton.state_dict().items()}
    size = save(model, path, entropy=entropy)
    back = load(path, skeleton)
    assert torch.equal(back(x), model(x)) and not back.training
    assert back.state_dict().keys() == model.state_dict().keys()
    assert storage_bits(back) == storage_bits(model)
    assert size == path.stat().st_size == header_bytes(path) + payload_bits(path) / 8
    assert entropy or payload_bits(path) == storage_bits(model)
    assert all(torch.equal(before[name], value) for name, value in skeleton.state_dict().items())
    if make is Tied:
        assert back.embed.coded is back.head.coded
    else:
        assert back.twice is back.again


def test_plain_networks_keep_tied_weights_and_trainability(tmp_path):
    model = build(Tied)
    model.position.requires_grad_(False)
    skeleton = build(Tied, seed=1)
    skeleton.position.requires_grad_(False)
    save(model, tmp_path / "f")
    back = load(tmp_path / "f", skeleton)
    assert (
        back.embed.weight is back.head.weight
        and back.embed.weight.requires_grad
        and not back.position.requires_grad
    )
    assert torch.equal(back(tokens), model(tokens))
    assert payload_bits(tmp_path / "f") == storage_bits(model)


def test_same_model_same_file(tmp_path):
    for name in ("a", "b"):
        save(encode(build(Net), MAKE["uniform"]), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_network_with_a_spec_needs_no_skeleton_in_a_fresh_process(tmp_path):
    script = [
        "import sys, torch",
        "from compresslab.core import load",
        "x = torch.load(sys.argv[1], weights_only=True)",
        "torch.save([load(path)(x).detach() for path in sys.argv[2:]], sys.argv[1])",
    ]
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    models = [
        encode(pruned(build(lambda: build_model("lenet300")), 0.05), make_code) for make_code in MAKE.values()
    ]
    narrow = build(lambda: build_model("lenet300"))
    first, second = nn.Linear(784, 40), nn.Linear(40, 100)
    narrow.fc1, narrow.fc2 = first, nn.Sequential(second, nn.Identity())
    models += [narrow, encode(narrow, MAKE["uniform"])]
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(models))]
    for model, path in zip(models, paths):
        save(model, path)
    torch.save(x, tmp_path / "x.pt")
    command = [sys.executable, "-c", "\n".join(script), str(tmp_path / "x.pt"), *map(str, paths)]
    subprocess.run(command, check=True, timeout=300)
    for model, found in zip(models, torch.load(tmp_path / "x.pt", weights_only=True)):
        assert torch.equal(found, model(x))


def test_with_a_spec_only_what_differs_is_described(tmp_path):
    model = build(lambda: build_model("lenet300"))
    save(model, tmp_path / "plain")
    assert "layers" not in metadata(tmp_path / "plain") and metadata(tmp_path / "plain")["spec"] == model.spec
    save(encode(model, MAKE["uniform"], only=["fc2"]), tmp_path / "coded")
    assert list(metadata(tmp_path / "coded")["layers"]) == ["fc2"]
    assert header_bytes(tmp_path / "coded") < 1000


def test_a_narrower_network_loads_into_the_wide_skeleton(tmp_path):
    narrow = build(lambda: Net(width=3))
    save(narrow, tmp_path / "f")
    back = load(tmp_path / "f", build(Net))
    assert torch.equal(back(images), narrow(images))
    assert back.conv.out_channels == 3 and back.depth.groups == 3 and back.norm.num_features == 3
    assert back.head.in_features == 3 and back.twice is back.again
    save(encode(narrow, MAKE["codebook"]), tmp_path / "g")
    assert torch.equal(load(tmp_path / "g", build(Net))(images), encode(narrow, MAKE["codebook"])(images))


def test_a_layer_replaced_by_two_and_one_by_nothing(tmp_path):
    model = build(Net)
    model.head = nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 5))
    model.depth = nn.Identity()
    save(model, tmp_path / "f")
    back = load(tmp_path / "f", build(Net))
    assert torch.equal(back(images), model(images)) and isinstance(back.depth, nn.Identity)


def test_a_shorter_sequential_and_layers_no_longer_shared(tmp_path):
    long = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    long[2] = long[0]
    apart = build(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)))
    save(apart, tmp_path / "f")
    x = torch.ones(1, 4)
    assert torch.equal(load(tmp_path / "f", long)(x), apart(x))
    save(apart[:2], tmp_path / "g")
    assert torch.equal(load(tmp_path / "g", long)(x), apart[:2](x))


def test_a_single_layer_is_a_network_too(tmp_path):
    layer = encode(build(lambda: nn.Linear(4, 3)), MAKE["uniform"])
    save(layer, tmp_path / "f")
    assert torch.equal(load(tmp_path / "f", nn.Linear(4, 3))(torch.ones(1, 4)), layer(torch.ones(1, 4)))


def test_masks_come_back_as_masks(tmp_path):
    model = build(Net)
    mask = torch.rand(model.conv.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    apply_mask_(model.conv, mask)
    save(model, tmp_path / "f")
    for skeleton in (build(Net), model):
        back = load(tmp_path / "f", skeleton)
        assert torch.equal(get_mask(back.conv), mask) and torch.equal(back(images), model(images))
    assert payload_bits(tmp_path / "f") == storage_bits(model)
    assert get_mask(load_plain(tmp_path, build(Net), model).conv) is None


def load_plain(tmp_path: Path, plain: nn.Module, masked_skeleton: nn.Module) -> nn.Module:
    save(plain, tmp_path / "plain")
    return load(tmp_path / "plain", masked_skeleton)


def test_other_float_types_and_memory_formats(tmp_path):
    model = build(Net).to(memory_format=torch.channels_last)
    save(model, tmp_path / "f")
    assert torch.equal(load(tmp_path / "f", build(Net)).conv.weight, model.conv.weight)
    assert payload_bits(tmp_path / "f") == storage_bits(model)
    half = build(Net).half()
    save(half, tmp_path / "h")
    assert load(tmp_path / "h", build(Net)).conv.weight.dtype == torch.float16
    assert payload_bits(tmp_path / "h") == storage_bits(half)


def test_views_of_one_storage_are_written_once(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 2))
    big = torch.arange(20.0)
    model[0].weight = nn.Parameter(big[:6].view(2, 3))
    model[1].weight = nn.Parameter(model[0].weight.detach().t())
    model[2].weight = nn.Parameter(big[8:14].view(2, 3))
    save(model, tmp_path / "f")
    assert payload_bits(tmp_path / "f") == storage_bits(model)
    back = load(tmp_path / "f", nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 2)))
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), model.parameters()))
    assert storage_bits(back) == storage_bits(model)


def test_entropy_coding_shrinks_what_it_can_and_only_that(tmp_path):
    weight = torch.randn(200, 200, generator=torch.Generator().manual_seed(0)) ** 3
    layer = nn.Linear(200, 200, bias=False)
    layer.weight.data = weight * (weight.abs() > 1)
    coded = encode(nn.Sequential(layer), gap_codebook(bits=5))
    plain, small = save(coded, tmp_path / "plain"), save(coded, tmp_path / "small", entropy=True)
    assert small < 0.95 * plain and set(metadata(tmp_path / "small")["huffman"]) <= set(coded.state_dict())
    random = encode(nn.Sequential(nn.Linear(100, 100, bias=False)), partial(UniformCode.from_dense, bits=8))
    random[0].coded.packed.random_(0, 256, generator=torch.Generator().manual_seed(0))
    assert save(random, tmp_path / "a", entropy=True) == save(random, tmp_path / "b")


def test_every_class_in_the_table_exists():
    for name in STORED_CLASSES:
        cls = find_class(name)
        assert cls.__name__ == name and issubclass(cls, nn.Module) and isinstance(cls.meta, tuple)


def test_a_changed_layer_is_named_wherever_it_is_shared():
    planned, model = describe(build(Net)), encode(build(Net), MAKE["uniform"], only=["twice"])
    changed = difference(describe(model), planned)
    assert list(changed) == ["twice", "again"] and changed["again"] == "twice"
    assert changed["twice"][1] == {}  # the geometry is as planned
    assert difference(planned, planned) == {}


def test_an_attribute_called_meta_is_no_claim_to_be_stored(tmp_path):
    model = build(Net)
    model.meta = ("anything",)
    save(model, tmp_path / "f")
    assert torch.equal(load(tmp_path / "f", build(Net))(images), model(images))


def test_sparse_code_with_nothing_left(tmp_path):
    model = build(Net)
    with torch.no_grad():
        model.head.weight.zero_()
    for make_code in (SparseCode.from_dense, gap_codebook(bits=2), sparse_codebook(bits=2)):
        coded = encode(model, make_code)
        for entropy in (False, True):
            save(coded, tmp_path / "f", entropy=entropy)
            assert torch.equal(load(tmp_path / "f", build(Net))(images), coded(images))
