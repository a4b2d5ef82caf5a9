"""The limit on activations in a budget task: counted at 8 bits, independent of the file's size."""

import pytest

from compresslab.core import save
from compresslab.course import budget
from compresslab.course.budget import BudgetTask, Report, least_ram
from compresslab.models import from_spec

SPEC = {"model": "lenet300", "num_classes": 10}
PEAK = 784 + 300  # input and first layer


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_measure_elsewhere", lambda request, size: budget.measure_file(request))
    monkeypatch.setattr(budget, "_known", {})
    path = tmp_path / "net.safetensors"
    save(from_spec(SPEC), path)
    return path


def test_the_peak_of_a_chain():
    assert least_ram(from_spec(SPEC), (1, 28, 28)) == PEAK


def test_the_limit_is_inclusive_and_a_file_above_it_is_not_run(file):
    task = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_ram=PEAK, images=10)
    report = task.report(file)
    assert (report.ram, report.images, task.broken(report)) == (PEAK, 10, {})
    assert f"{PEAK:,} bytes of RAM" in task.summary(report)
    narrow = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), max_ram=PEAK - 1, images=10)
    report = narrow.report(file)
    assert report.images == 0 and list(narrow.broken(report)) == ["ram"]
    assert narrow.breaks("ram")(file) and not narrow.breaks("ram", high=PEAK)(file)


def test_without_the_limit_nothing_is_counted_or_said(file):
    task = BudgetTask(dataset="ink_digits", input_shape=(1, 28, 28), images=10)
    assert task.report(file).ram == 0 and "RAM" not in task.summary(Report(1))
