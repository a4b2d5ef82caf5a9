"""The table of points in TEACHING.md, from the exercises themselves; `python tests/points.py` writes it again."""

from pathlib import Path

from marked import replace_between

from compresslab.course.chapters import load_chapter

TEACHING = Path(__file__).resolve().parents[1] / "TEACHING.md"
BEGIN, END = "<!-- written by tests/points.py -->", "<!-- end of the table -->"
CHAPTERS = [load_chapter(f"{number:02d}") for number in range(12)]
EXERCISES = {exercise.id: exercise for chapter in CHAPTERS for exercise in chapter.exercises}


def table() -> str:
    """One row a chapter: points of the exercises and of the questions, minutes of the core track and of all, and the points of each exercise."""
    rows = ["| chapter | points | minutes, core | minutes, all | points of each exercise |", "|---|---|---|---|---|"]
    for chapter in CHAPTERS:
        marks = {e.id: "*" * (e.track == "stretch") + "w" * e.workshop for e in chapter.exercises}
        each = ", ".join(f"{e.id}{marks[e.id]}: {e.points}" for e in chapter.exercises)
        core = sum(e.minutes for e in chapter.exercises if e.track == "core")
        rows.append(
            f"| {chapter.number} | {sum(e.points for e in chapter.exercises)} + {sum(q.points for q in chapter.questions)} | {core} "
            f"| {sum(e.minutes for e in chapter.exercises)} | {each} |"
        )
    return "\n".join([BEGIN, "", *rows, "", END])


def written(text: str) -> str:
    """A text with the table in it brought up to date."""
    return replace_between(text, BEGIN, END, table())


if __name__ == "__main__":
    TEACHING.write_text(written(TEACHING.read_text(encoding="utf-8")), encoding="utf-8")
