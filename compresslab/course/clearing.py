"""From solved cells to stubs: one subclass of nbgrader's ClearSolutions, for our build and for teachers.

nbgrader puts the same stub everywhere. A top-level `raise` would stop a notebook that nobody has solved,
so here a region at the top level becomes a placeholder, `name = ...`, and an indented region (the body
of a function) becomes `raise NotImplementedError()`.
"""

from __future__ import annotations

import ast
import re

from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions

_REGION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n(.*?)^[ \t]*### END SOLUTION", re.MULTILINE | re.DOTALL
)


def placeholder(source: str) -> str | None:
    """The stub of a cell whose solution region stands at the top level; None if it is indented.

    Raises:
        ValueError: a top-level region does not end in `name = value`, or the cell mixes both kinds.
    Example:
        >>> print(placeholder("### BEGIN SOLUTION\\nratio = 32 / 4\\n### END SOLUTION"))
        # YOUR ANSWER HERE
        ratio = ...
    """
    regions = _REGION.findall(source)
    top = [body for indent, body in regions if not indent]
    if not top:
        return None
    if len(regions) > 1:
        raise ValueError("a cell with a solution region at the top level holds no other region")
    match ast.parse(top[0]).body:
        case [*_, ast.Assign(targets=[ast.Name(name)])]:
            return f"# YOUR ANSWER HERE\n{name} = ..."
    raise ValueError(f"a solution region at the top level must end in `name = value`: {top[0][:200]!r}")


class ClearCourseSolutions(ClearSolutions):
    """nbgrader's ClearSolutions, with a placeholder for value exercises."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict, cell_index: int
    ) -> tuple[NotebookNode, dict]:
        """Replace the solution region of one cell."""
        stub = placeholder(cell.source) if cell.cell_type == "code" else None
        if stub is None:
            return super().preprocess_cell(cell, resources, cell_index)
        usual = self.code_stub
        self.code_stub = {**usual, "python": stub}
        try:
            return super().preprocess_cell(cell, resources, cell_index)
        finally:
            self.code_stub = usual
