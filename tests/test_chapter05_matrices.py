"""Chapter 05, first half: what its widget computes, what its figures draw, and its answers against the library and scipy."""

import matplotlib.pyplot as plt
import pytest
import torch
from scipy import linalg
from torch import nn

from compresslab.course.chapter05 import figures
from compresslab.course.chapter05 import references_matrices as references
from compresslab.course.chapter05.widgets import AXES, RankLook, draw_ranks, mosaic
from compresslab.lowrank import break_even_rank, energy_rank, factor_conv, kernel_matrix
from compresslab.lowrank.response import response_svd


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def kernel():
    return torch.randn(6, 4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def look(kernel):
    return RankLook(kernel, references.flattenings, shown=(6, 4))


# -- the widget --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flattening", range(4))
def test_the_look_rebuilds_the_kernel_with_the_error_and_the_price_it_draws(kernel, look, flattening):
    name = list(AXES)[flattening]
    S = torch.as_tensor(linalg.svdvals(references.flattenings(kernel)[name].numpy()))
    for rank in (1, 3):
        data = look(rank, flattening)
        assert (data.name, data.rank) == (name, rank)
        assert (data.before - data.after).norm() == pytest.approx(S[rank:].norm().item())
        assert data.errors[name][rank - 1] == pytest.approx((S[rank:].norm() / S.norm()).item())
        assert data.shares[name][rank - 1] == rank * sum(references.flattenings(kernel)[name].shape) / kernel.numel()


def test_a_rank_above_full_rank_counts_as_all(kernel, look):
    data = look(99, 1)
    assert data.rank == 4
    assert torch.allclose(data.after, kernel)


def test_the_widget_draws_the_filters_twice_and_four_curves(look):
    figure, axes = plt.subplots(1, 3)
    draw_ranks(axes, look(2, 2))
    assert [len(ax.images) for ax in axes[:2]] == [1, 1]
    assert {line.get_label() for line in axes[2].get_lines()} >= set(AXES)


def test_mosaic_keeps_every_filter_whole():
    filters = torch.arange(12.0).view(1, 2, 2, 3)
    assert mosaic(filters, gap=-1.0).tolist() == [[0, 1, 2, -1, 6, 7, 8], [3, 4, 5, -1, 9, 10, 11]]


# -- the answers, against the library ----------------------------------------------------------------


def test_the_references_agree_with_the_library(kernel):
    for name, scheme in {"output": "channel", "input": "input", "spatial": "spatial", "pixel": "pixel"}.items():
        assert torch.equal(references.flattenings(kernel)[name], kernel_matrix(kernel, scheme))
    conv = nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2)).double()
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    ours, library = references.separable_conv(conv, 3).double(), factor_conv(conv, 3, "spatial")
    assert torch.allclose(ours(x), library(x), atol=1e-5)
    assert all(references.break_even_rank(m, n) == break_even_rank(m, n) for m in range(1, 9) for n in range(1, 9))
    S = linalg.svdvals(kernel.flatten(1).numpy())
    assert all(references.energy_rank(torch.as_tensor(S), e) == energy_rank(torch.as_tensor(S), e) for e in (0.1, 0.5, 0.9, 1.0))


def test_response_svd_is_the_librarys():
    W, X = torch.randn(5, 7, dtype=torch.float64), torch.randn(7, 30, dtype=torch.float64)
    (B, A), (other_B, other_A) = references.response_svd(W, X @ X.T, 2), response_svd(W, X @ X.T, 2)
    assert torch.allclose(B @ A, other_B @ other_A)


# -- the figures -------------------------------------------------------------------------------------


def method_rows():
    rows = [{"method": "SVD", "fraction": f, "tuned": tuned, "seed": s, "macs": 1e7 * f, "accuracy": 0.5 + f / 4 + s / 100}
            for f in (0.25, 0.5) for tuned in (False, True) for s in (0, 1)]
    return [*rows, {"method": "dense, trained as long", "fraction": 1.0, "tuned": True, "seed": 0, "macs": 1e7, "accuracy": 0.97}]


def test_methods_draws_means_dashed_before_and_solid_after_tuning():
    left, right = figures.methods(method_rows()).axes
    for ax, style in ((left, "--"), (right, "-")):
        line = next(line for line in ax.get_lines() if line.get_label() == "SVD")
        assert line.get_linestyle() == style
        assert line.get_ydata() == pytest.approx([56.75, 63.0])
        assert any(other.get_label() == "dense, trained as long" for other in ax.get_lines())


def test_figures_survive_having_no_rows():
    assert len(figures.methods([]).axes) == 2


def test_the_other_figures_draw():
    assert len(figures.chains().axes[0].patches) == sum(len(parts) for _, parts in figures.CHAINS.values())
    values = {name: [3.0, 2.0, 1.0] for name in AXES}
    left, right = figures.four_spectra(values, dict.fromkeys(AXES, (3, 4)), 12).axes
    assert right.get_lines()[0].get_ydata()[0] == 1.0 and right.get_lines()[0].get_ydata()[-1] == pytest.approx(0)
    row = {"layer": "a", "weights": (0.5, 0.6), "output": (0.4, 0.2), "accuracy": (0.4, 0.9)}
    assert [len(ax.patches) for ax in figures.two_errors([row]).axes] == [2, 2, 2]
    weight = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
    assert len(figures.arrows(weight, {"one": weight, "other": weight}, torch.eye(2)).axes) == 2
    assert len(figures.pictures({"a": torch.randn(2, 4, 4), "b": torch.randn(2, 4, 4)}).axes) == 2
    assert len(figures.rank_sweep([1, 2], [0.5, 0.9], [0.1, 0.2], 0.95, 3).get_lines()) == 4
    assert len(figures.spectra({"a": [2.0, 1.0]}).get_lines()) == 1
