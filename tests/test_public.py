"""The table of public networks, on its smallest ones, and the pieces that make its forms."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from compresslab.compare import public
from compresslab.compare.public import (
    INPUT,
    NETWORKS,
    build_public,
    halve_by_rank,
    measure_public,
    nearest_factors,
    prune_by_half,
    public_table,
    store_in_bits,
)
from compresslab.core.macs import count_macs
from compresslab.lowrank import truncated_svd


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def grouped() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def small_input(monkeypatch):
    """The same networks on small images: the measuring is the same, and takes less time."""
    monkeypatch.setattr(public, "INPUT", (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("squeezenet1_0", 1_248_424, 818_924_576), ("shufflenet_v2_x1_0", 2_278_604, 144_907_992)],
)
def test_counts_are_those_that_torchvision_publishes(name, parameters, macs):
    from torchvision import models

    published = models.get_model_weights(name).DEFAULT.meta
    model = build_public(name)
    assert size(model) == published["num_params"] == parameters
    assert count_macs(model, INPUT).total == macs
    assert macs / 1e9 == pytest.approx(published["_ops"], abs=0.0006)  # in billions, three digits


def test_a_network_is_the_same_every_time_and_leaves_the_global_generator():
    state = torch.random.get_rng_state()
    first, second = (next(build_public("squeezenet1_0").parameters()) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.random.get_rng_state(), state)


# ---- forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (9, 9)])
@pytest.mark.parametrize("rank", [1, 4, 6])
def test_nearest_factors_are_the_truncated_svd(shape, rank):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    B, A = nearest_factors(matrix, rank)
    assert B.shape == (shape[0], rank) and A.shape == (rank, shape[1])
    expected = torch.mm(*truncated_svd(matrix, rank))
    assert torch.allclose(B @ A, expected, atol=1e-5)


def test_half_the_rank_is_at_most_half_of_the_weights_and_of_the_operations():
    model = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.Flatten(), nn.Linear(64, 50, bias=False))
    small, note = halve_by_rank(model)
    assert 0.4 * size(model) < size(small) <= size(model) / 2
    macs, before = (count_macs(network, (8, 4, 4)).total for network in (small, model))
    assert 0.4 * before < macs <= before / 2
    assert note == "2 of 2 layers decomposed; not retrained"
    assert isinstance(model[0], nn.Conv2d)


def test_what_cannot_be_decomposed_is_named():
    model = nn.Sequential(nn.Linear(16, 16), nn.Conv2d(4, 4, 3, groups=4), nn.MultiheadAttention(16, 2))
    assert halve_by_rank(model)[1] == (
        "1 of 3 layers decomposed (1 grouped convolutions have no matrix of their own, "
        "1 layers are read by attention itself); not retrained"
    )
    with pytest.raises(ValueError, match="no layer of this network can be decomposed"):
        halve_by_rank(grouped())


def test_pruning_leaves_half_of_every_layer_between():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3))
    small, _ = prune_by_half(model)
    assert (small[0].out_channels, small[2].in_channels, small[2].out_channels) == (4, 4, 6)
    with pytest.raises(ValueError, match="no scored layer has channels that may go"):
        prune_by_half(nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_codes_have_their_bits_and_a_scale_per_channel():
    coded, _ = store_in_bits(nn.Sequential(nn.Linear(10, 4)), 4)
    assert coded[0].coded.bits == 4 and len(coded[0].coded.scale) == 4


# ---- rows --------------------------------------------------------------------------------------------------


def test_rows_of_the_smallest_network(small_input):
    forms = ("dense", "pruned by half", "4 bits")
    rows = {form: measure_public("squeezenet1_0", form, repeats=1, threads=1) for form in forms}
    dense = rows["dense"]
    assert dense["parameters"] == 1_248_424 and 4 * 1_248_424 < dense["file_bytes"] < 4.1 * 1_248_424
    assert 7.3 < dense["file_bytes"] / rows["4 bits"]["file_bytes"] < 8
    for what in ("parameters", "macs", "peak_activation_bytes"):  # it runs as the dense network does
        assert rows["4 bits"][what] == dense[what]
        assert rows["pruned by half"][what] < 0.6 * dense[what]
    for form, row in rows.items():
        assert (row["key"], row["weights"], row["accuracy"]) == (f"squeezenet1_0/{form}", "random", None)
        assert row["latency_ms"] > 0 and row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["threads"] == 1 and set(row["versions"]) == {"compresslab", "torch"}
        json.dumps(row, allow_nan=False)


def test_form_that_is_not_possible_says_why(small_input, monkeypatch):
    monkeypatch.setattr(public, "build_public", lambda name, weights=False: grouped())
    row = measure_public("alexnet", "decomposed", repeats=1)
    assert row["note"] == "not possible: no layer of this network can be decomposed"
    assert row["file_bytes"] is row["latency_ms"] is None


def test_table_continues_where_it_was_stopped(tmp_path, monkeypatch):
    measured = []

    def measure(name, form, **options):
        measured.append((name, form))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return {"key": f"{name}/{form}"}

    monkeypatch.setattr(public, "measure_public", measure)
    path, some = tmp_path / "public.jsonl", {"networks": NETWORKS[:2], "forms": ["dense", "8 bits"]}
    with pytest.raises(KeyboardInterrupt):
        public_table(path, progress=False, **some)
    rows = public_table(path, progress=False, **some)
    assert len(rows) == 4 and len(measured) == 5  # only the one that was stopped is measured again
    public_table(path, progress=False, **some)
    assert len(measured) == 5


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "options", "message"),
    [
        ("lenet5", "dense", {}, "no network 'lenet5'"),
        ("alexnet", "2 bits", {}, "no form '2 bits'"),
        ("alexnet", "dense", {"images": "somewhere"}, "weights=True"),
    ],
)
def test_unknown_names_are_refused_before_anything_runs(tmp_path, name, form, options, message):
    with pytest.raises(ValueError, match=message):
        measure_public(name, form, **options)
    with pytest.raises(ValueError, match=message):
        public_table(tmp_path / "rows.jsonl", networks=[name], forms=[form], progress=False, **options)


def test_weights_that_cannot_be_downloaded_say_so(monkeypatch):
    from torchvision import models

    def fail(name, weights):
        raise OSError("no route to host")

    monkeypatch.setattr(models, "get_model", fail)
    with pytest.raises(OSError, match="weights of alexnet cannot be downloaded .no route to host.; without"):
        build_public("alexnet", weights=True)


def image_folder(folder: Path, classes: int) -> Path:
    from PIL import Image

    for index in range(classes):
        (folder / f"n{index:04}").mkdir()
    for index in (3, 7):
        Image.new("RGB", (256, 256), (index, 0, 0)).save(folder / f"n{index:04}" / "image.png")
    return folder


class Always(nn.Module):
    """Answers one class, whatever it sees."""

    def forward(self, x):
        assert x.shape == (1, 3, 224, 224)
        return nn.functional.one_hot(torch.tensor([3]), 1000).float()


def test_accuracy_of_a_folder_of_images(tmp_path):
    assert public.folder_accuracy(Always(), "squeezenet1_0", image_folder(tmp_path, 1000), 10) == (0.5, 2)
    assert public.folder_accuracy(Always(), "squeezenet1_0", tmp_path, 1) == (1.0, 1)


def test_folder_without_images_is_refused(tmp_path):
    for index in range(1000):
        (tmp_path / str(index)).mkdir()
    with pytest.raises(ValueError, match="no image"):
        public.folder_accuracy(Always(), "squeezenet1_0", tmp_path, 10)


def test_folder_that_is_not_imagenets_is_refused(tmp_path):
    with pytest.raises(ValueError, match="1000 class folders, got 9"):
        public.folder_accuracy(Always(), "squeezenet1_0", image_folder(tmp_path, 9), 10)
    with pytest.raises(ValueError, match="got 0 in"):
        public.folder_accuracy(Always(), "squeezenet1_0", tmp_path / "nowhere", 10)
