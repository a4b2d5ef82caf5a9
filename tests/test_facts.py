"""What one run does: MACs as counted by the library, bytes and operations worked by hand."""

import pytest
import torch
from torch import nn

from compresslab.core import bake, count_macs, decompress
from compresslab.core.prepare import prepare
from compresslab.deploy.facts import RunFacts, run_facts, tensor_bytes
from compresslab.deploy.sparse_speed import SparseLinear, random_sparse, to_csr
from compresslab.models import load_baseline
from compresslab.pruning import prune_magnitude
from compresslab.quantization import FakeQuantize


@pytest.mark.parametrize("name", ["resnet8", "mobilenet", "vgg", "lenet5"])
def test_macs_are_those_of_the_library(name):
    net, shape = load_baseline(name), (1, 28, 28) if name == "lenet5" else (3, 32, 32)
    assert run_facts(net, torch.zeros(2, *shape)).macs == 2 * count_macs(net, shape).total


def test_bytes_and_operations_by_hand():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Flatten())
    facts = run_facts(net, torch.zeros(2, 4))
    assert facts.macs == 2 * 4 * 3
    assert facts.bytes == 4 * (12 + 8 + 6) + 4 * (6 + 6)  # product: W, x, y; ReLU: y, z; flattening is a view
    assert facts.operations == 2 and facts.intensity == 24 / facts.bytes
    assert facts.dtypes == ("float32",) and not facts.sparse


def test_convolution_with_groups_and_bias():
    conv = nn.Conv2d(4, 8, 3, padding=1, groups=2)
    facts = run_facts(conv, torch.zeros(5, 4, 6, 6))
    assert facts.macs == 5 * 36 * 8 * 2 * 9 and facts.operations == 1
    assert facts.bytes == 4 * (8 * 2 * 9 + 8 + 5 * 4 * 36 + 5 * 8 * 36)


def test_zeros_are_counted_but_multiplied():
    net = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))
    pruned = bake(decompress(prune_magnitude(net, 0.5)))
    before, after = run_facts(net, torch.zeros(1, 10)), run_facts(pruned, torch.zeros(1, 10))
    assert after.zeros == pytest.approx(0.5) and before.zeros == 0
    assert (after.macs, after.bytes, after.operations) == (before.macs, before.bytes, before.operations)


def test_sparse_product_is_seen():
    layer = nn.Linear(20, 10, bias=False)
    layer.weight = nn.Parameter(random_sparse(10, 20, 0.1))
    facts = run_facts(SparseLinear(layer), torch.zeros(3, 20))
    assert facts.sparse and facts.macs == 20 * 3 and facts.zeros == 0
    assert run_facts(layer, torch.zeros(3, 20)).zeros == pytest.approx(0.9)


def test_simulation_adds_operations_and_no_multiplications():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    rounded = prepare(net, lambda weight: FakeQuantize(bits=8))
    before, after = run_facts(net, torch.zeros(1, 6)), run_facts(rounded, torch.zeros(1, 6))
    assert after.macs == before.macs and after.operations > before.operations


def test_half_precision_halves_the_bytes():
    net = nn.Linear(8, 8)
    wide, narrow = run_facts(net, torch.zeros(1, 8)), run_facts(nn.Linear(8, 8).bfloat16(), torch.zeros(1, 8, dtype=torch.bfloat16))
    assert wide.bytes == 2 * narrow.bytes and narrow.dtypes == ("bfloat16",)


def test_mode_and_weights_are_left_alone():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    run_facts(net, torch.randn(2, 1, 5, 5))
    assert net.training and all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_bytes_of_sparse_rows_hold_the_indices():
    weight = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    assert tensor_bytes(weight) == 16 and tensor_bytes(to_csr(weight)) == 4 + 4 + 3 * 4


def test_nothing_multiplied():
    assert run_facts(nn.Identity(), torch.zeros(3)) == RunFacts(0, 0, 0, 0.0, (), False)
    assert run_facts(nn.Identity(), torch.zeros(3)).intensity == 0
