"""The budget check: a file is judged in a fresh process, and nothing hides from it."""

import subprocess

import pytest
import torch
from safetensors.torch import save_file
from toy_chapter import EXERCISES, toy  # noqa: F401

from compresslab.core.store import save
from compresslab.course import budget
from compresslab.course.budget import (
    BudgetTask,
    Report,
    file_spec,
    hidden_seed,
    measure_file,
    nan_skeleton,
    submission_path,
    unfilled,
)
from compresslab.course.trial import Trial, Wrong
from compresslab.models import build_model, from_spec, load_baseline

SPEC = {"input": [1, 28, 28], "layers": [["flatten"], ["linear", {"out_features": 10}]]}
TASK = BudgetTask(
    "ink_digits", (1, 28, 28), max_bytes=40_000, max_macs=7840, min_accuracy=0.0, spec=SPEC, images=40
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """The fresh process, run here: one test below starts a real one."""
    monkeypatch.setattr(budget, "_known", {})
    monkeypatch.setattr(budget, "_measure_elsewhere", lambda request, size: measure_file(request))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "mine.safetensors"
    save(from_spec(SPEC), path)
    return path


def verify(task, value):
    return task.verify(Trial(EXERCISES[2], value))


def test_a_file_within_the_budget_passes_and_says_its_numbers(saved):
    message = verify(TASK, saved)
    assert (
        message.startswith(f"{saved.stat().st_size:,} bytes, 7,850 parameters, 7,840 MACs per image, ")
        and "40 fresh images" in message
    )
    assert verify(TASK, str(saved)) == message


@pytest.mark.parametrize(
    "limits, limit, words",
    [
        ({"max_bytes": 31_000}, "bytes", "bytes, 31,000 are allowed"),
        ({"max_parameters": 7849}, "parameters", "has 7,850 parameters, 7,849 are allowed"),
        ({"max_macs": 7839}, "macs", "needs 7,840 MACs per image, 7,839 are allowed"),
        ({"min_accuracy": 0.999}, "accuracy", "40 fresh images, 99.90% are asked for"),
    ],
)
def test_each_limit_is_named_when_broken(saved, limits, limit, words):
    task = BudgetTask("ink_digits", (1, 28, 28), spec=SPEC, images=40, **limits)
    with pytest.raises(Wrong, match=words):
        verify(task, saved)
    assert task.breaks(limit)(saved) and not task.breaks("file")(saved)
    own = getattr(task.report(saved), limit)
    assert task.breaks(limit, own)(saved) and not task.breaks(limit, high=own)(saved)
    assert not task.breaks(limit, own + 1)(saved)


@pytest.mark.parametrize("limit", ["max_bytes", "max_parameters", "max_macs"])
def test_a_file_that_is_too_large_is_not_run(saved, limit):
    task = BudgetTask("ink_digits", (1, 28, 28), min_accuracy=1.0, spec=SPEC, images=40, **{limit: 1})
    assert task.report(saved).images == 0
    with pytest.raises(Wrong, match="1 are allowed$"):
        verify(task, saved)


def test_all_broken_limits_are_named_together(saved):
    task = BudgetTask("ink_digits", (1, 28, 28), max_bytes=1, max_parameters=1, max_macs=1, spec=SPEC, images=40)
    with pytest.raises(Wrong, match="bytes, 1 are allowed; the network has [^;]*; the network needs [^;]*$"):
        verify(task, saved)


def test_limits_are_inclusive(saved):
    exact = BudgetTask(
        "ink_digits", (1, 28, 28), max_bytes=saved.stat().st_size, max_parameters=7850, max_macs=7840, spec=SPEC, images=40
    )
    assert verify(exact, saved)


@pytest.mark.parametrize("value", [None, 3, "", b"x"])
def test_what_is_no_path(value):
    with pytest.raises(Wrong, match="give the path of the file"):
        verify(TASK, value)


def test_what_is_no_good_file(tmp_path, saved):
    with pytest.raises(Wrong, match="there is no file 'none' at this path"):
        verify(TASK, tmp_path / "none")
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(Wrong, match="the file cannot be loaded"):
        verify(TASK, saved)
    torch.save(from_spec(SPEC).state_dict(), saved)
    with pytest.raises(Wrong, match="the file cannot be loaded"):
        verify(TASK, saved)
    assert TASK.breaks("file")(saved)


def test_a_file_without_any_specification(tmp_path):
    path = tmp_path / "foreign"
    save_file({"w": torch.zeros(2)}, path)
    task = BudgetTask("ink_digits", (1, 28, 28), images=40)
    assert file_spec(path) is None
    with pytest.raises(Wrong, match="does not say which network it holds"):
        verify(task, path)


def test_the_specification_in_the_file_comes_first(tmp_path):
    path = tmp_path / "own.safetensors"
    own = {"input": [1, 28, 28], "layers": [["flatten"], ["linear", {"out_features": 10, "bias": False}]]}
    save(from_spec(own), path)
    assert file_spec(path) == own and verify(TASK, path)


def test_nothing_is_left_from_the_skeleton():
    model = nan_skeleton({"model": "resnet", "depth": 8})
    assert all(t.isnan().all() for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    assert unfilled(model) and not unfilled(build_model("lenet300"))


def test_weights_that_stay_nan_are_refused(tmp_path):
    model = from_spec(SPEC)
    model[1].weight.data[3, 5] = torch.nan
    path = tmp_path / "hole.safetensors"
    save(model, path)
    with pytest.raises(Wrong, match="does not hold all weights: 1.weight is not filled"):
        verify(TASK, path)


def test_the_images_follow_from_the_content(saved, tmp_path):
    other = tmp_path / "other"
    save(from_spec(SPEC), other)
    seeds = [hidden_seed(path.read_bytes()) for path in (saved, saved, other)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_a_file_is_measured_once(saved, monkeypatch):
    first = TASK.report(saved)
    monkeypatch.setattr(budget, "_measure_elsewhere", lambda *a: pytest.fail("measured again"))
    assert TASK.report(saved) is first


def test_a_real_fresh_process_agrees(saved, monkeypatch):
    monkeypatch.undo()
    (saved.parent / "cwd").mkdir()
    monkeypatch.chdir(saved.parent / "cwd")
    assert budget._measure_elsewhere(_request(saved), saved.stat().st_size) == measure_file(_request(saved))


def _request(path):
    from dataclasses import asdict

    return {**asdict(TASK), "path": str(path), "seed": 1}


def test_a_process_that_hangs_or_dies_is_a_verdict(saved, monkeypatch):
    monkeypatch.undo()
    dead = subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: too big")
    monkeypatch.setattr(budget.subprocess, "run", lambda *a, **k: dead)
    assert "MemoryError: too big" in budget._measure_elsewhere({}, 5).problem

    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired("x", 1)

    monkeypatch.setattr(budget.subprocess, "run", hang)
    assert budget._measure_elsewhere({}, 5) == Report(5, problem="judging the file took more than 180 s")


def test_submissions_live_in_the_learners_folder(toy):
    assert submission_path("1.9") == toy / "files" / "1-9.safetensors" and (toy / "files").is_dir()


# -- a loss against a shipped network ------------------------------------------------------------------------


@pytest.fixture
def lenets(tmp_path):
    """The shipped LeNet-300-100 saved as it is, a little damaged, and ruined."""
    paths = {}
    for name, noise in {"same": 0.0, "damaged": 0.02, "ruined": 0.3}.items():
        model = load_baseline("lenet300")
        with torch.no_grad():
            for parameter in model.parameters():
                generator = torch.Generator().manual_seed(0)
                parameter += noise * torch.randn(parameter.shape, generator=generator)
        paths[name] = tmp_path / f"{name}.safetensors"
        save(model, paths[name])
    return paths


LOSS = BudgetTask("ink_digits", (1, 28, 28), max_loss=0.005, baseline="lenet300", images=500)


def test_a_loss_is_paired_with_the_shipped_network_on_the_same_images(lenets):
    report = LOSS.report(lenets["same"])
    assert report.loss == 0 and report.accuracy > 0.9
    assert verify(LOSS, lenets["same"]).endswith("500 fresh images, 0.00 points lost")
    assert 0 < abs(LOSS.report(lenets["damaged"]).loss) < 0.05
    assert LOSS.breaks("accuracy")(lenets["ruined"])
    with pytest.raises(Wrong, match=r"lost \d+\.\d\d points, at least \d+\.\d\d with 95 % confidence; 0.5 are allowed"):
        verify(LOSS, lenets["ruined"])


def test_what_the_images_cannot_tell_is_not_held_against_the_file(lenets):
    few = BudgetTask("ink_digits", (1, 28, 28), max_loss=0.0, baseline="lenet300", images=30)
    report = few.report(lenets["damaged"])
    assert report.loss_low <= 0 <= report.loss and not few.broken(report)
