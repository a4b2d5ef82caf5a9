"""Where the learner stands: counted from events and rows by hand."""

import matplotlib.pyplot as plt
import pytest
from toy_chapter import CHAPTER, toy  # noqa: F401

from compresslab.course import answer, check, hint, ledger, predict, progress, reveal, standing
from compresslab.course.chapters import CHAPTERS
from compresslab.course.selftest import learner_copy
from compresslab.course.trial import Wrong

EXERCISES = CHAPTER.exercises
COURSE = [
    {"network": "net", "family": "pruning", "method": "magnitude", "setting": "0.9", "seed": seed, "accuracy": 0.9 + seed / 100, "file_bytes": 500}
    for seed in range(3)
] + [{"network": "net", "family": "dense", "method": "dense", "setting": "float32", "seed": 0, "accuracy": 0.95, "file_bytes": 4000}]


@pytest.fixture(autouse=True)
def one_chapter(monkeypatch, toy):
    monkeypatch.setattr("compresslab.course.chapters.CHAPTERS", {"90": CHAPTERS["90"], "91": "no_such_module:CHAPTER"})
    monkeypatch.setattr("compresslab.compare.shipped_results", lambda: COURSE)
    yield
    plt.close("all")


def fail(index, mistake):
    with pytest.raises(Wrong):
        check(EXERCISES[index].id, learner_copy(EXERCISES[index].mistakes[mistake].wrong))


def test_a_chapter_is_counted(capsys):
    check("90.3", 8)
    for _ in range(5):
        hint("90.1")  # three rungs, however often they are read again
    hint("90.2")
    answer("90.q1", CHAPTER.questions[0].letter)
    predict("90.p1", 4, 10)
    reveal("90.p1", 8)
    predict("90.p2", 1, 2)
    (row,) = standing.standings()
    assert (row.passed, row.points, row.hints, row.right, row.inside, row.revealed) == (1, 2, 4, 1, 1, 1)
    text = standing.summary()
    assert "90 Toy" in text and "1 of 1 interval held the number; with 80 % each it would be 0.8." in text


def test_the_next_exercise_is_an_open_core_one(monkeypatch):
    assert standing.next_exercise().id == "90.1"
    check("90.3", 8)
    assert standing.next_exercise().id == "90.1"
    progress.record("check", "90.1", state="passed")
    assert standing.next_exercise().id == "90.2"
    monkeypatch.setitem(vars(EXERCISES[1]), "track", "stretch")
    assert standing.next_exercise() is None and standing.what_next() == ["All core exercises are done."]


def test_the_next_exercise_is_in_the_chapter_last_worked_on(monkeypatch):
    monkeypatch.setattr("compresslab.course.chapters.CHAPTERS", {"00": CHAPTERS["00"], "90": CHAPTERS["90"]})
    assert standing.next_exercise().id == "0.1"
    progress.record("check", "90.2", state="wrong")
    progress.record("check", "0.1", state="to do")  # an untouched notebook that was only run
    assert standing.next_exercise().id == "90.1"


def test_a_mistake_met_twice_is_named_and_one_met_once_is_not():
    fail(1, 0)
    fail(0, 0)
    assert standing.repeated_mistakes() == []
    fail(0, 0)
    ((exercise, mistake, times),) = standing.repeated_mistakes()
    assert (exercise.id, mistake, times) == ("90.1", "kept the smallest", 2)
    assert 'Met 2 times in 90.1 keep_largest: "kept the smallest". The belief behind it: small is negative.' in standing.summary()


@pytest.mark.parametrize(
    "inside, revealed, words",
    [(0, 0, "No prediction"), (0, 1, "chance"), (0, 2, "too narrow"), (16, 20, "chance"), (13, 13, "chance"), (14, 14, "wider"), (12, 20, "too narrow")],
)
def test_calibration_is_judged_by_the_binomial_tail(inside, revealed, words):
    """0.2^2 = 0.04; 0.8^13 = 0.055, 0.8^14 = 0.044; P(at most 12 of 20) = 0.032."""
    assert words in standing.calibration_sentence(inside, revealed)


def test_the_front_over_all_chapters_beside_the_course():
    ledger.add({"name": "big", "accuracy": 0.93, "file_bytes": 3000}, chapter="01")
    ledger.add({"name": "small", "accuracy": 0.91, "file_bytes": 700}, chapter="02")
    ledger.add({"name": "beaten", "accuracy": 0.90, "file_bytes": 800}, chapter="02")
    ledger.add({"name": "bits only", "bits_per_character": 2.0, "file_bytes": 5}, chapter="09")
    first, second = standing.front(standing.own_rows())
    assert (first["name"], second["name"]) == ("small", "big")
    head, small, big, _ = standing.front_lines()
    assert "2 of 3 rows" in head
    assert small.endswith("course: 500 (net, magnitude)") and big.endswith("course: 4,000 (net, dense)")


def test_no_results_shipped(monkeypatch):
    def missing():
        raise FileNotFoundError

    monkeypatch.setattr("compresslab.compare.shipped_results", missing)
    ledger.add({"name": "a", "accuracy": 0.9, "file_bytes": 10})
    assert standing.course_rows() == [] and "course: 5" not in standing.summary()
    assert standing.page() is not None


def test_the_page_is_silent_in_static_mode_while_nothing_was_done(monkeypatch, capsys):
    assert progress.page() is None and "Nothing to show yet" in capsys.readouterr().out
    monkeypatch.setenv("COMPRESSLAB_STATIC", "1")
    assert progress.page() is None
    assert capsys.readouterr() == ("", "") and plt.get_fignums() == []


def test_the_page_draws_what_the_table_says(capsys):
    check("90.3", 8)
    predict("90.p1", 4, 10)
    reveal("90.p1", 80)
    ledger.add({"name": "small", "accuracy": 0.91, "file_bytes": 700, "n": 100}, family="pruning")
    ledger.add({"name": "beaten", "accuracy": 0.9, "file_bytes": 700})
    capsys.readouterr()
    bars, held, fronts = progress.page().axes
    assert [patch.get_width() for patch in bars.patches] == [1, pytest.approx(1 / 3)] and bars.texts[0].get_text() == "1/3"
    assert held.get_title() == "All: 0 of 1" and held.lines[0].get_xdata()[0] == 0
    assert [text.get_text() for text in fronts.texts] == ["net", "small"] and fronts.get_xscale() == "log"
    assert capsys.readouterr().out.startswith("Next: 90.1 ")
