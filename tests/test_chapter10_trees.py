"""What the first half of chapter 10 computes for its figures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from compresslab.classical.cost_complexity import cost_complexity_path
from compresslab.classical.tree_arrays import TreeArrays
from compresslab.course.chapter10.evidence_trees import TEACHER, forest_rows
from compresslab.course.chapter10.figures_trees import goal
from compresslab.course.chapter10.widgets_trees import PathLook, draw_path


@pytest.fixture
def look():
    fitted = DecisionTreeClassifier(random_state=0).fit(*load_iris(return_X_y=True))
    tree = TreeArrays.from_sklearn(fitted)
    return PathLook(fitted.tree_.children_left, fitted.tree_.children_right, dict(enumerate(fitted.tree_.value[:, 0].argmax(1))), cost_complexity_path(tree))


def test_the_slider_shows_a_tree_of_the_path(look):
    full = int(look.path.leaves[0])
    assert look(full)[2] == set() and 0 in look(1)[2]
    for leaves in range(1, full + 1):
        left, right, gone, _, title = look(float(leaves))
        stack, found = [0], 0
        while stack:
            node = stack.pop()
            if node in gone or left[node] < 0:
                found += 1
            else:
                stack += [left[node], right[node]]
        assert found <= leaves and f"{found} leaves" in title
    assert look(3)[2] < look(2)[2] or look(3)[2] == look(2)[2]


def test_the_tree_is_drawn(look):
    figure, ax = plt.subplots()
    draw_path(ax, look(3))
    assert len(ax.collections) == len(look.left) and ax.get_title().startswith("price")
    plt.close(figure)


def test_rows_of_the_goal_pair_all_parts():
    draw = np.random.default_rng(0)
    parts = {f"forest {part}": {TEACHER: (0.97 + 0.01 * draw.random(10)).tolist(), "small": [0.96] * 10} for part in range(5)}
    rows = forest_rows({**parts, "forest bytes": {TEACHER: 1000, "small": 10}})
    assert [row["bytes"] for row in rows] == [1000, 10] and rows[0]["loss"] == rows[0]["high"] == 0
    assert rows[1]["trainings"] == 50 and rows[1]["loss"] == pytest.approx(rows[0]["accuracy"] - 0.96)
    assert rows[1]["low"] < rows[1]["loss"] < rows[1]["high"]
    plt.close(goal(rows))
