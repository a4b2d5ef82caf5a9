"""The budget check for language models: bits per character on windows of the test text."""

import pytest
import torch
from toy_chapter import EXERCISES, toy  # noqa: F401

from compresslab import models
from compresslab.core.store import save
from compresslab.course import budget
from compresslab.course.budget import TEXT, BudgetTask, hidden_seed, measure_file
from compresslab.course.trial import Trial, Wrong
from compresslab.models import from_spec
from compresslab.sequence.language import window_bits
from compresslab.sequence.text import load_text

SPEC = {"model": "gpt", "width": 8, "layers": 1}
TASK = BudgetTask(TEXT, (128,), max_bytes=20_000, max_more_bits=0.02, baseline="gpt", images=6)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """The fresh process, run here, with a tiny baseline."""
    monkeypatch.setattr(budget, "_known", {})
    monkeypatch.setattr(budget, "_measure_elsewhere", lambda request, size: measure_file(request))
    monkeypatch.setattr(models, "load_baseline", lambda name: tiny())


def tiny(head=0.02):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = from_spec(SPEC)
        torch.nn.init.normal_(model.head.weight, std=head)
    return model.eval()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "mine.safetensors"
    save(tiny(), path)
    return path


def verify(task, value):
    return task.verify(Trial(EXERCISES[2], value))


def test_a_model_within_the_budget_passes_and_says_its_numbers(saved):
    message = verify(TASK, saved)
    split = load_text().test.drawn(6, seed=hidden_seed(saved.read_bytes()))
    bits = window_bits(tiny(), split).mean().item()
    assert message == (
        f"{saved.stat().st_size:,} bytes, {sum(p.numel() for p in tiny().parameters()):,} parameters, "
        f"{TASK.report(saved).macs:,} MACs per window of text, {bits:.3f} bits per character, +0.00% more than 'gpt'"
    )
    assert TASK.report(saved).images == 6


def test_too_many_bits(tmp_path):
    path = tmp_path / "wild.safetensors"
    save(tiny(head=1.0), path)
    with pytest.raises(Wrong, match=r"the model needs \d+\.\d{3} bits per character, \d+\.\d\d% more than 'gpt', at least .* 2.00% more are allowed"):
        verify(TASK, path)
    report = TASK.report(path)
    assert TASK.breaks("bits")(path) and not TASK.breaks("bytes")(path)
    assert TASK.breaks("bits", report.bits)(path) and not TASK.breaks("bits", high=report.bits)(path)
    assert report.loss > report.loss_low > 0.02 and report.accuracy == 0
    generous = BudgetTask(TEXT, (128,), max_more_bits=report.loss_low, baseline="gpt", images=6)
    assert verify(generous, path)


def test_without_a_baseline_only_the_bits_are_measured(saved):
    task = BudgetTask(TEXT, (128,), max_bytes=20_000, images=6)
    assert task.report(saved).loss == 0 and verify(task, saved).endswith("bits per character")


def test_a_file_that_is_too_large_is_not_read_to(saved):
    task = BudgetTask(TEXT, (128,), max_macs=10, max_more_bits=0.02, baseline="gpt", images=6)
    with pytest.raises(Wrong, match="needs [0-9,]* MACs per window of text, 10 are allowed$"):
        verify(task, saved)
    assert task.report(saved).images == 0


def test_no_more_windows_than_there_are(saved):
    task = BudgetTask(TEXT, (128,), images=10**6)
    assert task.report(saved).images == len(load_text().test)


def test_a_model_that_gives_nan_is_refused(tmp_path):
    model = tiny()
    torch.nn.init.constant_(model.head.weight, 1e38)
    save(model, tmp_path / "nan")
    with pytest.raises(Wrong, match="probabilities that are no numbers"):
        verify(TASK, tmp_path / "nan")


def test_a_network_for_images_is_no_language_model(tmp_path):
    save(from_spec({"input": [1, 28, 28], "layers": [["flatten"], ["linear", {"out_features": 10}]]}), tmp_path / "images")
    with pytest.raises(Wrong, match="cannot be loaded"):
        verify(TASK, tmp_path / "images")
