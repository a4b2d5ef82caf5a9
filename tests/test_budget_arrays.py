"""The budget of chapter 10: a file of arrays, judged on fresh digits in a fresh process."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from toy_chapter import EXERCISES, toy  # noqa: F401

from compresslab.classical.prototypes import ProtoNNClassifier
from compresslab.classical.size import save_model
from compresslab.course import budget
from compresslab.course.budget import BudgetTask, measure_file
from compresslab.course.budget_arrays import ArraysTask, pooled_features
from compresslab.course.trial import Trial, Wrong
from compresslab.data import fresh_data

TASK = ArraysTask("ink_digits", (1, 28, 28), max_bytes=3000, min_accuracy=0.3, images=200)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(budget, "_known", {})
    monkeypatch.setattr(budget, "_measure_elsewhere", lambda request, size: measure_file(request))


@pytest.fixture(scope="module")
def model():
    return ProtoNNClassifier(epochs=5).fit(*pooled_features(fresh_data("ink_digits", 500, seed=9)))


@pytest.fixture
def saved(model, tmp_path):
    save_model(model, tmp_path / "mine")
    return tmp_path / "mine"


def verify(task, value):
    return task.verify(Trial(EXERCISES[2], value))


def test_a_file_within_the_budget_passes_and_says_its_numbers(saved):
    assert isinstance(TASK, BudgetTask)
    assert verify(TASK, saved).startswith(f"{saved.stat().st_size:,} bytes, ") and "200 fresh images" in verify(TASK, str(saved))


def test_pooling_by_hand():
    split = fresh_data("ink_digits", 3, seed=1)
    X, y = pooled_features(split, 4)
    assert X.shape == (3, 49) and 0 <= X.min() and X.max() <= 1
    assert X[2, 8] == pytest.approx(split.images[2, 0, 4:8, 4:8].double().mean().item() / 255)
    np.testing.assert_array_equal(y, split.labels)


@pytest.mark.parametrize("limits, limit", [({"max_bytes": 1000}, "bytes"), ({"min_accuracy": 0.999}, "accuracy")])
def test_each_limit_is_named_when_broken(saved, limits, limit):
    task = ArraysTask("ink_digits", (1, 28, 28), images=100, **limits)
    with pytest.raises(Wrong, match="are allowed|are asked for"):
        verify(task, saved)
    assert task.breaks(limit)(saved) and not task.breaks("file")(saved)
    assert (task.report(saved).images == 0) == (limit == "bytes")


def test_what_is_no_good_file(saved, tmp_path):
    for value in (None, 3, ""):
        with pytest.raises(Wrong, match="give the path of the file that `save_model` wrote"):
            verify(TASK, value)
    with pytest.raises(Wrong, match="there is no file 'none'"):
        verify(TASK, tmp_path / "none")
    torch.save(torch.nn.Linear(2, 2).state_dict(), saved)
    with pytest.raises(Wrong, match="the file cannot be loaded"):
        verify(TASK, saved)


def test_a_model_of_other_features_is_a_verdict(tmp_path):
    save_model(ProtoNNClassifier(epochs=0).fit(np.eye(4), [0, 0, 1, 1]), tmp_path / "other")
    with pytest.raises(Wrong, match="cannot classify 49 features"):
        verify(TASK, tmp_path / "other")


def test_a_real_fresh_process_agrees(saved, monkeypatch):
    monkeypatch.undo()
    request = {**asdict(TASK), "path": str(saved), "seed": 1}
    assert budget._measure_elsewhere(request, saved.stat().st_size) == measure_file(request)
