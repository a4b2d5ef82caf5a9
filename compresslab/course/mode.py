"""How this notebook is being run: by a person, by a grader, by a test, by a converter.

Everything is read from environment variables, at the moment it is needed.
"""

from __future__ import annotations

import os


def _set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def graded() -> bool:
    """Whether nbgrader runs this notebook (autograding or validating)."""
    return os.environ.get("NBGRADER_EXECUTION") in ("autograde", "validate")


def strict() -> bool:
    """Whether an exercise that is still to do is an error: `COMPRESSLAB_STRICT=1`, or graded."""
    return _set("COMPRESSLAB_STRICT") or graded()


def quick() -> bool:
    """Whether to use the smaller budgets meant for tests: `COMPRESSLAB_QUICK=1`."""
    return _set("COMPRESSLAB_QUICK")


def static() -> bool:
    """Whether widgets become static figures: `COMPRESSLAB_STATIC=1`, continuous integration, or graded."""
    return _set("COMPRESSLAB_STATIC") or _set("CI") or graded()
