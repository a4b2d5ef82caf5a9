"""Every exercise of every chapter: its known mistakes, cheats and right answers go through its check."""

import random
from datetime import date

import pytest
from toy_chapter import CHAPTER, toy  # noqa: F401

from compresslab.course import budget
from compresslab.course.budget import BudgetTask
from compresslab.course.chapters import CHAPTERS, load_chapter
from compresslab.course.cheats import function_cheats
from compresslab.course.checking import judge
from compresslab.course.compare import same
from compresslab.course.evidence import entries, load_evidence, quick_entries
from compresslab.course.exercise import Exercise, Mistake
from compresslab.course.selftest import kill_table, learner_copy, try_exercise

NUMBERS = sorted(CHAPTERS)
EXERCISES = [
    pytest.param(number, exercise, id=f"{exercise.id} {exercise.name}")
    for number in NUMBERS
    for exercise in load_chapter(number).exercises
]
AT_LEAST = {"00": (6, 3, 3), "01": (10, 6, 4), "02": (10, 7, 4), "03": (9, 6, 4), "04": (9, 6, 4), "05": (9, 6, 4), "06": (9, 6, 4), "07": (8, 6, 4), "08": (6, 5, 3), "09": (9, 6, 4), "10": (7, 5, 3), "11": (8, 6, 5)}  # code exercises, questions, predictions


@pytest.fixture
def judged_here(monkeypatch):
    """Files are judged in this process: a fresh one, which test_budget.py tests, costs five seconds a file."""
    monkeypatch.setattr(budget, "_measure_elsewhere", lambda request, size: budget.measure_file(request))


@pytest.mark.parametrize("number, exercise", EXERCISES)
def test_the_check_rejects_mistakes_and_cheats_and_accepts_right_answers(number, exercise, judged_here):
    rows = try_exercise(exercise, load_chapter(number), one_seed=True)  # all seeds: python -m compresslab kill-table
    assert {row.group for row in rows} == {"mistake", "cheat", "right"}
    assert [f"{row.group} {row.answer!r}: {row.detail}" for row in rows if not row.ok] == []


@pytest.mark.parametrize("number, exercise", EXERCISES)
def test_what_the_learner_reads(number, exercise):
    diagnoses = [mistake.diagnosis for mistake in exercise.mistakes]
    assert len(set(diagnoses)) == len(diagnoses)
    for text in diagnoses:
        assert text == text.strip() and not text.endswith(".") and "\n" not in text
    assert exercise.misconception and exercise.title and 1 <= exercise.minutes <= 60 and exercise.points > 0
    idea, _, skeleton = exercise.hints
    assert isinstance(idea, str) and isinstance(skeleton, str) and "..." in skeleton


@pytest.mark.parametrize("number", NUMBERS)
def test_a_chapter_has_enough_of_everything(number):
    chapter = load_chapter(number)
    code, questions, predictions = AT_LEAST.get(number, (6, 3, 3))
    assert sum(not exercise.value for exercise in chapter.exercises) >= code
    assert len(chapter.questions) >= questions and len(chapter.predictions) >= predictions
    names = [exercise.name for exercise in chapter.exercises]
    assert len(set(names)) == len(names)
    for question in chapter.questions:
        replies = [option.reply for option in question.options]
        assert len(replies) >= 3 and all(replies) and len(set(replies)) == len(replies)


@pytest.mark.parametrize("number", [number for number in NUMBERS if number != "00"])
def test_a_chapter_has_a_budget_task(number):
    verifiers = [getattr(exercise.verify, "__self__", None) for exercise in load_chapter(number).exercises]
    assert sum(isinstance(owner, BudgetTask) for owner in verifiers) == 1


@pytest.mark.parametrize("number", [number for number in NUMBERS if number != "08"])  # its table: test_compare_rows.py
def test_one_entry_of_the_evidence_comes_out_again(number):
    """Another entry every day; training on another machine moves a number a little, not a lot."""
    stored, functions = load_evidence(number), entries(number)
    assert set(stored) == set(functions)
    name = random.Random(date.today().toordinal()).choice(quick_entries(number, seconds=25))
    assert same(functions[name](), stored[name], rtol=0.1, atol=0.03), f"evidence {name} of chapter {number}"


# -- the self-test can fail --------------------------------------------------------------------------------


def changed(index, **changes):
    from dataclasses import fields

    exercise = CHAPTER.exercises[index]
    return Exercise(**{**{f.name: getattr(exercise, f.name) for f in fields(exercise)}, **changes})


def failing(exercise):
    return {row.answer for row in try_exercise(exercise, CHAPTER) if not row.ok}


def test_the_toy_chapter_is_sound():
    assert all(row.ok for row in kill_table(CHAPTER))


def test_a_check_that_accepts_everything_kills_nothing():
    def lazy(t):
        t.call(t.randn(3), 1)
        return "nothing"

    assert {"kept the smallest", "forgot abs", "returns nothing", "one output for every input"} <= failing(
        changed(0, verify=lazy)
    )


def test_one_shape_only_is_noticed():
    def one_shape(t):
        for _ in range(3):
            values = t.randn(5)
            t.close(t.call(values, 2), t.reference(values, 2), "the mask")
        return "one shape"

    assert failing(changed(0, verify=one_shape)) == {"right on the first shape only"}


def test_a_check_that_asks_for_one_implementation_is_noticed():
    def reference_only(t):
        t.expect(t.function.__name__ == "keep_largest", "not mine")
        return CHAPTER.exercises[0].verify(t)

    assert "alternative 1: with_topk" in failing(changed(0, verify=reference_only))


def test_a_diagnosis_that_another_mistake_takes_is_noticed():
    twin = Mistake("twin", CHAPTER.exercises[0].mistakes[0].wrong, "the same thing again")
    assert failing(changed(0, mistakes=(*CHAPTER.exercises[0].mistakes, twin))) == {"twin"}


def test_what_cannot_be_computed_is_one_line_of_the_table():
    broken = (Mistake("broken", lambda: 1 / 0, "never"), *CHAPTER.exercises[2].mistakes)
    assert failing(changed(2, mistakes=broken)) == {"broken"}
    never = changed(0, verify=lambda t: t.expect(False, "never"))
    assert "all of them" in failing(never)


def test_values_by_rote_are_noticed():
    assert "nan" in failing(changed(2, verify=lambda t: "anything goes"))


def test_simple_cheats_that_are_right_are_left_out():
    exercise = changed(0, reference=lambda values, k: None, verify=lambda t: str(t.call(t.randn(2), 1)))
    assert "returns nothing" not in function_cheats(exercise, exercise.reference)


def test_a_class_can_be_an_answer():
    class Doubler:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, x):
            return helper(x, self.factor)

    def verify(t):
        for shape in ((2,), (3, 4)):
            x = t.randn(*shape)
            t.close(t.use(lambda cls, x: cls(2)(x), x), 2 * x, "twice x")
        return "two shapes"

    exercise = changed(0, reference=Doubler, verify=verify)
    assert judge(exercise, learner_copy(Doubler), CHAPTER).state == "passed"


def helper(x, factor):
    return x * factor
