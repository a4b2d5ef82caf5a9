"""Chapter 01, Pruning: the table."""

from compresslab.course.chapter01 import budget_task, exercises_channels, exercises_weights
from compresslab.course.chapter01.questions import PREDICTIONS, QUESTIONS
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="01", slug="pruning", title="Pruning",
    exercises=(*exercises_weights.EXERCISES, *exercises_channels.EXERCISES, budget_task.EXERCISE),
    questions=QUESTIONS, predictions=PREDICTIONS,
)
