"""Classes named by strings, "module:attribute", and imported only when they are needed.

The tables of names are written by hand in this project (which class a file may hold, which network a
specification may name). A name never comes from a file: a file says a key of such a table.
"""

import importlib
from typing import Any


def import_by_name(name: str) -> Any:
    """What `name` stands for.

    Example:
        >>> import_by_name("fractions:Fraction")(1, 2)
        Fraction(1, 2)
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
