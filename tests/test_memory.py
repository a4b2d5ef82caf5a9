"""Peak activation memory: chains and shortcuts by hand, and against what really is allocated."""

import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compresslab.compare.memory import live_activations, peak_activation_bytes
from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode
from compresslab.core.modules import apply_mask_
from compresslab.models import build_model


class Shortcut(nn.Module):
    """x + second(tanh(first(x))), 4 to 6 to 4 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.tanh(self.first(x)))


class Halves(nn.Module):
    """Works on one half of the input and throws the other away; the whole stays in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.relu(x).chunk(2, 1)[0])


class Token(nn.Module):
    """A parameter that joins the activations as it is, like the class token of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 100))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.token.expand(x.shape[0], -1)[:, :1]


def floats(model: nn.Module, *shape: int) -> list[float]:
    return [moment.live_bytes / 4 for moment in live_activations(model, shape)]


def test_chain_holds_the_input_and_the_output_of_each_layer():
    assert floats(nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3), nn.Linear(3, 9)), 5) == [12, 10, 12]


def test_in_place_and_views_cost_nothing():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 3))
    assert floats(model, 1, 4, 4) == [16 + 8, 8, 8, 8 + 3]
    model[1] = nn.ReLU()
    assert floats(model, 1, 4, 4) == [16 + 8, 16, 8, 8 + 3]


def test_shortcut_holds_the_input_while_the_branch_runs():
    assert floats(Shortcut(), 4) == [4 + 6, 4 + 12, 4 + 6 + 4, 4 + 4 + 4]


def test_part_of_a_tensor_keeps_it_whole():
    assert floats(Halves(), 8)[-1] == 8 + 2


def test_batch_multiplies_activations_and_weights_do_not_count():
    model = nn.Sequential(nn.Linear(1000, 2))
    assert peak_activation_bytes(model, (1000,)) == 4 * 1002
    assert peak_activation_bytes(model, (1000,), batch=3) == 3 * 4 * 1002


def test_parameter_in_the_graph_is_no_activation():
    assert floats(Token(), 5)[-1] == 5 + 5
    assert peak_activation_bytes(Token(), (5,)) == 4 * 10


def test_moments_name_the_operations_in_order():
    operations = [moment.operation for moment in live_activations(Shortcut(), (4,))]
    assert operations == ["first", "tanh", "second", "add"]


class Allocated(TorchDispatchMode):
    """The most bytes that the tensors made by operations, and the input, really hold at a time."""

    def __init__(self, x: Tensor, model: nn.Module) -> None:
        super().__init__()
        self.weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self.tensors, self.peak = [weakref.ref(x)], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = [value for value in pytree.tree_leaves(result) if isinstance(value, Tensor)]
        self.tensors += map(weakref.ref, made)
        alive = [tensor for tensor in (reference() for reference in self.tensors) if tensor is not None]
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in alive}
        self.peak = max(self.peak, sum(size for key, size in storages.items() if key not in self.weights))
        return result


@torch.no_grad()
def test_chain_takes_what_a_real_run_that_forgets_at_once_takes():
    layers = [nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(inplace=True), nn.Linear(40, 10)]
    model = nn.Sequential(*layers)
    value = torch.zeros(1, 30)
    with Allocated(value, model) as run:
        for layer in layers:
            value = layer(value)
    assert run.peak == peak_activation_bytes(model, (30,)) == 4 * 100  # the ReLU that is not in place


def test_pruned_and_coded_networks_count_as_they_run():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    masked = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    apply_mask_(masked[0], torch.zeros(8, 4, dtype=torch.bool))
    dense = peak_activation_bytes(model, (4,))
    coded = encode(model, UniformCode.from_dense)
    assert peak_activation_bytes(masked, (4,)) == peak_activation_bytes(coded, (4,)) == dense


def test_course_network_and_model_left_alone():
    model = build_model("resnet", depth=8).train()
    before = next(model.parameters()).clone()
    assert peak_activation_bytes(model, (3, 32, 32)) > 2 * 4 * 16 * 32 * 32
    assert model.training and torch.equal(next(model.parameters()), before)


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_network_that_cannot_be_traced_is_refused():
    with pytest.raises(ValueError, match="Undecided cannot be followed"):
        live_activations(Undecided(), (3,))
    with pytest.raises(ValueError, match="Sequential cannot be followed"):
        live_activations(nn.Sequential(nn.Linear(4, 2)), (5,))
