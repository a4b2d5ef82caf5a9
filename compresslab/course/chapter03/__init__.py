"""Chapter 03, Compact networks: the table."""

from compresslab.course.chapter03 import exercises_blocks, exercises_networks, questions_blocks, questions_networks
from compresslab.course.exercise import Chapter

CHAPTER = Chapter(
    number="03", slug="compact_networks", title="Compact networks",
    exercises=(*exercises_blocks.EXERCISES, *exercises_networks.EXERCISES),
    questions=(*questions_blocks.QUESTIONS, *questions_networks.QUESTIONS),
    predictions=(*questions_blocks.PREDICTIONS, *questions_networks.PREDICTIONS),
)
