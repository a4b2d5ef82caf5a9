"""What is pure in the benchmarks of file sizes and of the chapters, and both at toy size."""

import io
from functools import partial

import pytest
import safetensors.torch
import torch
from torch import nn

from benchmarks import chapters, file_size
from benchmarks.chapters import Cell, Run, code_cells, run_apart
from benchmarks.file_size import Form
from compresslab.core import correct_answers, paired_difference
from compresslab.data import load_data

TEXT = '''# ---
# title: x
# ---
# %% [markdown]
# # A chapter

# %%
import inspect
from compresslab.course import mode
def double(x):
    return 2 * x
class Kind:
    pass

# %% tags=["check"]
assert mode.static() and mode.strict()
assert inspect.getsource(double).startswith("def double") and inspect.getsource(Kind).startswith("class Kind")
print("heard by nobody")
# %% [markdown]
# the end
'''


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()


def test_lossless_files_hold_every_weight(network):
    import zstandard

    forms = {form.name: form for form in file_size.lossless_forms(network)}
    assert list(forms) == ["torch.save", "torch.save + gzip", "safetensors", "safetensors + zstd"]
    plain = file_size.safetensors_saved(network)
    assert forms["safetensors"].content_bytes == len(plain) >= 4 * (64 * 32 + 32 + 320 + 10)
    unpacked = zstandard.ZstdDecompressor().decompress(file_size.zstandard_of(plain))
    again = safetensors.torch.load(unpacked)
    saved = torch.load(io.BytesIO(file_size.torch_saved(network)), weights_only=True)
    for name, tensor in network.state_dict().items():
        assert again[name].equal(tensor) and saved[name].equal(tensor)
    assert all(form.network is None and not form.failure for form in forms.values())


def test_our_files_are_judged_as_they_come_from_the_disk(network, digits, tmp_path):
    recipe = {"sparsity": 0.5, "images": 64, "prune_epochs": 1, "tune_epochs": 1}
    forms = list(file_size.our_forms(network.requires_grad_(True), digits.train.take(64), digits.train, recipe, tmp_path))
    eight, four, deep = forms
    assert [form.name.split(", ")[1] for form in forms] == ["8 bits", "4 bits (GPTQ)", "Deep Compression"]
    assert eight.content_bytes > four.content_bytes > 1000
    codes = [type(layer.coded).__name__ for layer in deep.network.modules() if hasattr(layer, "coded")]
    assert codes == ["GapSparseCode", "GapSparseCode"]


def test_rows_hold_bytes_ratio_and_a_paired_difference(network, digits):
    dense = correct_answers(network, digits.test)
    wrong = nn.Sequential(network, nn.Threshold(1e9, 0.0))  # the same answer to everything
    forms = [Form("a", 1000, 0.0), Form("b", 250, 1.25, wrong), Form("c", 0, 0.0, failure="no such tool"),
             Form("d", 100, 0.0, accuracy=0.5)]  # fmt: skip
    table = file_size.table("net", forms, dense, digits.test)
    first, second, third, fourth = table.cells
    assert first[:3] == ["a", "1,000", "1.00"] and first[4].startswith("+0.00 [") and first[5] == "yes" or len(dense) < 400
    difference = paired_difference(dense, correct_answers(wrong, digits.test))
    assert second[1:3] == ["250", "4.00"] and second[4].startswith(f"{100 * difference.difference:+.2f} [")
    assert second[6] == "1.2" and third[5] == "no such tool" and fourth[3:6] == ["0.5000", "", "recorded"]


def correct(right, n=1000):
    return torch.arange(n) < right


@pytest.mark.parametrize(("right", "verdict"), [(1000, "yes"), (999, "yes"), (991, "open"), (988, "open"), (900, "no")])
def test_kept_asks_the_interval_and_not_the_difference(right, verdict):
    assert file_size.kept(paired_difference(correct(1000), correct(right))) == verdict


def test_the_record_of_chapter_07_is_found_for_every_network():
    for name in file_size.RECIPES:
        (form,) = file_size.recorded(name)
        assert form.accuracy > 0.9 and form.content_bytes < 200_000
    assert list(file_size.recorded("no such network")) == []


def test_recipes_name_layers_that_exist():
    from compresslab.models import baseline_info, load_baseline

    for name, recipe in file_size.RECIPES.items():
        layers = dict(load_baseline(name).named_modules())
        wanted = recipe["sparsity"] if isinstance(recipe["sparsity"], dict) else {}
        assert set(wanted) | set(recipe.get("skip", ())) <= set(layers)
        assert file_size.TEST_IMAGES[name] <= baseline_info(name)["n"]


def test_code_cells_are_found_with_their_lines():
    first, second = code_cells(TEXT)
    assert first.line == 8 and first.source.startswith("import inspect\n") and first.source.endswith("pass\n\n")
    assert second.line == 16 and "heard" in second.source
    assert code_cells("no cells") == [] and code_cells("# %%\nx = 1") == [Cell(2, "x = 1")]


def test_a_chapter_runs_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "99_toy.py"
    path.write_text(TEXT, encoding="utf-8")
    result = run_apart(path, 120)
    assert isinstance(result, Run), result
    assert result.chapter == "99_toy" and result.peak_bytes > 5e7 and result.slowest_line in (8, 16)
    assert 0 <= result.slowest_seconds <= result.cell_seconds < 60 and result.import_seconds > 0


def test_a_chapter_that_fails_says_why(tmp_path):
    path = tmp_path / "98_broken.py"
    path.write_text("# %%\nraise ValueError('not today')\n", encoding="utf-8")
    assert run_apart(path, 120) == "failed: ValueError: not today"


def test_chapters_are_added_up_and_judged_by_the_goal():
    done = partial(Run, import_seconds=2.0, cpu_seconds=50.0, slowest_line=7, slowest_seconds=9.0)
    results = {"a": done("a", cell_seconds=59.0, peak_bytes=10**9), "b": done("b", cell_seconds=61.0, peak_bytes=10**8), "c": "failed: x"}
    table = chapters.table(results)
    assert table.cells == [
        ["a", "2.0", "59.0", "50.0", "9.0 s, line 7", "1000", "met"],
        ["b", "2.0", "61.0", "50.0", "9.0 s, line 7", "100", "missed"],
        ["c", "", "", "", "", "", "failed: x"],
        ["all 2", "4.0", "120.0", "100.0", "", "1000", ""],
    ]
