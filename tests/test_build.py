"""Building notebooks from a chapter's text: metadata, stubs, safety of the learner's work, a real kernel."""

import ast
import copy
import os
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from toy_chapter import CHAPTER, SOURCE, toy, toy_root  # noqa: F401

from compresslab.course.build import build, clean_outputs, digest, learner_notebook, was_edited, write
from compresslab.course.clearing import ClearCourseSolutions, placeholder
from compresslab.course.source import asks, expand, read_source

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def kernels_find_the_toy_chapter(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))


@pytest.fixture
def solved(toy_root):
    return read_source(toy_root / "solutions" / "90_toy.py", CHAPTER)


def cell(notebook, grade_id):
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


# -- reading the text ------------------------------------------------------------------------------------


def test_metadata_for_jupyter_and_nbgrader(solved):
    nbformat.validate(solved)
    assert solved.metadata.kernelspec.name == "python3" and "jupytext" not in solved.metadata
    assert cell(solved, "check-90-1").metadata.nbgrader == {
        "grade": True,
        "grade_id": "check-90-1",
        "locked": True,
        "points": 3,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }
    assert cell(solved, "solution-check-90-1").metadata.nbgrader.solution is True
    assert cell(solved, "answer-90-q1").metadata.nbgrader.points == 1
    assert cell(solved, "predict-90-p1").metadata.nbgrader.grade is False
    assert (
        cell(solved, "check-90-1").metadata.tags == ["workshop"]
        and "tags" not in cell(solved, "check-90-2").metadata
    )


def test_cell_ids_are_stable_unique_and_move_with_the_cell(solved, tmp_path):
    ids = [c["id"] for c in solved.cells]
    assert len(set(ids)) == len(ids) and "check-90-1" in ids
    again = tmp_path / "again.py"
    again.write_text("# %% [markdown]\n# First.\n\n" + SOURCE)
    assert [c["id"] for c in read_source(again, CHAPTER).cells][1:] == ids


def test_placeholders_become_text(solved):
    text = solved.cells[0].source
    assert (
        "**Exercise 90.1 · Keep the largest**" in text
        and "●●○○○ · 10 min · core · workshop · 3 points" in text
        and "“small is negative”" in text
    )
    question = expand("{{question 90.q1}}", CHAPTER)
    assert all(
        f"**{letter})** {option.text}" in question for letter, option in CHAPTER.questions[0].shuffled.items()
    )
    assert "80 %" in expand("{{prediction 90.p1}}", CHAPTER) and "(in points)" in expand(
        "{{prediction 90.p2}}", CHAPTER
    )
    with pytest.raises(KeyError, match="no question '90.q7'"):
        expand("{{question 90.q7}}", CHAPTER)
    with pytest.raises(ValueError, match="stands alone"):
        expand("see {{exercise 90.1}} here", CHAPTER)


@pytest.mark.parametrize(
    "source",
    [
        'check("90.1", f)',
        'f = check("90.1", f)\nprint(f)',
        'f = check("90.1", f)\ng = check("90.2", g)',
        'f = g = check("90.1", f)',
        "f = check(name, f)",
    ],
)
def test_a_check_is_one_assignment_and_last(source):
    with pytest.raises(ValueError, match="a check cell ends in one"):
        asks(source)


@pytest.mark.parametrize(
    "text, words",
    [
        ('# %%\nf = check("90.1", f)', "no solution cell before"),
        ("# %%\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "no check cell follows"),
        (
            '# %%\n### BEGIN SOLUTION\nf = 1\n### END SOLUTION\n\n# %%\nf = check("90.1", f)',
            "is called keep_largest, the notebook binds f",
        ),
    ],
)
def test_reading_refuses(tmp_path, text, words):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_source(path, CHAPTER)


# -- stubs -------------------------------------------------------------------------------------------------


def test_only_solution_regions_differ(solved):
    before = copy.deepcopy(solved)
    learner = learner_notebook(solved, CHAPTER)
    assert solved == before
    changed = [a["id"] for a, b in zip(learner.cells, solved.cells, strict=True) if a.source != b.source]
    assert changed == [
        "solution-check-90-1",
        "solution-check-90-2",
        "solution-check-90-3",
        "solution-answer-90-q1",
        "solution-predict-90-p1",
    ]
    assert all(c.get("outputs", []) == [] and c.get("execution_count") is None for c in learner.cells)
    assert learner.metadata.compresslab.digest == digest(learner)


def test_stubs(solved):
    learner = learner_notebook(solved, CHAPTER)
    assert cell(learner, "solution-check-90-1").source == (
        'def keep_largest(values, k):\n    """A boolean mask of the k largest values by size."""\n'
        "    # YOUR CODE HERE\n    raise NotImplementedError()"
    )
    assert cell(learner, "solution-check-90-3").source == "# YOUR ANSWER HERE\nratio = ..."


def test_workshop_leaves_other_cells_solved(solved):
    learner = learner_notebook(solved, CHAPTER, workshop_only=True)
    assert "NotImplementedError" in cell(learner, "solution-check-90-1").source
    assert "BEGIN SOLUTION" in cell(learner, "solution-check-90-2").source
    assert cell(learner, "solution-check-90-3").source == "# YOUR ANSWER HERE\nratio = ...", "a design task stays open"


@pytest.mark.parametrize(
    "source, words",
    [
        ("### BEGIN SOLUTION\nprint(1)\n### END SOLUTION", "must end in"),
        (
            "### BEGIN SOLUTION\nx = 1\n### END SOLUTION\n### BEGIN SOLUTION\ny = 1\n### END SOLUTION",
            "holds no other",
        ),
    ],
)
def test_top_level_regions_that_are_refused(source, words):
    with pytest.raises(ValueError, match=words):
        placeholder(source)


def test_the_same_preprocessor_does_nbgraders_whole_pass(solved):
    cleared, _ = ClearCourseSolutions().preprocess(copy.deepcopy(solved), {})
    assert [c.source for c in cleared.cells] == [c.source for c in learner_notebook(solved, CHAPTER).cells]


def test_shipped_nbgrader_config_swaps_the_preprocessor():
    from nbgrader.preprocessors import ClearSolutions
    from traitlets.config import PyFileConfigLoader

    steps = (
        PyFileConfigLoader("nbgrader_config.py", str(TESTS.parent))
        .load_config()
        .GenerateAssignment.preprocessors
    )
    assert ClearCourseSolutions in steps and ClearSolutions not in steps and len(steps) > 5


def test_learners_never_import_what_only_builders_need():
    """At import time no module of the course needs nbgrader, jupytext or nbclient, except `clearing`."""
    for path in (TESTS.parent / "compresslab" / "course").rglob("*.py"):
        body = ast.parse(path.read_text()).body
        top = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {getattr(node, "module", None) or node.names[0].name for node in top}
        packages = {name.split(".")[0] for name in names}
        assert path.name == "clearing.py" or not packages & {"nbgrader", "jupytext", "nbclient"}
        assert "compresslab.course.clearing" not in names


# -- writing -------------------------------------------------------------------------------------------------


def test_a_rebuild_is_no_difference(toy_root):
    first = [p.read_bytes() for p in build("90", root=toy_root, execute=False)]
    assert [p.read_bytes() for p in build("90", root=toy_root, execute=False)] == first


def test_the_learners_work_is_never_overwritten_unasked(toy_root):
    (path,) = build("90", root=toy_root, execute=False)
    notebook = nbformat.read(path, 4)
    notebook.cells[3].source += "\n# my idea"
    nbformat.write(notebook, path)
    mine = path.read_bytes()
    with pytest.raises(FileExistsError, match="90_toy.ipynb holds your work and stays as it is; --force"):
        build("90", root=toy_root, execute=False, ask=lambda question: False)
    assert path.read_bytes() == mine and len(list(path.parent.iterdir())) == 1
    backup, fresh = build("90", root=toy_root, execute=False, ask=lambda question: "Replace it?" in question)
    assert backup.read_bytes() == mine and fresh == path and "my idea" not in path.read_text()


def test_force_keeps_a_backup_and_outputs_alone_are_no_work(toy_root):
    (path,) = build("90", root=toy_root, execute=False)
    notebook = nbformat.read(path, 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="hello")]
    nbformat.write(notebook, path)
    assert build("90", root=toy_root, execute=False) == [path]
    path.write_text("no notebook any more")
    backup, _ = build("90", root=toy_root, execute=False, force=True)
    assert backup.read_text() == "no notebook any more" and ".backup-" in backup.name


def test_a_new_text_over_an_untouched_old_notebook_is_no_work(toy_root, solved):
    (path,) = build("90", root=toy_root, execute=False)
    changed = copy.deepcopy(solved)
    changed.cells[0].source = "# A new toy"
    assert not was_edited(path, learner_notebook(changed, CHAPTER))


def test_a_failed_write_leaves_the_old_file(tmp_path, solved, monkeypatch):
    path = tmp_path / "a.ipynb"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(solved, path)
    assert path.read_text() == "old"


def test_outputs_are_cleaned():
    notebook = nbformat.v4.new_notebook(
        metadata={"widgets": {}},
        cells=[
            nbformat.v4.new_code_cell(
                "x",
                metadata={"execution": {"a": "1"}},
                outputs=[
                    nbformat.v4.new_output("stream", name="stderr", text="warning"),
                    nbformat.v4.new_output("stream", text="/home/me/course/a and /home/me/b"),
                    nbformat.v4.new_output(
                        "display_data", data={"text/html": "<b>/home/me</b>", "image/png": "/home/me"}
                    ),
                ],
            )
        ],
    )
    clean_outputs(notebook, {"/home/me": "~", "/home/me/course": ".", "/": "never"})
    out = notebook.cells[0].outputs
    assert [o.output_type for o in out] == ["stream", "display_data"] and out[0].text == "./a and ~/b"
    assert (
        out[1].data == {"text/html": "<b>~</b>", "image/png": "/home/me"}
        and not notebook.cells[0].metadata
        and not notebook.metadata
    )


# -- in a real kernel ------------------------------------------------------------------------------------


def test_build_executes_the_solved_notebook(toy_root, toy):
    paths = build("90", root=toy_root)
    assert [f"{p.parent.name}/{p.name}" for p in paths] == [
        "solutions/90_toy.ipynb",
        "notebooks/90_toy.ipynb",
    ]
    notebook = nbformat.read(paths[0], 4)
    text = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", ()))
    assert (
        text.count("passed:") == 3
        and "measured 8 x: inside" in text
        and "tensor([-0., -3.,  0.])" not in text
    )
    assert not toy.exists()  # the build wrote nothing to the learner's folder
    fresh = read_source(toy_root / "solutions" / "90_toy.py", CHAPTER)
    assert notebook.metadata == fresh.metadata
    assert [(c["id"], c.source, c.metadata) for c in notebook.cells] == [
        (c["id"], c.source, c.metadata) for c in fresh.cells
    ]


def test_build_stops_at_a_cell_that_fails_and_writes_nothing(toy_root):
    (toy_root / "solutions" / "90_toy.py").write_text("# %%\nprint(1 / 0)\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        build("90", root=toy_root)
    assert [path.name for path in toy_root.rglob("*.ipynb")] == []


def test_stubs_run_through_and_a_wrong_answer_fails_its_own_cell_only(solved):
    from nbclient import NotebookClient

    learner = learner_notebook(solved, CHAPTER)
    cell(learner, "solution-check-90-1").source = (
        "from compresslab.course.selftest import mistake_for_notebook\n"
        "keep_largest = mistake_for_notebook('90.1', 1)"
    )
    NotebookClient(learner, kernel_name="python3", allow_errors=True).execute()
    errors = {c["id"]: o for c in learner.cells for o in c.get("outputs", ()) if o.output_type == "error"}
    text = "".join(o.get("text", "") for c in learner.cells for o in c.get("outputs", ()))
    assert text.count("is still to do. The notebook goes on with the reference.") == 2
    assert text.count("is still to do") == 4 and list(errors) == ["check-90-1"]
    error = errors["check-90-1"]
    assert (
        error.ename == "Wrong"
        and "you ordered by the signed value" in error.evalue
        and len(error.traceback) == 1
    )
