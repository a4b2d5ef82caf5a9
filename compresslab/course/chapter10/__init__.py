"""Chapter 10, Classical machine learning: the table."""

from compresslab.course.chapter10 import exercises_small, exercises_trees, questions_small, questions_trees
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="10", slug="classical", title="Classical machine learning: small models without a network",
    exercises=(*exercises_trees.EXERCISES, *exercises_small.EXERCISES),
    questions=(*questions_trees.QUESTIONS, *questions_small.QUESTIONS),
    predictions=(*questions_trees.PREDICTIONS, *questions_small.PREDICTIONS),
)
