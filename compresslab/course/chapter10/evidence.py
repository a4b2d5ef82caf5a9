"""Everything that chapter 10 shows without computing it again: `python -m compresslab evidence 10`."""

from compresslab.course.chapter10 import evidence_small, evidence_trees

ENTRIES = evidence_trees.ENTRIES | evidence_small.ENTRIES
