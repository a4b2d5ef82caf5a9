"""Chapter 09, Sequence models: the table."""

from compresslab.course.chapter09 import exercises_decoding, exercises_recurrent, exercises_rounding, exercises_structure
from compresslab.course.chapter09 import questions_decoding, questions_recurrent, questions_rounding, questions_structure
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="09", slug="sequence_models", title="Sequence models: recurrent networks and transformers",
    exercises=(
        *exercises_recurrent.EXERCISES, *exercises_rounding.EXERCISES, *exercises_decoding.EXERCISES, *exercises_structure.EXERCISES,
    ),
    questions=(
        *questions_recurrent.QUESTIONS, *questions_rounding.QUESTIONS, *questions_decoding.QUESTIONS, *questions_structure.QUESTIONS,
    ),
    predictions=(
        *questions_recurrent.PREDICTIONS, *questions_rounding.PREDICTIONS, *questions_decoding.PREDICTIONS,
        *questions_structure.PREDICTIONS,
    ),
)  # fmt: skip
