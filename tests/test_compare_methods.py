"""The methods of the comparison: each runs on the network it suits, and its file is what its family promises."""

import itertools

import pytest
import torch
from torch import nn

from compresslab.compare import methods as M
from compresslab.compare.jobs import plan
from compresslab.core import count_macs, decompress, load, save
from compresslab.core.measure import file_size
from compresslab.data import Data, Split
from compresslab.models import load_baseline

CASES = [("lenet300", name) for name, method in M.METHODS.items() if method.suits("lenet300")] + [("resnet8", "separable")]


@pytest.fixture(scope="module")
def few_images():
    """A data set by the shape of a network's images: noise, for nothing here is about accuracy."""
    def make(network):
        shape = (1, 28, 28) if network == "lenet300" else (3, 32, 32)
        images = torch.randint(0, 256, (64, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        split = Split(images, torch.arange(64) % 10, (0.5,) * shape[0], (0.25,) * shape[0])
        return Data("ink_digits" if shape[0] == 1 else "street_digits", split, split, split, 10)

    return make


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(M, "IMAGES", {"ink_digits": 64, "street_digits": 64})
    monkeypatch.setattr(M, "CALIBRATION", 64)
    monkeypatch.setattr(M, "SCRATCH_EPOCHS", 1)


@pytest.mark.parametrize("network, name", CASES)
def test_a_method_gives_a_smaller_file_that_loads(network, name, few_images, quick, tmp_path):
    method, model = M.METHODS[name], load_baseline(network)
    data, setting, x = few_images(network), method.settings[-1], few_images(network).test.x()[:4]
    compressed = method.run(network, model, setting, data, 1)
    size = save(compressed, tmp_path / "a.safetensors", entropy=True)
    assert size < file_size(model, entropy=True)
    assert torch.equal(load(tmp_path / "a.safetensors")(x), compressed.eval()(x))


@pytest.mark.parametrize("name", ["random", "hashed", "distilled", "gradual"])
def test_a_seed_says_everything(name, few_images, quick):
    method, model, data = M.METHODS[name], load_baseline("lenet300"), few_images("lenet300")
    one, same, other = (method.run("lenet300", model, method.settings[0], data, seed) for seed in (1, 1, 2))
    x = data.test.x()[:4]
    assert torch.equal(decompress(one)(x), decompress(same)(x))
    assert not torch.equal(decompress(one)(x), decompress(other)(x))


def test_every_family_is_there_and_names_are_plain():
    families = {method.family for method in M.METHODS.values()}
    assert families == {"pruning", "quantization", "compact", "distillation", "lowrank", "sharing", "hybrid"}
    assert all(method.text and method.settings for method in M.METHODS.values())


def test_the_plan_leaves_out_what_does_not_suit():
    jobs = plan(M.NETWORKS, M.METHODS, 1)
    assert {job.network for job in jobs if job.method == "separable"} == set(M.CONVOLUTIONAL)


@pytest.mark.parametrize("network", M.NETWORKS)
def test_narrow_networks_are_narrow_and_seeded(network):
    shape = (1, 1, 28, 28) if network.startswith("lenet") else (1, 3, 32, 32)
    sizes = [count_macs(M.narrow_network(network, factor, 0), shape[1:]).total for factor in (0.25, 0.5, 1.0)]
    assert all(small < large for small, large in itertools.pairwise(sizes))
    assert sizes[-1] == count_macs(load_baseline(network), shape[1:]).total
    one, same, other = (M.narrow_network(network, 0.25, seed).state_dict() for seed in (1, 1, 2))
    weights = [name for name, tensor in one.items() if tensor.ndim > 1]
    assert all(torch.equal(one[name], same[name]) for name in weights)
    assert not any(torch.equal(one[name], other[name]) for name in weights)


def test_product_groups_divide_every_layer():
    assert [M._divisor(columns, 4) for columns in (8, 27, 25, 7, 1)] == [4, 3, 1, 1, 1]


def test_separable_leaves_the_first_and_the_1x1_convolutions(few_images, quick):
    model = M.separable("resnet8", load_baseline("resnet8"), "1", few_images("resnet8"), 0)
    kinds = {type(dict(model.named_modules())[name]) for name in ("conv1", "stage2.0.shortcut.0")}
    assert kinds == {nn.Conv2d} and isinstance(model.stage1[0].conv1, nn.Sequential)
