"""What the notebook of chapter 09 computes beside the exercises of its sections 3 to 5."""

import pytest
import torch

from compresslab.course.chapter09.figures_rounding import rise, rows_of
from compresslab.course.chapter09.references_rounding import smooth
from compresslab.course.chapter09.widgets_rounding import SmoothLook, round_to
from compresslab.quantization.smoothquant import smooth_scale


def look():
    g = torch.Generator().manual_seed(0)
    gamma = torch.ones(16)
    gamma[3] = 40.0
    readers = [torch.randn(8, 16, generator=g) / gamma for _ in range(3)]
    return SmoothLook(smooth, gamma, readers, torch.randn(64, 16, generator=g))


def test_the_slider_shows_that_smoothing_helps():
    data = look()(0.5)
    assert data["error"] < 0.3 * look().as_given and len(data["errors"]) == 11
    torch.testing.assert_close(data["x"], data["w"])  # equal ranges at 1/2
    assert data["errors"][5] == pytest.approx(data["error"], rel=1e-6)
    assert torch.allclose(look()(1.0)["x"], torch.ones(16))


def test_the_exercise_agrees_with_the_library():
    g = torch.Generator().manual_seed(1)
    W, x = torch.randn(5, 7, generator=g), torch.rand(7, generator=g) * 9
    x[2] = 0.0
    for alpha in (0.0, 0.3, 1.0):
        gamma, readers = smooth(torch.ones(7), [W], x, alpha)
        s = smooth_scale(x, W.abs().amax(0), alpha)
        torch.testing.assert_close(1 / gamma, s)
        torch.testing.assert_close(readers[0], W * s)


def test_rounding_to_a_range():
    assert round_to(torch.tensor([1.0, -0.6]), torch.tensor(1.0), bits=2).tolist() == [1.0, -1.0]


def test_rows_of_evidence():
    evidence = {"rounding 0": [{"m": 1, "relative": 0.1}], "rounding 1": [{"m": 1, "relative": 0.3}], "goal": [{"m": 2, "relative": 9.0}]}
    rows = rows_of(evidence, "rounding")
    assert len(rows) == 2 and rise(rows, m=1) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no row has"):
        rise(rows, m=3)
