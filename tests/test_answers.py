"""Questions, predictions and hints: what is said, what is recorded, what is refused."""

import math

import pytest
import torch
from toy_chapter import CHAPTER, EXERCISES, keep_largest, toy  # noqa: F401

from compresslab.course import answer, check, hint, predict, progress, reveal, solution
from compresslab.course.exercise import Option, Question
from compresslab.course.predictions import Outcome, calibration, interval_score, outcomes
from compresslab.course.questions import first_answers
from compresslab.course.selftest import learner_copy
from compresslab.course.trial import ToDo, Wrong

QUESTION = CHAPTER.questions[0]
WRONG_LETTER = next(letter for letter, option in QUESTION.shuffled.items() if option.key == "few")


# -- questions -----------------------------------------------------------------------------------------


def test_right_answer_replies_and_is_returned(capsys):
    assert answer("90.q1", f" {QUESTION.letter.upper()} ") == QUESTION.letter
    assert "Yes: a dense tensor stores every zero." in capsys.readouterr().out
    assert first_answers() == {"90.q1": True}


def test_wrong_option_has_its_own_reply_and_the_first_answer_stays(capsys):
    with pytest.raises(Wrong, match="90.q1: Zeros are stored whatever their number"):
        answer("90.q1", WRONG_LETTER)
    answer("90.q1", QUESTION.letter)
    assert "your first answer stays on record" in capsys.readouterr().out
    assert first_answers() == {"90.q1": False}
    assert [event["option"] for event in progress.events("answer")] == ["few", "dense"]


@pytest.mark.parametrize("letter", ["z", "", 1, None, ["a"]])
def test_no_such_option(letter):
    with pytest.raises((ValueError, TypeError)):
        answer("90.q1", letter)
    assert progress.events("answer") == []


def test_question_to_do(monkeypatch, capsys):
    assert answer("90.q1", ...) is ...
    assert "still to do" in capsys.readouterr().out
    monkeypatch.setenv("COMPRESSLAB_STRICT", "1")
    with pytest.raises(ToDo):
        answer("90.q1", ...)


def test_shuffling_depends_on_the_id_only_and_spreads_the_right_letter():
    assert QUESTION.shuffled == Question("90.q1", "other prompt", QUESTION.options).shuffled
    letters = {Question(f"90.q{i}", "?", QUESTION.options).letter for i in range(1, 30)}
    assert letters == {"a", "b", "c"}


def test_a_question_has_one_right_option_and_no_doubles():
    with pytest.raises(ValueError, match="exactly one correct"):
        Question("90.q2", "?", (Option("a", "A", "no"),))
    with pytest.raises(ValueError, match="two options with one key"):
        Question("90.q2", "?", (Option("a", "A", "no"), Option("a", "B", "yes", correct=True)))


# -- predictions ---------------------------------------------------------------------------------------


def test_predict_then_reveal(capsys):
    assert predict("90.p1", (4, 10)) == (4.0, 10.0) == predict("90.p1", 4, 10)
    assert reveal("90.p1", torch.tensor(8.0)) == 8.0
    out = capsys.readouterr().out
    assert "90.p1: 4 to 10 x; recorded" in out and "your first prediction stays" in out
    assert "you said 4 to 10, measured 8 x: inside. Interval score 1.32 doublings" in out


def test_the_first_interval_before_the_first_reveal_counts():
    predict("90.p2", 1, 2)
    predict("90.p2", 0, 100)
    reveal("90.p2", 5)
    reveal("90.p2", 1.5)
    assert [(o.low, o.high, o.value, o.inside) for o in outcomes()] == [(1, 2, 5, False)]


def test_a_prediction_after_the_reveal_is_not_scored(capsys):
    reveal("90.p2", 5)
    assert "no prediction before" in capsys.readouterr().out
    predict("90.p2", 4, 6)
    reveal("90.p2", 5)
    assert outcomes() == []


def test_interval_score_is_proper():
    """Under N(0, 1) the expected score is smallest at the true 10 % and 90 % quantiles, +-1.2816."""
    draws = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).tolist()
    mean = {
        half: sum(interval_score(-half, half, x) for x in draws) / len(draws)
        for half in (0.8, 1.0, 1.28, 1.6, 2.0)
    }
    assert min(mean, key=mean.get) == 1.28
    assert mean[1.28] == pytest.approx(2 * 10 * math.exp(-(1.2816**2) / 2) / math.sqrt(2 * math.pi), rel=0.02)


def test_log_score_treats_half_and_double_alike():
    assert interval_score(1, 2, 4, log=True) == interval_score(1, 2, 0.5, log=True) == 11.0


def test_position_in_the_interval():
    assert [Outcome("a", 1, 4, x, True).position for x in (1, 2, 4, 8)] == [-1, 0, 1, 2]
    assert Outcome("a", 3, 3, 3, False).position == 0 and Outcome("a", 3, 3, 4, False).position == math.inf


@pytest.mark.parametrize(
    "low, high, words",
    [
        (3, 2, "the smaller first"),
        (math.nan, 2, "finite"),
        (0, 2, "must be positive"),
        ("a", "b", "needs two numbers"),
        (3, None, "needs two numbers"),
        ((1, 2, 3), None, "needs two"),
    ],
)
def test_predict_refuses(low, high, words):
    with pytest.raises(ValueError, match=words):
        predict("90.p1", low, high)


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_reveal_refuses(value):
    with pytest.raises(ValueError, match="must be finite and positive"):
        reveal("90.p1", value)


def test_prediction_to_do(monkeypatch):
    assert predict("90.p1", ...) is ...
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(ToDo):
        predict("90.p1", ...)


def test_calibration_figure(capsys):
    assert calibration() is None and "Nothing to show yet" in capsys.readouterr().out
    predict("90.p1", 1, 2)
    reveal("90.p1", 1.0)
    figure = calibration()
    assert figure.axes[0].get_title() == "1 of 1 inside; 80 % would be 0.8"


# -- hints ---------------------------------------------------------------------------------------------


def test_hints_climb_one_rung_at_a_time(capsys):
    said = []
    for _ in range(4):
        hint("90.1")
        said.append(capsys.readouterr().out)
    assert "The idea: Sort by size." in said[0] and "k largest |v|" not in said[0]
    assert "k largest |v|" in said[1] and "A skeleton" not in said[1].replace("for a skeleton", "")
    assert "order = ..." in said[2] and 'solution("90.1")' in said[2] and said[3] == said[2]


def test_the_formula_is_worked_on_the_failing_input(capsys):
    with pytest.raises(Wrong):
        check("90.1", learner_copy(EXERCISES[0].mistakes[0].wrong))
    hint("90.1")
    hint("90.1")
    out = capsys.readouterr().out
    assert "on your failing input values=tensor([1, -2]), k=1" in out
    assert (
        "your function gave   tensor([True, False])" in out
        and "the right answer is  tensor([False, True])" in out
    )
    check("90.1", learner_copy(keep_largest))
    hint("90.1")
    assert "After a failed check" in capsys.readouterr().out


def test_solution_shows_the_reference_and_is_recorded(capsys):
    solution("90.1")
    solution("90.3")
    out = capsys.readouterr().out
    assert "def keep_largest(values, k):" in out and "ratio = 8.0" in out
    assert [event["id"] for event in progress.events("solution")] == ["90.1", "90.3"]
