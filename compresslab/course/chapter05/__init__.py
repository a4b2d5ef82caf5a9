"""Chapter 05, Low-rank decomposition: the table."""

from compresslab.course.chapter05 import exercises_matrices, exercises_tensors, questions_matrices, questions_tensors
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="05", slug="low_rank_decomposition", title="Low-rank decomposition",
    exercises=(*exercises_matrices.EXERCISES, *exercises_tensors.EXERCISES),
    questions=(*questions_matrices.QUESTIONS, *questions_tensors.QUESTIONS),
    predictions=(*questions_matrices.PREDICTIONS, *questions_tensors.PREDICTIONS),
)
