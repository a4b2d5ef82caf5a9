"""Chapter 07, Hybrid methods: the table."""

from compresslab.course.chapter07 import exercises_coding, exercises_joint, questions_coding, questions_joint
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="07", slug="hybrid_methods", title="Hybrid methods: when techniques meet",
    exercises=(*exercises_coding.EXERCISES, *exercises_joint.EXERCISES),
    questions=(*questions_coding.QUESTIONS, *questions_joint.QUESTIONS),
    predictions=(*questions_coding.PREDICTIONS, *questions_joint.PREDICTIONS),
)
