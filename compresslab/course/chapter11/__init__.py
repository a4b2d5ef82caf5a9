"""Chapter 11, Deployment: the table."""

from compresslab.course.chapter11 import (
    exercises_clock,
    exercises_engine,
    exercises_integer,
    exercises_limits,
    exercises_memory,
    exercises_verdict,
    questions_clock,
    questions_engine,
    questions_integer,
    questions_limits,
    questions_memory,
    questions_verdict,
)
from compresslab.course.exercise import Chapter

EXERCISES = (exercises_clock, exercises_engine, exercises_integer, exercises_limits, exercises_verdict, exercises_memory)
QUESTIONS = (questions_clock, questions_engine, questions_integer, questions_limits, questions_verdict, questions_memory)

CHAPTER = Chapter(
    number="11", slug="deployment", title="Deployment: where compression becomes speed",
    exercises=tuple(exercise for part in EXERCISES for exercise in part.EXERCISES),
    questions=tuple(question for part in QUESTIONS for question in part.QUESTIONS),
    predictions=tuple(prediction for part in QUESTIONS for prediction in part.PREDICTIONS),
)
