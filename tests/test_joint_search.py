"""Sparsity and bits for every layer: bytes as in the file, search against enumeration, budgets always met."""

import itertools
import random
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compresslab.core import (
    CodebookCode,
    GapSparseCode,
    SparseCode,
    UniformCode,
    accuracy,
    decompress,
    encode,
    file_size,
    input_moments,
    save,
    train,
)
from compresslab.core.knapsack import check_budget, choose_within_budget, smallest_budget
from compresslab.data import load_data
from compresslab.hybrid.joint_options import (
    Option,
    apply_settings,
    code_bytes,
    file_budget,
    layer_options,
    option_bytes,
    prune_and_code,
    settings_bytes,
    settings_error,
)
from compresslab.hybrid.joint_search import (
    allocate,
    clip_action,
    clip_settings,
    evolve_settings,
    settings_accuracy,
    uniform_settings,
)
from compresslab.pruning.magnitude import magnitude_mask

SPARSITIES, BITS = (0.0, 0.5, 0.8), (2, 4)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def network(digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
    return train(model, digits.train, epochs=12, lr=0.1, progress=False)


@pytest.fixture(scope="module")
def options(network, digits):
    return layer_options(network, digits.validation, SPARSITIES, BITS)


def table(seed, layers=4, choices=5):
    rng = random.Random(seed)
    every = [(s, b) for s in (0.5, 0.7, 0.9) for b in (2, 3, 4)]
    return {
        f"l{i}": {
            s: Option(rng.randrange(0, 5000), rng.uniform(-0.01, 1.0)) for s in rng.sample(every, rng.randint(1, choices))
        }
        for i in range(rng.randint(1, layers))
    }


def every_settings(options):
    return [dict(zip(options, row, strict=True)) for row in itertools.product(*options.values())]


# ---- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sparsity", "kind"), [(0.0, CodebookCode), (0.25, SparseCode), (0.75, GapSparseCode)])
def test_code_of_an_option(sparsity, kind):
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    code = prune_and_code(weight, sparsity, 3)
    left = torch.where(magnitude_mask(weight, sparsity), weight, 0.0)
    assert type(code) is kind and torch.equal(code.decode() != 0, left != 0)
    assert torch.equal(code.decode()[left != 0], CodebookCode.from_dense(left[left != 0], 3).decode())
    uniform = prune_and_code(weight, sparsity, 3, make_values=UniformCode.from_dense)
    assert type(uniform if sparsity == 0 else uniform.values) is UniformCode


def test_zeros_that_are_there_stay_and_nothing_may_be_left():
    weight = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert prune_and_code(weight, 0.0, 1).decode()[0] == 0
    assert not prune_and_code(weight, 1.0, 2).decode().any()


def test_errors_are_the_rise_of_the_loss_with_one_layer_compressed(network, digits, options):
    assert list(options) == ["1", "3", "5"] and list(options["1"]) == list(itertools.product(SPARSITIES, BITS))
    x, y = digits.validation.x(), digits.validation.y
    with torch.no_grad():
        base = F.cross_entropy(network(x), y).item()
        for layer, setting in (("1", (0.8, 2)), ("5", (0.0, 4))):
            one = encode(network, {layer: lambda w, setting=setting: prune_and_code(w, *setting)})
            rise = F.cross_entropy(one(x), y).item() - base
            assert options[layer][setting].error == pytest.approx(rise, abs=1e-5)
    assert options["1"][0.8, 2].error > options["1"][0.0, 4].error


def test_errors_from_moments_are_those_of_the_outputs(network, digits):
    x = digits.train.x()[:200]
    moments = input_moments(network, ["1", "3"], [x])
    found = layer_options(network, moments, [0.5], [3], only=["1", "3"])
    with torch.no_grad():
        h = network[:3](x)
        change = F.linear(h, found["3"][0.5, 3].code.decode() - network[3].weight)
    assert found["3"][0.5, 3].error == pytest.approx(change.square().sum().item(), rel=1e-3)
    with pytest.raises(ValueError, match=r"moments of shape \(16, 16\), got none in layer '5'"):
        layer_options(network, moments, [0.5], [3])


def test_bytes_are_those_of_a_file(options, tmp_path):
    code = options["1"][0.8, 4].code
    with_it = save(nn.Sequential(code), tmp_path / "one", entropy=True)
    assert options["1"][0.8, 4].bytes == with_it - save(nn.Sequential(), tmp_path / "none", entropy=True)
    assert options["1"][0.8, 4].bytes < options["1"][0.5, 4].bytes < options["1"][0.0, 4].bytes + 300
    assert code_bytes(code, "a.much.longer.name") > code_bytes(code)


def test_a_convolution_has_options_too():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    data = load_data("digits").validation.take(50)
    found = layer_options(model, data, [0.5], [3])
    assert apply_settings(model, {"0": (0.5, 3), "2": (0.5, 3)})(data.x()).shape == (50, 10)
    assert found["0"][0.5, 3].code.shape == (4, 1, 3, 3)


def test_applied_from_the_table_or_anew_is_the_same(network, options):
    chosen = {"1": (0.8, 2), "3": (0.5, 4), "5": (0.0, 4)}
    one, other = apply_settings(network, chosen, options=options), apply_settings(network, chosen)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert isinstance(network[1], nn.Linear) and one[3].coded.values.bits == 4
    assert isinstance(apply_settings(network, {"1": (0.8, 2)})[3], nn.Linear)


# ---- the budget of the file --------------------------------------------------------------------------------


def test_the_file_stays_within_its_budget(network, options):
    costs = option_bytes(options)
    least = smallest_budget(costs)
    rest = file_size(apply_settings(network, allocate(options, least), options=options), entropy=True) - least
    rng = random.Random(0)
    for _ in range(8):
        budget = rng.randrange(least + rest + 200, 4000)
        room = file_budget(network, options, budget)
        proposed = {layer: rng.choice(list(row)) for layer, row in options.items()}
        for chosen in (allocate(options, room), clip_settings(options, proposed, room)):
            size = file_size(apply_settings(network, chosen, options=options), entropy=True)
            assert size <= budget
            assert size >= settings_bytes(options, chosen) + budget - room - 100  # and not far below it


def test_a_file_that_cannot_be_so_small(network, options):
    with pytest.raises(ValueError, match="a file of 500 bytes cannot be met; the smallest that surely can is") as caught:
        file_budget(network, options, 500)
    smallest = int(str(caught.value).split()[-1])
    room = file_budget(network, options, smallest)
    assert room == smallest_budget(option_bytes(options))
    assert file_size(apply_settings(network, allocate(options, room)), entropy=True) <= smallest
    with pytest.raises(ValueError, match="cannot be met"):
        file_budget(network, options, smallest - 1)


# ---- choosing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(15))
def test_allocation_equals_enumeration(seed):
    options = table(seed)
    every = every_settings(options)
    sizes = sorted(settings_bytes(options, one) for one in every)
    for budget in {sizes[0], sizes[len(sizes) // 2], sizes[-1]}:
        best = min(settings_error(options, one) for one in every if settings_bytes(options, one) <= budget)
        found = allocate(options, budget)
        assert list(found) == list(options) and settings_bytes(options, found) <= budget
        assert settings_error(options, found) == pytest.approx(best, abs=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_evolution_equals_enumeration_on_a_tiny_space(seed):
    options = table(seed, layers=3, choices=4)

    def score(one):  # layers that help each other: no sum
        value = settings_error(options, one)
        return -value - 0.3 * (sum(s for s, _ in one.values()) * 10 % 7) + (0.5 if len({b for _, b in one.values()}) == 1 else 0)

    every = every_settings(options)
    sizes = sorted(settings_bytes(options, one) for one in every)
    for budget in {sizes[0], sizes[2 * len(sizes) // 3]}:
        best = max(score(one) for one in every if settings_bytes(options, one) <= budget)
        found = evolve_settings(options, score, budget, seed=seed)
        assert found.score == best == score(found.best) and settings_bytes(options, found.best) <= budget
        assert all(settings_bytes(options, dict(pairs)) <= budget for pairs in found.scores)
        assert found.history[-1] == found.score


def test_evolution_from_the_program_is_never_worse_and_repeats():
    options = table(3, layers=4)
    budget = sum(max(o.bytes for o in row.values()) for row in options.values()) * 2 // 3
    first = allocate(options, budget)
    score = lambda one: -(settings_error(options, one) ** 2) - len({b for _, b in one.values()})  # noqa: E731
    small = {"population": 2, "parents": 1, "generations": 1}
    found = evolve_settings(options, score, budget, start=[first], **small)
    assert found.score >= score(first) and tuple(first.items()) in found.scores
    state = torch.get_rng_state()
    one, two, other = (evolve_settings(options, score, budget, generations=2, seed=seed) for seed in (1, 1, 2))
    assert list(one.scores) == list(two.scores) != list(other.scores) and torch.equal(torch.get_rng_state(), state)


def test_uniform_is_the_best_single_setting(options):
    offered = list(options["1"])
    sizes = {s: settings_bytes(options, dict.fromkeys(options, s)) for s in offered}
    for budget in (min(sizes.values()), sorted(sizes.values())[3], 10**6):
        found = uniform_settings(options, budget)
        fitting = [s for s in offered if sizes[s] <= budget]
        best = min(fitting, key=lambda s: settings_error(options, dict.fromkeys(options, s)))
        assert found == dict.fromkeys(options, best)
        assert settings_error(options, allocate(options, budget)) <= settings_error(options, found) + 1e-9
    few = uniform_settings(options, 10**6, score=lambda one: -settings_bytes(options, one))
    assert settings_bytes(options, few) == min(sizes.values())


def test_the_true_score_is_the_accuracy_of_the_compressed_network(network, digits, options):
    chosen = {"1": (0.8, 2), "3": (0.5, 4), "5": (0.0, 4)}
    truth = accuracy(decompress(apply_settings(network, chosen)), digits.validation)
    assert settings_accuracy(network, digits.validation)(chosen) == truth
    assert settings_accuracy(network, digits.validation, options)(chosen) == truth


def test_search_on_a_real_network_beats_uniform_settings_at_the_same_bytes(network, digits, options):
    room = file_budget(network, options, 2600)
    score = settings_accuracy(network, digits.validation, options)
    uniform, exact = uniform_settings(options, room), allocate(options, room)
    found = evolve_settings(options, score, room, start=[exact, uniform], population=6, parents=2, generations=3)
    assert found.score >= max(score(exact), score(uniform))
    assert settings_error(options, exact) <= settings_error(options, uniform)
    assert file_size(apply_settings(network, found.best), entropy=True) <= 2600


# ---- AMC's rule --------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_any_actions_end_under_the_budget(seed, share):
    options, rng = table(seed), random.Random(seed)
    least = smallest_budget(option_bytes(options))
    most = sum(max(o.bytes for o in row.values()) for row in options.values())
    budget = least + round(share * (most - least))
    proposed = {layer: rng.choice(list(row)) for layer, row in options.items()}
    found = clip_settings(options, proposed, budget)
    assert settings_bytes(options, found) <= budget
    if settings_bytes(options, proposed) <= budget:  # what fits is left alone
        assert found == proposed
    for layer in options:  # the first that is changed is as dear as it may be
        if found[layer] != proposed[layer]:
            assert options[layer][found[layer]].bytes < options[layer][proposed[layer]].bytes
            break


def test_clipping_by_hand():
    row = {(0.9, 2): Option(5, 4.0), (0.8, 3): Option(20, 3.0), (0.5, 4): Option(20, 2.0), (0.0, 4): Option(40, 1.0)}
    options = {"a": row, "b": row, "c": row}
    clip = partial(clip_action, options=options)
    assert clip("a", (0.0, 4), spent=0, budget_bytes=50) == (0.0, 4)  # exactly 40 + 5 + 5
    assert clip("a", (0.0, 4), spent=0, budget_bytes=49) == (0.5, 4)  # of two at 20 the less harmful
    assert clip("a", (0.8, 3), spent=0, budget_bytes=49) == (0.8, 3)  # what fits stays
    assert clip("b", (0.0, 4), spent=40, budget_bytes=50) == (0.9, 2)
    assert clip("c", (0.0, 4), spent=10, budget_bytes=50) == (0.0, 4)  # nothing comes after
    assert clip_settings(options, dict.fromkeys("abc", (0.0, 4)), 80) == {"a": (0.0, 4), "b": (0.5, 4), "c": (0.5, 4)}


def test_a_budget_that_cannot_be_met_says_what_can():
    row = {(0.9, 2): Option(5, 4.0), (0.5, 4): Option(20, 2.0)}
    options = {"a": row, "b": row}
    message = "a budget of 9 bytes cannot be met; the smallest that can is 10"
    for choose in (
        lambda: allocate(options, 9),
        lambda: evolve_settings(options, lambda one: 0.0, 9),
        lambda: clip_action("a", (0.9, 2), options, 0, 9),
        lambda: clip_settings(options, dict.fromkeys("ab", (0.5, 4)), 9),
    ):
        with pytest.raises(ValueError, match=message):
            choose()
    with pytest.raises(ValueError, match="one setting for all cannot keep a budget of 9 bytes.*is 10"):
        uniform_settings(options, 9)
    with pytest.raises(ValueError, match="a budget of 10 bytes cannot be met; the smallest that can is 13 in layer 'b'"):
        clip_action("b", (0.9, 2), options, 8, 10)


# ---- the knapsack ------------------------------------------------------------------------------------------


def test_knapsack_takes_any_choices_and_free_ones():
    errors = {"a": {"small": 3.0, "large": 1.0}, "b": {None: 2.0, (1, 2): 0.0}}
    costs = {"a": {"small": 0, "large": 7}, "b": {None: 0, (1, 2): 7}}
    assert choose_within_budget(errors, costs, 0) == {"a": "small", "b": None}
    assert choose_within_budget(errors, costs, 13)["b"] in (None, (1, 2))
    assert choose_within_budget(errors, costs, 14) == {"a": "large", "b": (1, 2)}
    free = {layer: dict.fromkeys(row, 0) for layer, row in costs.items()}
    assert choose_within_budget(errors, free, 0) == {"a": "large", "b": (1, 2)}
    with pytest.raises(ValueError, match="a budget of -1 cannot be met; the smallest that can is 0"):
        check_budget(costs, -1)


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsities": []}, ValueError, "at least one value each, got none"),
        ({"sparsities": [50]}, ValueError, "did you mean 0.5"),
        ({"bits": [2.5]}, TypeError, "bits must be"),
        ({"bits": [9]}, ValueError, "bits must be .* in layer '1'"),
        ({"only": ["7"]}, ValueError, "no such layer"),
        ({"model": nn.ReLU()}, ValueError, "there is no Linear"),
    ],
)
def test_bad_options_are_refused(network, digits, arguments, error, message):
    given_ = {"model": network, "data": digits.validation, "sparsities": [0.5], "bits": [2]}
    with pytest.raises(error, match=message):
        layer_options(**(given_ | arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one layer"),
        ({"a": {}}, "at least one setting, got none in layer 'a'"),
        ({"a": {(0.5, 2): Option(3, float("nan"))}}, "errors must be finite, got nan .* in layer 'a'"),
        ({"a": {(0.5, 2): Option(-3, 0.0)}}, "bytes must be .* in layer 'a'"),
    ],
)
def test_bad_tables_are_refused(options, message):
    for choose in (allocate, uniform_settings, partial(evolve_settings, score=len)):
        with pytest.raises(ValueError, match=message):
            choose(options, budget_bytes=10)


def test_unknown_settings_and_layers_are_refused(network, options):
    with pytest.raises(ValueError, match=r"must be one of .*, got \(0.3, 2\) in layer '1'"):
        settings_bytes(options, {"1": (0.3, 2), "3": (0.5, 2), "5": (0.5, 2)})
    with pytest.raises(ValueError, match="got None in layer '5'"):
        clip_settings(options, {"1": (0.5, 2), "3": (0.5, 2)}, 10**6)
    with pytest.raises(ValueError, match="in layer '9'"):
        apply_settings(network, {"9": (0.5, 2)}, options=options)
    with pytest.raises(ValueError, match="no such layer"):
        apply_settings(network, {"9": (0.5, 2)})
    with pytest.raises(ValueError, match="there is no layer '9'; the options are of 1, 3, 5"):
        clip_action("9", (0.5, 2), options, 0, 10**6)
    with pytest.raises(ValueError, match="the action must be one of .* in layer '1'"):
        clip_action("1", (0.3, 2), options, 0, 10**6)
    with pytest.raises(ValueError, match="no setting is offered by every layer"):
        uniform_settings({"a": {(0.1, 2): Option(1, 1.0)}, "b": {(0.2, 2): Option(1, 1.0)}}, 10)
