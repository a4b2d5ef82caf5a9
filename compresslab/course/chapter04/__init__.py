"""Chapter 04, Knowledge distillation: the table."""

from compresslab.course.chapter04 import exercises_features, exercises_soft, questions_features, questions_soft
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="04", slug="knowledge_distillation", title="Knowledge distillation",
    exercises=(*exercises_soft.EXERCISES, *exercises_features.EXERCISES),
    questions=(*questions_soft.QUESTIONS, *questions_features.QUESTIONS),
    predictions=(*questions_soft.PREDICTIONS, *questions_features.PREDICTIONS),
)
