"""TEACHING.md names exercises that exist, and its minutes and points are those of the code."""

import re

import points
from points import EXERCISES, TEACHING

TEXT = TEACHING.read_text(encoding="utf-8")
PLAN = re.compile(r"^\|[^|]*\| *(\d+) *\|(.*)\|$", re.MULTILINE)


def section(title):
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def named(text):
    return re.findall(r"\b(\d+\.\d+)\b", text)


def test_the_table_of_points_is_that_of_the_code():
    assert points.table() in TEXT, "run: python tests/points.py"
    assert points.written(TEXT) == TEXT


def test_every_exercise_that_a_plan_names_exists():
    for title in ("Half a day", "One day", "Twelve weeks"):
        ids = named(section(title))
        assert len(ids) > 10 and not set(ids) - set(EXERCISES), set(ids) - set(EXERCISES)


def test_half_a_day_is_what_is_tagged_workshop():
    ids = named(section("Half a day"))
    assert sorted(ids) == sorted(id for id, exercise in EXERCISES.items() if exercise.workshop)
    words = " ".join((TEACHING.parent / "README.md").read_text(encoding="utf-8").split())
    assert f"the {len(ids)} exercises tagged *workshop*" in words


def test_the_minutes_of_a_plan_are_enough_for_its_exercises():
    for title, whole in (("Half a day", 240), ("One day", 420)):
        rows = [(int(minutes), named(rest)) for minutes, rest in PLAN.findall(section(title))]
        assert sum(minutes for minutes, _ in rows) == whole
        for minutes, ids in rows:
            assert sum(EXERCISES[id].minutes for id in ids) <= minutes, ids


def test_twelve_weeks_set_every_chapter_and_only_its_own_exercises():
    rows = re.findall(r"^\| (\d+) \| (\d\d) \|([^|]*)\|([^|]*)\|", section("Twelve weeks"), re.MULTILINE)
    assert [int(week) for week, *_ in rows] == list(range(1, 13))
    assert sorted(chapter for _, chapter, *_ in rows) == [f"{n:02d}" for n in range(12)]
    for _, chapter, together, home in rows:
        ids = named(together) + named(home)
        assert len(set(ids)) == len(ids)
        assert {id.split(".")[0] for id in ids} == {str(int(chapter))}
        assert 20 <= sum(EXERCISES[id].minutes for id in named(together)) <= 60


def test_a_chapter_says_what_to_do_in_a_workshop():
    for chapter in points.CHAPTERS:
        tagged = [exercise.id for exercise in chapter.exercises if exercise.workshop]
        text = (TEACHING.parent / "solutions" / f"{chapter.name}.py").read_text(encoding="utf-8").replace("\n# ", " ")
        if tagged:
            said = re.split(r"predictions?\b|;|\.\s", text.split("**In a workshop** do exercises ")[1])[0]
            ids = named(said)
            if " to " in said:
                first, last = ids
                ids = [id for id in EXERCISES if id.split(".")[0] == first.split(".")[0]]
                ids = ids[ids.index(first) : ids.index(last) + 1]
            assert ids == tagged
