"""The shipped baselines: whole, as accurate as their index says, and made by the documented command."""

import json
import shutil

import pytest
import torch

from compresslab import baselines
from compresslab.core.train import accuracy
from compresslab.data import load_data
from compresslab.models import baseline_info, baseline_names, load_baseline
from compresslab.models.pretrained import CHECKPOINTS
from compresslab.sequence.language import bits_per_character
from compresslab.sequence.text import load_text

IMAGE_NETWORKS = [name for name, recipe in baselines.RECIPES.items() if recipe.dataset != baselines.TEXT]
LANGUAGE_MODELS = [name for name, recipe in baselines.RECIPES.items() if recipe.dataset == baselines.TEXT]
MADE_BY = ("dataset", "epochs", "lr", "warmup", "seed")  # an entry without a warm-up was trained without one


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_the_accuracy_on_the_first_thousand_test_images_is_the_recorded_one(name):
    info = baseline_info(name)
    test = load_data(info["dataset"], train=0, validation=0, test=1000).test
    assert accuracy(load_baseline(name), test) == pytest.approx(info["accuracy_1000"], abs=0.003)
    assert info["accuracy_1000"] == pytest.approx(info["accuracy"], abs=0.02)
    assert info["n"] == 10_000


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_the_bits_per_character_on_the_test_text_are_the_recorded_ones(name):
    """Another version of Python has a slightly other text; a model that guesses needs 6.6 bits."""
    text = load_text()
    same_text = len(text.test) == baseline_info(name)["n"]
    measured = bits_per_character(load_baseline(name), text.test)
    assert measured == pytest.approx(baseline_info(name)["bits_per_character"], abs=0.001 if same_text else 0.1)
    assert measured < 2.6


def test_lenet_300_100_passes_its_bar_on_all_test_images():
    test = load_data("ink_digits", train=0, validation=0).test
    measured = accuracy(load_baseline("lenet300"), test)
    assert measured == pytest.approx(baseline_info("lenet300")["accuracy"], abs=0.003)
    assert measured >= 0.975


def test_more_parameters_are_more_accurate():
    """Capacity matters on street_digits, so compression shows."""
    accuracies = [baseline_info(name)["accuracy"] for name in ("resnet8_narrow", "resnet8", "vgg")]
    assert accuracies == sorted(accuracies)
    assert accuracies[0] < accuracies[-1] - 0.02


def test_the_index_lists_every_recipe_with_what_makes_it():
    assert baseline_names() == list(baselines.RECIPES)
    for name, recipe in baselines.RECIPES.items():
        info = baseline_info(name)
        assert info["command"] == f"python -m compresslab baselines {name}"
        assert {key: info.get(key, 0.0) for key in MADE_BY} == {key: getattr(recipe, key) for key in MADE_BY}
        assert recipe.spec.items() <= info["spec"].items()
        model = load_baseline(name)
        assert not model.training
        assert model.spec == info["spec"]
        assert sum(parameter.numel() for parameter in model.parameters()) == info["parameters"]
    assert sum(path.stat().st_size for path in CHECKPOINTS.iterdir()) < 16e6


def test_unknown_missing_and_altered_checkpoints_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no baseline 'lenet'; choose one of lenet300, "):
        load_baseline("lenet")
    shutil.copy(CHECKPOINTS / "index.json", tmp_path)
    with pytest.raises(ValueError, match="lenet300.safetensors is missing"):
        load_baseline("lenet300", tmp_path)
    content = bytearray((CHECKPOINTS / "lenet300.safetensors").read_bytes())
    content[5000] ^= 1
    (tmp_path / "lenet300.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="lenet300.safetensors is altered"):
        load_baseline("lenet300", tmp_path)


def test_the_command_trains_and_writes_a_baseline_and_keeps_the_others(tmp_path, monkeypatch, capsys):
    small = load_data("ink_digits", train=300, validation=0, test=100)
    monkeypatch.setattr(baselines, "load_data", lambda name: small)
    monkeypatch.setitem(baselines.RECIPES, "lenet300", baselines.Recipe({"model": "lenet300"}, "ink_digits", epochs=2))
    (tmp_path / "index.json").write_text(json.dumps({"lenet5": {"n": 1}}))
    before = torch.get_rng_state()
    assert baselines.main(["lenet300", "--folder", str(tmp_path)]) == 0
    assert torch.get_rng_state().equal(before)
    assert "lenet300: 266,610 parameters" in capsys.readouterr().out
    assert baseline_names(tmp_path) == ["lenet300", "lenet5"]
    info = baseline_info("lenet300", tmp_path)
    assert (info["n"], info["train_images"], info["epochs"]) == (100, 300, 2)
    assert accuracy(load_baseline("lenet300", tmp_path), small.test) == info["accuracy"]


def test_the_command_refuses_an_unknown_name(capsys):
    with pytest.raises(SystemExit):
        baselines.main(["lenet"])
    assert "there is no baseline 'lenet'; choose from lenet300" in capsys.readouterr().err
