"""The nonlinear fit takes account of a ReLU only where nothing else sees the layer's outputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.lowrank.response import decompose_responding


@pytest.fixture(autouse=True)
def keep_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


def inputs(seed):
    return torch.randn(200, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Used(nn.Module):
    """A layer, and what its output is used for."""

    def __init__(self, use):
        super().__init__()
        self.a, self.b, self.use = nn.Linear(12, 12), nn.Linear(12, 12), use

    def forward(self, x):
        return self.use(self, self.a(x))


USES = {
    "skip before": lambda self, h: h + self.b(F.relu(h)),
    "skip after": lambda self, h: self.b(F.relu(h)) + h,
    "concatenated": lambda self, h: torch.cat([self.b(h.relu()), h], 1),
    "another layer": lambda self, h: self.b(F.relu(h)) + F.linear(h, self.b.weight),
    "given back": lambda self, h: (self.b(F.relu(h)), {"features": h}),
    "added in place": lambda self, h: self.b(F.relu(h.add_(1.0))),
}


@pytest.mark.parametrize("use", USES)
def test_a_relu_counts_only_where_nothing_else_uses_the_output(use):
    torch.manual_seed(0)
    model = Used(USES[use]).double()
    batches = [inputs(seed) for seed in range(2)]
    linear, nonlinear = (decompose_responding(model, {"a": 4}, batches, nonlinear=n) for n in (False, True))
    assert all(map(torch.equal, linear.state_dict().values(), nonlinear.state_dict().values()))


@pytest.mark.parametrize(
    "use",
    [
        lambda self, h: self.b(F.relu(h)),
        lambda self, h: self.b(F.relu(h)) + h.relu().view(h.shape),  # two ReLUs, and a look at the shape
        lambda self, h: self.b(F.relu_(h)) + h,  # in place: h is what the ReLU left
        lambda self, h: self.b(F.relu(F.dropout(h, 0.5, False))),
    ],
)
def test_a_relu_counts_where_it_is_all_that_follows(use):
    torch.manual_seed(0)
    model, batches = Used(use).double(), [inputs(0)]
    linear, nonlinear = (decompose_responding(model, {"a": 4}, batches, nonlinear=n) for n in (False, True))
    assert not torch.equal(linear.a.expand.weight, nonlinear.a.expand.weight)
