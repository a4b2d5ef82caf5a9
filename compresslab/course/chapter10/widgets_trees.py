"""What the slider of section 1 computes and draws: a tree at one point of its path."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from compresslab.classical.cost_complexity import PruningPath
from compresslab.course.chapter10.figures_trees import draw_tree

Drawn = tuple[np.ndarray, np.ndarray, set[int], Mapping[int, int], str]


class PathLook:
    """For a number of leaves: which nodes have collapsed, and at what price.

    Args:
        left, right: children of each node in preorder, -1 in leaves. classes: {node: class}. path: of the same tree.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray, classes: Mapping[int, int], path: PruningPath) -> None:
        self.left, self.right, self.classes, self.path = left, right, classes, path

    def __call__(self, leaves: float) -> Drawn:
        """The first tree of the path with at most so many leaves."""
        step = int(np.flatnonzero(self.path.leaves <= leaves)[0])
        title = f"price {self.path.alphas[step]:.4f}, {self.path.leaves[step]} leaves"
        return self.left, self.right, set(self.path.nodes[1 : step + 1].tolist()), self.classes, title


def draw_path(ax: Axes, drawn: Drawn) -> None:
    """The tree, with what has collapsed in grey."""
    left, right, gone, classes, title = drawn
    draw_tree(left, right, {}, gone=gone, classes=classes, ax=ax, title=title)
