"""The chapters: a static table of names, imported only when an id asks for one."""

from __future__ import annotations

from compresslab.core.names import import_by_name
from compresslab.course.exercise import Chapter, Exercise, Prediction, Question, chapter_number

CHAPTERS: dict[str, str] = {
    "00": "compresslab.course.chapter00:CHAPTER",
    "01": "compresslab.course.chapter01:CHAPTER",
    "02": "compresslab.course.chapter02:CHAPTER",
    "03": "compresslab.course.chapter03:CHAPTER",
    "04": "compresslab.course.chapter04:CHAPTER",
    "05": "compresslab.course.chapter05:CHAPTER",
    "06": "compresslab.course.chapter06:CHAPTER",
    "07": "compresslab.course.chapter07:CHAPTER",
    "08": "compresslab.course.chapter08:CHAPTER",
    "09": "compresslab.course.chapter09:CHAPTER",
    "10": "compresslab.course.chapter10:CHAPTER",
    "11": "compresslab.course.chapter11:CHAPTER",
}


def load_chapter(number: str | int) -> Chapter:
    """The table of one chapter: `load_chapter("01")`, `load_chapter(1)`.

    Raises:
        ValueError: there is no such chapter; the message lists those that exist.
    """
    key = str(number).zfill(2)
    if key not in CHAPTERS:
        raise ValueError(f"there is no chapter {number!r}; there are {', '.join(sorted(CHAPTERS))}")
    return import_by_name(CHAPTERS[key])


def find_exercise(id: str) -> Exercise:
    """The exercise with this id, from the chapter that the id names."""
    return load_chapter(chapter_number(id)).find(id, Exercise)


def find_question(id: str) -> Question:
    """The question with this id."""
    return load_chapter(chapter_number(id)).find(id, Question)


def find_prediction(id: str) -> Prediction:
    """The prediction with this id."""
    return load_chapter(chapter_number(id)).find(id, Prediction)
