"""The course machinery: checks, questions, predictions, hints, the learner's progress and ledger.

from compresslab.course import check, answer, predict, reveal, hint, solution
"""

from compresslab.course import ledger, plots, progress, widgets
from compresslab.course.checking import check
from compresslab.course.evidence import load_evidence
from compresslab.course.hints import hint, solution
from compresslab.course.mode import quick
from compresslab.course.predictions import calibration, predict, reveal
from compresslab.course.questions import answer

__all__ = [
    "answer",
    "calibration",
    "check",
    "hint",
    "ledger",
    "load_evidence",
    "plots",
    "predict",
    "progress",
    "quick",
    "reveal",
    "solution",
    "widgets",
]
