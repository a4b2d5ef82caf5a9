"""Deep k-means: the relaxation is a lower bound, the hard indicator gives the k-means cost, training makes it smaller."""

import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from compresslab.core import load, save, storage_bits
from compresslab.core.train import train
from compresslab.data import Split
from compresslab.sharing.deep_kmeans import (
    DeepKMeans,
    clustering_penalty,
    encode_rows,
    filter_rows,
    hard_indicator,
    relaxation_bound,
    relaxed_indicator,
)
from compresslab.sharing.vector_kmeans import kmeans


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_hard_indicator_gives_the_kmeans_cost():
    rows = randn(80, 6)
    peer = KMeans(5, n_init=3, random_state=0).fit(rows.numpy())
    F = hard_indicator(torch.from_numpy(peer.labels_).long(), 5).double()
    torch.testing.assert_close(F.T @ F, torch.eye(5).double(), atol=1e-6, rtol=0)
    assert clustering_penalty(rows, F).item() == pytest.approx(peer.inertia_, rel=1e-5)


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_relaxation_is_the_tail_of_the_spectrum_and_below_every_clustering(k):
    rows = randn(60, 6)
    F = relaxed_indicator(rows, k)
    torch.testing.assert_close(F.T @ F, torch.eye(k).double())
    bound = relaxation_bound(rows, k)
    assert clustering_penalty(rows, F).item() == pytest.approx(bound, rel=1e-9)
    assert bound == pytest.approx(torch.linalg.svdvals(rows)[k:].square().sum().item())
    best = KMeans(k, n_init=20, random_state=0).fit(rows.numpy()).inertia_
    assert bound <= best
    for seed in range(3):
        other = torch.linalg.qr(randn(60, k, seed=seed)).Q
        assert clustering_penalty(rows, other) >= bound


def test_the_bound_is_tight_for_orthogonal_clusters_and_empty_from_the_length_of_a_row_on():
    rows = torch.eye(4, dtype=torch.float64).repeat(5, 1)
    assert relaxation_bound(rows, 4) == pytest.approx(0, abs=1e-20)
    assert relaxation_bound(randn(50, 3), 3) == 0 and kmeans(randn(50, 3), 3)[0].shape == (3, 3)


def test_trace_form_and_gradient():
    rows = randn(20, 5).requires_grad_()
    F = relaxed_indicator(rows, 2)
    penalty = clustering_penalty(rows, F)
    trace = torch.trace(rows.T @ rows) - torch.trace(F.T @ rows @ rows.T @ F)
    torch.testing.assert_close(penalty, trace)
    penalty.backward()
    torch.testing.assert_close(rows.grad, (2 * (rows - F @ F.T @ rows)).detach())


def test_indicator_of_rows_that_lack_the_rank():
    rows = torch.outer(randn(12), randn(4))
    F = relaxed_indicator(rows, 3)
    torch.testing.assert_close(F.T @ F, torch.eye(3).double())
    assert clustering_penalty(rows, F) < 1e-20
    assert relaxed_indicator(torch.zeros(5, 3), 2).isfinite().all()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))


def split():
    images = torch.randint(0, 256, (120, 1, 5, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = ((images.flatten(1).double() - 128) @ randn(25, 3, seed=1)).argmax(1)
    return Split(images, labels, (0.5,), (0.3,))


@pytest.mark.parametrize("options", [dict(k=3, length=9), dict(k=4, hard=True, length=9)])
def test_training_with_the_penalty_leaves_less_to_lose(options):
    images = split()
    settings = dict(epochs=6, lr=0.05, weight_decay=0.0, progress=False)
    plain = train(net(), images, **settings)
    deep = train(net(), images, loss=DeepKMeans(["0", "3"], strength=0.5, every=2, **options), **settings)
    k, length = options["k"], options["length"]

    def left(model):
        """The part of the squared weights that k pieces per layer do not keep."""
        coded = encode_rows(model, ["0", "3"], k, length=length)
        pairs = [(coded[i].weight - model[i].weight, model[i].weight) for i in (0, 3)]
        return sum(float(e.detach().square().sum() / w.detach().square().sum()) for e, w in pairs)

    assert left(deep) < 0.9 * left(plain)


def test_indicators_stay_between_two_updates():
    model, loss = net(), DeepKMeans(["0"], 2, 1.0, every=3, length=9)
    x, y, seen = split().x()[:8], split().y[:8], []
    for _ in range(4):
        value = loss(model, x, y)
        seen.append(loss.indicators["0"])
        rows = filter_rows(model[0].weight, 9)
        expected = nn.functional.cross_entropy(model(x), y) + 0.5 * clustering_penalty(rows, seen[-1])
        torch.testing.assert_close(value, expected)
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
    assert seen[0] is seen[1] is seen[2] and seen[3] is not seen[2]
    assert clustering_penalty(torch.ones(1, 1), torch.zeros(1, 1)) == 1


def test_encoded_rows_are_k_pieces_in_one_code_book(tmp_path):
    model = net()
    coded, x = encode_rows(model, ["0", "3"], 4, length=3), split().x()[:5]
    for i in (0, 3):
        assert filter_rows(coded[i].weight.detach(), 3).unique(dim=0).shape[0] == 4
    bits = (24 + 72) * 2 + 2 * 32 * 4 * 3 + 32 * (8 + 3)
    assert storage_bits(coded) == bits
    save(coded, tmp_path / "net")
    assert torch.equal(load(tmp_path / "net", model)(x), coded(x))
    assert isinstance(encode_rows(model, ["0"], 4)[3], nn.Linear)


def test_rows():
    weight = torch.arange(24.0).view(2, 2, 2, 3)
    assert filter_rows(weight)[1].tolist() == [3, 4, 5] and filter_rows(weight, 12)[1, 0] == 12
    assert filter_rows(torch.zeros(4, 6)).shape == (4, 6)
    for bad in (5, 24):
        with pytest.raises(ValueError, match=f"length must divide the 12 numbers of a filter, got {bad}"):
            filter_rows(weight, bad)
    with pytest.raises(ValueError, match="length must be a whole number of at least 1"):
        filter_rows(weight, 0)
    for bad in (torch.zeros(3), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match="at least two axes and one element"):
            filter_rows(bad)


def test_errors():
    model, data = net(), split()
    with pytest.raises(ValueError, match="4 clusters leave nothing of rows of 3 numbers.* in layer '0'"):
        DeepKMeans(["0"], 4, 1.0)(model, data.x(), data.y)
    with pytest.raises(ValueError, match="no such layer"):
        DeepKMeans(["7"], 2, 1.0)(model, data.x(), data.y)
    with pytest.raises(ValueError, match="strength must be finite and at least 0, got -1"):
        DeepKMeans(["0"], 2, -1)
    with pytest.raises(ValueError, match="k must be"):
        DeepKMeans(["0"], 0, 1.0)
    with pytest.raises(ValueError, match="every must be"):
        DeepKMeans(["0"], 2, 1.0, every=0)
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 3, got 4"):
        relaxed_indicator(randn(9, 3), 4)
    with pytest.raises(ValueError, match="k must be"):
        relaxation_bound(randn(9, 3), 0)
    with pytest.raises(ValueError, match="k must be"):
        hard_indicator(torch.zeros(3, dtype=torch.long), 0)
    with pytest.raises(ValueError, match="length must divide .* in layer '0'"):
        encode_rows(model, ["0"], 2, length=5)
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 256"):
        encode_rows(model, ["0"], 300)
