"""Chapter 02, Quantization: the table."""

from compresslab.course.chapter02 import exercises_grid, exercises_training, questions_grid, questions_training
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="02", slug="quantization", title="Quantization",
    exercises=(*exercises_grid.EXERCISES, *exercises_training.EXERCISES),
    questions=(*questions_grid.QUESTIONS, *questions_training.QUESTIONS),
    predictions=(*questions_grid.PREDICTIONS, *questions_training.PREDICTIONS),
)
