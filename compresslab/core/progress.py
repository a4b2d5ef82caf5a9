"""One progress bar for everything that makes a learner wait, and silence where nobody is watching.

The bar goes to standard output: nbgrader gives zero points to a cell that writes anything to standard error,
which is where tqdm writes unless told otherwise. Nothing is shown in a graded run, in continuous integration,
or when figures are made static, because there every refresh of the bar becomes a line of text in the output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SILENCING_VARIABLES = ("NBGRADER_EXECUTION", "CI", "COMPRESSLAB_STATIC")


def is_silent() -> bool:
    """Whether bars are off: one of `SILENCING_VARIABLES` is set, and not to "", "0" or "false"."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in SILENCING_VARIABLES)


def progress_bar(
    items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "it", show: bool = True
) -> tqdm[Item]:
    """Iterate over `items` behind a tqdm bar on standard output.

    Args:
        items: what to iterate over.
        description: the words before the bar.
        total: number of items, where `items` has no length.
        unit: what one item is called.
        show: False hides the bar; it is hidden anyway where `is_silent()`.
    Returns:
        the tqdm iterator (its `set_postfix` adds numbers behind the bar).
    Example:
        >>> list(progress_bar([1, 2], "counting", show=False))
        [1, 2]
    """
    hidden = not show or is_silent()
    return tqdm(items, description, total=total, unit=unit, file=sys.stdout, disable=hidden, leave=False)
