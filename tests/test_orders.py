"""Orders of operations: each runs and is stored, what a later one keeps, and orders that are none."""

import copy
import itertools
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core import CodebookCode, GapSparseCode, UniformCode, decompress, encode, load, save
from compresslab.core.modules import named_layers
from compresslab.core.train import train
from compresslab.data import load_data
from compresslab.distillation import teacher_outputs
from compresslab.hybrid.orders import (
    OPERATIONS,
    OrderSettings,
    check_order,
    finish,
    run_order,
    shared_layers,
    structure_of,
)
from compresslab.pruning import layer_sparsity, masks_of, prune_magnitude, sparsity_of

SETTINGS = OrderSettings(sparsity=0.7, bits=2, fraction=0.6, epochs=1)
ORDERS = list(itertools.permutations(OPERATIONS))


@pytest.fixture(scope="module")
def split():
    return load_data("digits").train.take(128)


@pytest.fixture(scope="module")
def model(split):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    return train(network, split, epochs=3, progress=False)


@pytest.fixture(scope="module")
def taught(model, split):
    return teacher_outputs(model, split)


@pytest.fixture(scope="module")
def results(model, split, taught):
    return {order: run_order(model, order, split, teacher=taught, settings=SETTINGS) for order in ORDERS}


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.weight.detach() for name, layer in named_layers(model).items()}


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_is_stored_as_it_is(order, results, model, split, tmp_path):
    result, left = results[order]
    assert len(left) == 4 and left[-1] == structure_of(result)
    stored = finish(result)
    save(stored, tmp_path / "net.safetensors", entropy=True)
    skeleton = copy.deepcopy(model)
    loaded = load(tmp_path / "net.safetensors", skeleton)
    x = split.x()
    assert torch.equal(loaded(x), stored(x))
    torch.testing.assert_close(loaded(x), result(x))
    assert torch.equal(decompress(loaded)(x), loaded(x))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_only_decomposing_throws_structure_away(order, results, model):
    result, _ = results[order]
    place = {operation: order.index(operation) for operation in order}
    names = {name for name in weights_of(result) if name not in weights_of(model)}
    assert names  # factors
    sparse = place["prune"] > place["decompose"]
    shared = place["quantize"] > place["decompose"]
    for name in names:
        weight = weights_of(result)[name]
        zeros = int((weight == 0).sum())
        assert zeros == round(0.7 * weight.numel()) if sparse else zeros == 0
        distinct = len(weight[weight != 0].unique())
        assert distinct <= 4 if shared else distinct > 4
    assert left_of(result, names) == (("sparse " if sparse else "") + ("codebook" if shared else "floats"))


def left_of(model: nn.Module, names: set[str]) -> str:
    masks, shared = masks_of(model), shared_layers(model)
    (kind,) = {("sparse " * (n in masks)) + ("codebook" if n in shared else "floats") for n in names}
    return kind


KEEPING_ORDERS = list(itertools.permutations(["prune", "quantize", "distil"]))


@pytest.mark.parametrize("order", KEEPING_ORDERS, ids="-".join)
def test_without_decomposing_every_layer_keeps_sparsity_and_levels_exactly(order, model, split, taught):
    result, _ = run_order(model, order, split, teacher=taught, settings=SETTINGS)
    for weight in weights_of(result).values():
        assert int((weight == 0).sum()) == round(0.7 * weight.numel())
        assert len(weight[weight != 0].unique()) <= 4


def test_layers_that_are_not_split_keep_mask_and_levels(model, split, taught):
    settings = OrderSettings(sparsity=0.7, bits=2, ranks={"1": 3}, epochs=1)
    result, _ = run_order(model, ["prune", "quantize", "decompose"], split, teacher=taught, settings=settings)
    assert shared_layers(result) == ["3"] and list(masks_of(result)) == ["3"]
    assert layer_sparsity(result)["3"] == round(0.7 * 240) / 240
    assert result[1].reduce.weight.shape == (3, 64)


def test_a_mask_holds_the_same_places_through_later_training(model, split, taught):
    pruned, _ = run_order(model, ["prune"], split, teacher=taught, settings=SETTINGS)
    later, left = run_order(model, ["prune", "quantize", "distil"], split, teacher=taught, settings=SETTINGS)
    assert left == ["sparse floats", "sparse codebook", "sparse codebook"]
    for name, mask in masks_of(pruned).items():
        assert torch.equal(mask, masks_of(later)[name])
        assert not weights_of(later)[name][~mask].any()


def test_pruning_rounded_weights_breaks_ties_and_keeps_the_values_that_are_left(model, split, taught):
    settings = OrderSettings(sparsity=0.5, bits=2, epochs=0)
    rounded, _ = run_order(model, ["quantize"], split, teacher=taught, settings=settings)
    both, _ = run_order(model, ["quantize", "prune"], split, teacher=taught, settings=settings)
    for name, before in weights_of(rounded).items():
        after = weights_of(both)[name]
        assert int((after == 0).sum()) == round(0.5 * after.numel())  # exact, although many weights tie
        kept = after != 0
        torch.testing.assert_close(after[kept], before[kept], rtol=1e-6, atol=0)
        assert before[kept].abs().min() >= before[~kept].abs().max()


def test_without_training_pruning_first_gives_a_code_book_for_what_is_left(model, split, taught):
    """Quantizing last clusters only the survivors, so its error there is no larger."""
    settings = OrderSettings(sparsity=0.7, bits=2, epochs=0)
    prune_first, _ = run_order(model, ["prune", "quantize"], split, teacher=taught, settings=settings)
    for name, weight in weights_of(model).items():
        shown = weights_of(prune_first)[name]
        kept = shown != 0
        clusters = CodebookCode.from_dense(weight[kept], 2).decode()
        assert torch.equal(shown[kept], clusters)


def test_distil_listens_to_the_teacher_and_the_others_do_not(model, split, taught):
    other = teacher_outputs(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), split)

    def weight(order, outputs):
        return weights_of(run_order(model, order, split, teacher=outputs, settings=SETTINGS)[0])["1"]

    assert torch.equal(weight(["prune"], taught), weight(["prune"], other))
    assert not torch.equal(weight(["distil"], taught), weight(["distil"], other))


def test_the_network_and_the_global_generator_are_left_alone_and_runs_repeat(model, split):
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    run = partial(run_order, model, OPERATIONS, split, teacher=model, settings=SETTINGS)
    runs = [run(seed=seed)[0] for seed in (3, 3, 4)]
    first, again, other = (torch.cat([w.flatten() for w in weights_of(run).values()]) for run in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_finish_stores_each_structure_in_its_own_code():
    torch.manual_seed(0)
    layer = nn.Linear(50, 40)
    assert type(finish(layer)) is nn.Linear
    sparse = finish(prune_magnitude(layer, 0.9)).coded
    assert isinstance(sparse, GapSparseCode) and sparse.values.numel == 200
    barely = finish(prune_magnitude(layer, 0.1))  # gaps would cost more than the zeros
    assert type(barely) is nn.Linear and sparsity_of(barely) == 0.1


def test_codes_of_an_order(results):
    stored = finish(results["decompose", "prune", "quantize", "distil"][0])
    assert isinstance(stored[1].reduce.coded, GapSparseCode)
    assert isinstance(stored[1].reduce.coded.values, CodebookCode)
    stored = finish(results["prune", "decompose", "quantize", "distil"][0])
    assert isinstance(stored[1].reduce.coded, CodebookCode)
    stored = finish(results["quantize", "decompose", "prune", "distil"][0])
    assert isinstance(stored[1].reduce.coded, GapSparseCode)
    stored = finish(results["prune", "quantize", "decompose", "distil"][0])
    assert type(stored[1].reduce) is nn.Linear


def test_convolutions_run_too():
    split = load_data("digits").train.take(64)
    torch.manual_seed(0)
    convs = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    network = nn.Sequential(convs, nn.Flatten(), nn.Linear(128, 10))
    order = ["decompose", "quantize", "prune"]
    result, left = run_order(network, order, split, teacher=network, settings=SETTINGS)
    assert left == ["floats", "codebook", "sparse codebook"]
    assert torch.equal(decompress(finish(result))(split.x()), finish(result)(split.x()))


@pytest.mark.parametrize(
    "order, message",
    [
        ((), "at least one operation"),
        (("prune", "prune"), "'prune' twice"),
        (("prune", "distill"), "got 'distill'"),
        ("prune", "got the string 'prune'"),
    ],
)
def test_orders_that_are_none(order, message, model, split, taught):
    with pytest.raises(ValueError, match=message):
        check_order(order)
    with pytest.raises(ValueError, match=message):
        run_order(model, order, split, teacher=taught)


def test_a_network_that_was_compressed_before_is_refused(model, split, taught):
    coded = encode(model, UniformCode.from_dense)
    with pytest.raises(ValueError, match="encoded already in layer '1': decompress it first"):
        run_order(coded, ["prune"], split, teacher=taught)
    simulated, _ = run_order(model, ["quantize"], split, teacher=taught, settings=SETTINGS)
    with pytest.raises(ValueError, match="simulated already in layer '1'"):
        run_order(simulated, ["prune"], split, teacher=taught)


@pytest.mark.parametrize(
    "bad, error, message",
    [
        ({"sparsity": 80}, ValueError, "did you mean 0.8"),
        ({"bits": 9}, ValueError, "bits must be a whole number from 1 to 8, got 9"),
        ({"bits": 2.0}, TypeError, "bits"),
        ({"fraction": 0}, ValueError, "fraction must be positive"),
        ({"epochs": -1}, ValueError, "epochs"),
        ({"lr": 0.0}, ValueError, "lr must be positive"),
        ({"alpha": 2}, ValueError, "alpha"),
        ({"temperature": 0.0}, ValueError, "temperature"),
    ],
)
def test_bad_settings(bad, error, message):
    with pytest.raises(error, match=message):
        OrderSettings(**bad)


def test_ranks_out_of_reach(model, split, taught):
    with pytest.raises(ValueError, match="out of reach: the least ranks leave"):
        run_order(model, ["decompose"], split, teacher=taught, settings=OrderSettings(fraction=0.01))


def test_no_layer_no_structure():
    with pytest.raises(ValueError, match="no Linear"):
        structure_of(nn.ReLU())
