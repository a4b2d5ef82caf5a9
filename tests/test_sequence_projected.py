"""The projected LSTM: the best shared projection, exact where the rank is enough, equal to the cell written out."""

import itertools

import pytest
import torch
from torch import nn

from compresslab.core.codes import DenseCode
from compresslab.core.layers import encode
from compresslab.core.store import load, save
from compresslab.sequence.lstm import CharLSTM, lstm_cell
from compresslab.sequence.projected import project_lstm, share_projection, state_spectrum

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch: a slower kernel runs


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(layers=1, rank=None, hidden=8):
    """A small LSTM; with a rank, whatever reads the state of a layer has this rank exactly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CharLSTM(embedding=4, hidden=hidden, layers=layers).eval()
    if rank:
        with torch.no_grad():
            for layer in range(layers):
                basis = randn(rank, hidden, seed=layer)
                above = network.head.weight if layer + 1 == layers else getattr(network.lstm, f"weight_ih_l{layer + 1}")
                for number, reader in enumerate((getattr(network.lstm, f"weight_hh_l{layer}"), above)):
                    reader.copy_(0.3 * randn(len(reader), rank, seed=10 + number) @ basis)
    return network


@pytest.mark.parametrize("layers", [1, 2])
def test_exact_where_the_rank_is_enough(layers):
    network, tokens = model(layers, rank=3), torch.arange(24).view(2, 12)
    for rank in (3, 5):
        small = project_lstm(network, rank)
        assert torch.allclose(small(tokens), network(tokens), atol=1e-5)
    assert not torch.allclose(project_lstm(network, 2)(tokens), network(tokens), atol=1e-3)


def test_the_projected_network_is_the_cell_with_a_projection():
    small = project_lstm(model(), 3)
    x = small.embedding(torch.arange(12).view(2, 6))
    h, c, out = torch.zeros(2, 3), torch.zeros(2, 8), []
    for column in x.unbind(1):
        h, c = lstm_cell(column, (h, c), small.lstm.weight_ih_l0, small.lstm.weight_hh_l0,
                         small.lstm.bias_ih_l0 + small.lstm.bias_hh_l0, small.lstm.weight_hr_l0)  # fmt: skip
        out.append(small.head(h))
    assert torch.allclose(torch.stack(out, 1), small(torch.arange(12).view(2, 6)), atol=1e-6)
    own = nn.LSTM(4, 8, proj_size=3, batch_first=True)
    own.load_state_dict(small.lstm.state_dict())
    assert torch.allclose(own(x)[0], small.lstm(x)[0], atol=1e-6)


def test_no_projection_of_the_rank_does_better():
    readers = [randn(12, 5), 3 * randn(4, 5, seed=1), 0.1 * randn(7, 5, seed=2)]
    stacked = torch.cat(readers)
    for rank in range(1, 6):
        P, factors = share_projection(readers, rank)
        error = sum((reader - Z @ P).square().sum() for reader, Z in zip(readers, factors, strict=True))
        assert error == pytest.approx(torch.linalg.svdvals(stacked)[rank:].square().sum().item(), abs=1e-3)
        assert torch.allclose(P @ P.T, torch.eye(rank), atol=1e-5)
        for seed in range(20):
            Q = torch.linalg.qr(randn(5, rank, seed=seed)).Q.T
            assert error <= (stacked - stacked @ Q.T @ Q).square().sum() + 1e-3
        for one in itertools.islice(readers, 2):  # the paper's choice: the best of one reader alone
            alone = torch.linalg.svd(one).Vh[:rank]
            assert error <= (stacked - stacked @ alone.T @ alone).square().sum() + 1e-3


def test_a_rank_beyond_what_there_is():
    low = randn(8, 2) @ randn(2, 6)
    P, (Z,) = share_projection([low], 4)
    assert torch.allclose(Z @ P, low, atol=1e-5) and torch.allclose(P @ P.T, torch.eye(4), atol=1e-5)


def test_sizes_file_and_spectrum(tmp_path):
    network = model()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    small = project_lstm(network.train(), 2)
    assert small.training and small.spec["projection"] == 2 and network.spec["projection"] == 0
    matrices = sum(p.numel() for name, p in small.named_parameters() if "weight" in name and "embedding" not in name)
    assert matrices == 4 * 8 * (4 + 2) + 2 * (8 + 97)
    save(small, tmp_path / "small.safetensors")
    tokens = torch.arange(6)[None]
    assert torch.equal(load(tmp_path / "small.safetensors")(tokens), small.eval()(tokens))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    stacked = torch.cat([network.lstm.weight_hh_l0, network.head.weight])
    assert state_spectrum(network).square().sum() == pytest.approx(stacked.square().sum().item(), rel=1e-4)
    assert (state_spectrum(model(rank=3))[3:] < 1e-4).all() and len(state_spectrum(model(2), 0)) == 8


@pytest.mark.parametrize("call, kind, message", [
    (lambda: project_lstm(model(), 8), ValueError, "rank must be a whole number from 1 to 7, got 8"),
    (lambda: project_lstm(model(), 0), ValueError, "rank must be"),
    (lambda: project_lstm(nn.Linear(2, 2), 1), TypeError, "expected a CharLSTM, got Linear"),
    (lambda: project_lstm(project_lstm(model(), 3), 2), ValueError, "projected already, to 3"),
    (lambda: project_lstm(encode(model(), DenseCode.from_dense), 2), TypeError, "decompress it"),
    (lambda: share_projection([], 1), ValueError, "at least one reader"),
    (lambda: share_projection([torch.ones(2, 3), torch.ones(2, 4)], 1), ValueError, "reader 1 has 4"),
    (lambda: share_projection([torch.ones(2, 3)], 3), ValueError, "rank must be"),
    (lambda: share_projection([torch.full((2, 3), torch.nan)], 1), ValueError, "finite"),
    (lambda: state_spectrum(model(), 1), ValueError, "layer must be"),
])  # fmt: skip
def test_what_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
