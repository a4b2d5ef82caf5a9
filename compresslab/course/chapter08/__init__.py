"""Chapter 08, The great comparison: the table."""

from compresslab.course.chapter08 import exercises_beyond, exercises_record, questions_beyond, questions_record
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="08", slug="comparison", title="The great comparison",
    exercises=(*exercises_record.EXERCISES, *exercises_beyond.EXERCISES),
    questions=(*questions_record.QUESTIONS, *questions_beyond.QUESTIONS),
    predictions=(*questions_record.PREDICTIONS, *questions_beyond.PREDICTIONS),
)
