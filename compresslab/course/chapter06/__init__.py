"""Chapter 06, Parameter sharing: the table."""

from compresslab.course.chapter06 import exercises_hashing, exercises_structures, questions_hashing, questions_structures
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="06", slug="parameter_sharing", title="Parameter sharing",
    exercises=(*exercises_hashing.EXERCISES, *exercises_structures.EXERCISES),
    questions=(*questions_hashing.QUESTIONS, *questions_structures.QUESTIONS),
    predictions=(*questions_hashing.PREDICTIONS, *questions_structures.PREDICTIONS),
)
