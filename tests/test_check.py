"""The three states of `check`, its diagnoses, and what it leaves behind."""

import functools
import os
import sys
import textwrap

import numpy as np
import pytest
import torch
from toy_chapter import CHAPTER, EXERCISES, keep_largest, toy, with_topk  # noqa: F401

from compresslab.course import check, progress
from compresslab.course.checking import is_stub, judge, last_failure, quiet, references_bound
from compresslab.course.exercise import Chapter, Exercise, Mistake, mark_given
from compresslab.course.selftest import learner_copy
from compresslab.course.trial import ToDo, Wrong

KEEP, PRUNE, RATIO = EXERCISES


def notebook(code, **names):
    """Run code as a notebook would; returns its namespace."""
    space = {"__name__": "__main__", "torch": torch, "functools": functools, **names}
    exec(compile(textwrap.dedent(code), "<ipython-input-1>", "exec"), space)
    return space


RIGHT = """
def keep_largest(values, k):
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[values.abs().argsort(descending=True)[:k]] = True
    return mask
"""


def test_right_answer_passes_says_what_was_verified_and_is_returned(capsys):
    mine = notebook(RIGHT)["keep_largest"]
    assert check("90.1", mine) is mine
    out = capsys.readouterr()
    assert "counts and order on twelve inputs" in out.out and out.err == ""
    assert progress.states() == {"90.1": "passed"}


def test_stub_is_to_do_and_gives_the_reference(capsys):
    stub = notebook("def keep_largest(values, k):\n    # YOUR CODE HERE\n    raise NotImplementedError()")[
        "keep_largest"
    ]
    assert check("90.1", stub) is keep_largest
    assert "still to do" in capsys.readouterr().out
    assert progress.states() == {"90.1": "to do"}


@pytest.mark.parametrize(
    "body",
    [
        "raise NotImplementedError",
        "raise NotImplementedError()",
        "with torch.no_grad():\n        raise NotImplementedError()",
        "try:\n        raise NotImplementedError()\n    finally:\n        x = 1",
        "x = values + 1\n    raise NotImplementedError('later')",
    ],
)
def test_stub_forms(body):
    assert judge(KEEP, notebook(f"def keep_largest(values, k):\n    {body}")["keep_largest"]).state == "to do"


def test_decorated_stub_is_to_do():
    code = "@torch.no_grad()\ndef keep_largest(values, k):\n    raise NotImplementedError()"
    assert judge(KEEP, notebook(code)["keep_largest"]).state == "to do"


@pytest.mark.parametrize(
    "body",
    [
        "return values << 4",
        "return torch.randint(0, 9, (3,)).softmax(0)",  # PyTorch's own NotImplementedError
        "class Later(NotImplementedError): pass\n    raise Later()",  # not exactly this type
        "return torch.utils.data.Dataset()[0]",  # raised by somebody else's code
    ],
)
def test_other_not_implemented_errors_are_wrong(body):
    verdict = judge(KEEP, notebook(f"def keep_largest(values, k):\n    {body}")["keep_largest"])
    assert verdict.state == "wrong" and "raised" in verdict.message


def test_is_stub_needs_a_traceback():
    assert not is_stub(NotImplementedError(), keep_largest) and not is_stub(None, keep_largest)


@pytest.mark.parametrize(
    "answer", [..., keep_largest, functools.partial(keep_largest), torch.no_grad()(keep_largest)]
)
def test_reference_is_never_recorded_as_passed(answer):
    if answer is not ... and not isinstance(answer, functools.partial) and answer is not keep_largest:
        answer.__module__ = "compresslab.pruning"
    check("90.1", answer)
    assert progress.states() == {"90.1": "to do"}


def test_library_functions_are_the_reference_but_prefix_names_are_not():
    mine = notebook(RIGHT)["keep_largest"]
    mine.__module__ = "compresslab.anything"
    assert judge(KEEP, mine).state == "to do"
    mine.__module__ = "compresslaboratory"
    assert judge(KEEP, mine).state == "passed"


@pytest.mark.parametrize(
    "variable, value",
    [("COMPRESSLAB_STRICT", "1"), ("NBGRADER_EXECUTION", "autograde"), ("NBGRADER_EXECUTION", "validate")],
)
def test_to_do_raises_when_strict_or_graded(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ToDo, match="90.1 keep_largest is still to do"):
        check("90.1", ...)
    assert progress.states() == {"90.1": "to do"}


def test_formgrader_is_not_strict(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "formgrade")
    check("90.1", ...)


@pytest.mark.parametrize("mistake", KEEP.mistakes + PRUNE.mistakes, ids=lambda m: m.name)
def test_known_mistakes_get_their_own_diagnosis(mistake):
    exercise = KEEP if mistake in KEEP.mistakes else PRUNE
    with pytest.raises(Wrong) as wrong:
        check(exercise.id, learner_copy(mistake.wrong))
    assert mistake.diagnosis in str(wrong.value) and "Smallest failing input: values=" in str(wrong.value)
    assert progress.events("check")[-1]["mistake"] == mistake.name


def test_unknown_mistake_is_told_the_property_and_the_input():
    bad = notebook("def keep_largest(values, k):\n    return torch.ones(len(values), dtype=torch.bool)")[
        "keep_largest"
    ]
    verdict = judge(KEEP, bad)
    assert verdict.mistake is None
    assert "the mask keeps 1 values, not 0. Smallest failing input: values=tensor([" in verdict.message
    assert "k=0; your function returned tensor([True])" in verdict.message and "\n" not in verdict.message


@pytest.mark.parametrize(
    "body, words",
    [
        ("keep = values", "a `return` is missing"),
        ("return values", "returns its input unchanged"),
        ("return values[99]", "raised IndexError"),
        ("return [True]", "must return a tensor"),
        ("values.zero_(); return torch.zeros(len(values), dtype=torch.bool)", "changed its input values"),
    ],
)
def test_general_diagnoses(body, words):
    verdict = judge(KEEP, notebook(f"def keep_largest(values, k):\n    {body}")["keep_largest"])
    assert verdict.state == "wrong" and words in verdict.message


def test_what_is_no_function_is_wrong():
    assert "define a function" in judge(KEEP, 3).message


def test_a_verify_that_trips_over_an_odd_answer_means_wrong():
    exercise = Exercise(
        **{**_fields(KEEP), "verify": lambda t: t.call(torch.tensor([1.0, -2.0]), 1).no_such_thing}
    )
    assert "the check cannot use" in judge(exercise, notebook(RIGHT)["keep_largest"]).message


def _fields(exercise):
    from dataclasses import fields

    return {field.name: getattr(exercise, field.name) for field in fields(exercise)}


def test_other_exercises_are_bound_to_their_references_and_restored():
    code = (
        "def keep_largest(values, k):\n    return None\n"
        "def prune(values, k):\n    return values * keep_largest(values, k)"
    )
    space = notebook(code)
    wrong_helper, mine = space["keep_largest"], space["prune"]
    assert check("90.2", mine) is mine
    assert space["keep_largest"] is wrong_helper
    del space["keep_largest"]
    assert check("90.2", mine) is mine and "keep_largest" not in space


def test_names_are_restored_after_a_failure():
    space = notebook("keep_largest = 7\ndef prune(values, k):\n    raise KeyError(k)")
    with pytest.raises(Wrong):
        check("90.2", space["prune"])
    assert space["keep_largest"] == 7
    with pytest.raises(ZeroDivisionError), references_bound(PRUNE, space["prune"], CHAPTER):
        assert space["keep_largest"] is keep_largest
        1 / 0
    assert space["keep_largest"] == 7


def test_nothing_reaches_stdout_or_stderr_while_checking(capfd):
    code = """
    import os, sys, warnings
    def keep_largest(values, k):
        print("looking at", k); print("error!", file=sys.stderr)
        os.write(2, b"from C"); warnings.warn("careful")
        return values
    """
    with pytest.raises(Wrong, match="Your function printed:\nlooking at 0"):
        check("90.1", notebook(code)["keep_largest"])
    out = capfd.readouterr()
    assert out.out == "" and out.err == ""


def test_quiet_restores_the_streams_after_an_error(capfd):
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), quiet():
        1 / 0
    assert (sys.stdout, sys.stderr) == before
    os.write(2, b"visible")
    assert capfd.readouterr().err == "visible"


def test_global_random_state_is_untouched():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    judge(KEEP, notebook(RIGHT + "    torch.rand(5)")["keep_largest"])
    assert torch.equal(torch.rand(2), expected)


def test_failing_call_is_kept_for_the_hint_until_it_passes():
    with pytest.raises(Wrong):
        check("90.1", learner_copy(KEEP.mistakes[0].wrong))
    assert last_failure["90.1"].args[1] == 1
    check("90.1", learner_copy(with_topk))
    assert "90.1" not in last_failure


def test_unknown_ids():
    with pytest.raises(ValueError, match='an id looks like "1.2"'):
        check("1", ...)
    with pytest.raises(KeyError, match="chapter 90 has no exercise '90.9'; it has 90.1, 90.2, 90.3"):
        check("90.9", ...)
    with pytest.raises(ValueError, match="there is no chapter '77'"):
        check("77.1", ...)


# -- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [8, 8.0, np.float64(8), torch.tensor([8.0])])
def test_right_values_pass(value):
    assert check("90.3", value) is value
    assert progress.states() == {"90.3": "passed"}


def test_value_to_do_gives_the_reference_which_stays_to_do():
    given = check("90.3", ...)
    assert given == 8.0 and given * 2 == 16.0
    check("90.3", given)
    assert progress.states() == {"90.3": "to do"}
    check("90.3", 8.0)
    assert progress.states() == {"90.3": "passed"}


@pytest.mark.parametrize(
    "value, words",
    [
        (0.125, "that is the inverse"),
        (28, "not a difference"),
        (0.3, "above one is smaller"),
        ("eight", "expected one number"),
        (None, "expected one number"),
        (9, "expected 8, got 9"),
    ],
)
def test_wrong_values(value, words):
    with pytest.raises(Wrong, match=words):
        check("90.3", value)


def test_containers_are_recognised_by_identity_and_yes_or_no_is_refused():
    exercise = Exercise(**{**_fields(RATIO), "reference": lambda: [1, 2], "verify": lambda t: "fine"})
    assert judge(exercise, [1, 2]).state == "passed" and judge(exercise, None).state == "passed"
    assert judge(exercise, exercise.answer).state == "to do"
    with pytest.raises(TypeError, match="ask a question instead"):
        mark_given(True)


# -- the table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        ({"id": "x"}, "an id looks like"),
        ({"name": "a b"}, "must be a Python name"),
        ({"dots": 6}, "dots must be 1 to 5"),
        ({"mistakes": ()}, "at least three known mistakes"),
        ({"hints": ("a",)}, "needs three hints"),
        ({"track": "easy"}, "core or stretch"),
    ],
)
def test_exercise_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        Exercise(**{**_fields(KEEP), **change})


def test_chapter_refuses_strangers_and_doubles():
    with pytest.raises(ValueError, match="90.1 does not belong to chapter 01"):
        Chapter(number="01", slug="a", title="A", exercises=(KEEP,))
    with pytest.raises(ValueError, match="two entries 90.1"):
        Chapter(number="90", slug="a", title="A", exercises=(KEEP, KEEP))


def test_mistake_is_frozen():
    with pytest.raises(AttributeError):
        Mistake("a", None, "b").name = "c"


def test_a_wrong_value_of_short_trainings_says_that_they_were_short(toy, monkeypatch):
    monkeypatch.setenv("COMPRESSLAB_QUICK", "1")
    with pytest.raises(Wrong, match="COMPRESSLAB_QUICK is set"):
        check("90.3", 5.0)
    with pytest.raises(Wrong) as wrong:
        check("90.1", lambda values, k: values)
    assert "COMPRESSLAB_QUICK" not in str(wrong.value)
