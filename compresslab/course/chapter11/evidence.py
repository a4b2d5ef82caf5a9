"""What chapter 11 shows without computing it again; `python -m compresslab evidence 11` measures it all, on a quiet machine."""

from compresslab.course.chapter11 import (
    evidence_clock,
    evidence_engine,
    evidence_integer,
    evidence_limits,
    evidence_memory,
    evidence_verdict,
)

PARTS = (evidence_clock, evidence_engine, evidence_integer, evidence_limits, evidence_verdict, evidence_memory)
ENTRIES = {name: entry for part in PARTS for name, entry in part.ENTRIES.items()}
TIMED = tuple(name for part in PARTS for name in getattr(part, "TIMED", ()))
