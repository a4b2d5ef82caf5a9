"""The trial: clean inputs, remembered calls; and how answers are cloned, compared and described."""

import numpy as np
import pytest
import torch
from toy_chapter import EXERCISES, toy  # noqa: F401

from compresslab.course.compare import clone, describe, same
from compresslab.course.trial import Trial, Wrong

KEEP = EXERCISES[0]


def test_trial_clones_strides_aliases_modules_and_generators():
    layer = torch.nn.Linear(3, 2)
    view = torch.arange(12.0).view(3, 4).T
    generator = torch.Generator().manual_seed(5)
    seen = {}

    def spy(module, tensor, again, rng):
        seen.update(module=module, tensor=tensor, again=again, draw=torch.rand(3, generator=rng))
        return 0

    trial = Trial(KEEP, spy)
    trial.call(layer, view, view, generator)
    assert seen["module"] is not layer and same(seen["module"], layer)
    assert (
        seen["tensor"] is seen["again"]
        and seen["tensor"].stride() == view.stride()
        and seen["tensor"] is not view
    )
    assert torch.equal(
        torch.rand(3, generator=generator), seen["draw"]
    )  # the caller's generator did not move


def test_trial_notices_every_kind_of_changed_input():
    layer = torch.nn.Linear(2, 2)
    for change, args in [
        (lambda m: m.weight.data.zero_(), (layer,)),
        (lambda d: d.update(x=1), ({},)),
        (lambda a: a.append(1), ([],)),
        (lambda a: a.fill(1), (np.zeros(2),)),
    ]:
        with pytest.raises(Wrong, match="changed its input"):
            Trial(KEEP, change).call(*args)
    assert Trial(KEEP, lambda d: d.update(x=1)).use(lambda f, d: (f(d), d)[1], {}, may_change=True) == {
        "x": 1
    }


def test_trial_raises_expects_refusals():
    trial = Trial(KEEP, lambda x: int(x))
    assert "invalid literal" in str(trial.raises(ValueError, "a"))
    with pytest.raises(Wrong, match="must raise ValueError here"):
        trial.raises(ValueError, "1")
    with pytest.raises(Wrong, match="but must raise KeyError"):
        trial.raises(KeyError, "a")


def test_trial_draws_are_reproducible_and_differ_between_seeds():
    draws = [Trial(KEEP, None, seed).randn(4) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    trial = Trial(KEEP, None)
    assert {trial.integer(1, 3) for _ in range(60)} == {1, 2, 3}
    assert all(2 <= trial.uniform(2, 3) <= 3 for _ in range(20)) and trial.integers(0, 1, (4, 2)).shape == (
        4,
        2,
    )


@pytest.mark.parametrize(
    "a, b, equal",
    [
        (torch.ones(2), torch.ones(2, dtype=torch.float64), True),
        (1, torch.tensor(1), True),
        (1, torch.ones(1), False),
        (float("nan"), float("nan"), True),
        (torch.ones(2), [1.0, 1.0], False),
        ((1, [2]), [1, (2,)], True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        (ValueError("a"), ValueError("b"), True),
        (ValueError(), KeyError(), False),
        (None, None, True),
        (None, 0, False),
        ("a", "a", True),
        (torch.nn.Linear(1, 1), None, False),
        (1j, 1j, True),
        (np.array([1, 2]), torch.tensor([1, 2]), True),
    ],
)
def test_same(a, b, equal):
    assert same(a, b) is equal and same(b, a) is equal


def test_same_modules_by_state():
    a = torch.nn.Linear(2, 2)
    b = clone(a)
    assert same(a, b)
    b.weight.data[0, 0] += 1
    assert not same(a, b)


def test_describe():
    assert describe(torch.zeros(100)) == "tensor of shape (100,), values 0 to 0"
    assert describe(torch.zeros(0, 3)) == "empty tensor of shape (0, 3)"
    assert describe(torch.tensor([300], dtype=torch.int16)) == "tensor([300], dtype int16)"
    assert describe(torch.nn.Linear(3, 2)) == "Linear with 8 parameters"
    assert describe((1.0, "a")) == "(1, 'a')" and len(describe("x" * 999)) < 210
