"""Deep Compression: zeros stay zeros, shared values learn, stored = simulated, and the stages come in one order."""

import pytest
import torch
from torch import nn

from compresslab.core import GapSparseCode, UniformCode, decompress, encode, load, named_layers, pipeline, save
from compresslab.core.huffman import code_lengths
from compresslab.core.kmeans import kmeans_1d
from compresslab.data import load_data
from compresslab.distillation import teacher_outputs
from compresslab.hybrid.deep_compression import (
    SparseCodebook, deep_compression_steps, gap_code, learn, prune_gradually, share_weights, tune_centroids,
)  # fmt: skip
from compresslab.pruning import layer_sparsity, prune_magnitude


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))


def sparse_weight(shape, seed=0, sparsity=0.6):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) < sparsity, 0.0, weight)


@pytest.mark.parametrize("shape", [(7,), (6, 5), (4, 3, 3, 3)])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_simulated_is_stored_bit_for_bit_and_zeros_stay(shape, bits):
    weight = sparse_weight(shape)
    shared = SparseCodebook(weight, bits, index_bits=4)
    shown, code = shared(weight), shared.to_code(weight)
    assert isinstance(code, GapSparseCode) and code.index_bits == 4
    assert torch.equal(shown, code.decode())
    assert torch.equal(shown == 0, weight == 0)
    assert len(shown[weight != 0].unique()) <= 2**bits


def test_the_clusters_are_those_of_kmeans_over_what_is_left():
    weight = sparse_weight((30, 20))
    centres, indices = kmeans_1d(weight[weight != 0], 8)
    shared = SparseCodebook(weight, bits=3)
    assert torch.equal(shared.codebook.detach(), centres)
    assert torch.equal(shared.labels[weight != 0] - 1, indices)


def test_a_centroid_gets_the_sum_of_its_members_gradients():
    weight = sparse_weight((12, 9))
    shared = SparseCodebook(weight, bits=2)
    gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    shared(weight).backward(gradient)
    wanted = [gradient[shared.labels == j + 1].sum() for j in range(4)]
    assert torch.allclose(shared.codebook.grad, torch.stack(wanted), atol=1e-5)


def test_a_centroid_that_becomes_zero_is_stored_too():
    weight = torch.tensor([0.0, 1.0, 0.0, -1.0])
    shared = SparseCodebook(weight, bits=1)
    with torch.no_grad():
        shared.codebook[0] = 0.0
    assert shared.to_code(weight).decode().tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.ones(2, 2), torch.zeros(0, 5)])
def test_nothing_left_nothing_pruned_and_nothing_at_all(weight):
    assert torch.equal(SparseCodebook(weight, bits=3).to_code(weight).decode(), weight)


def test_pruning_reaches_exactly_what_was_asked_and_leaves_the_input(network, digits):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pruned = prune_gradually(network, digits.train, {"1": 0.9, "3": 0.5}, epochs=1, every=2, progress=False)
    assert layer_sparsity(pruned) == {"1": 0.9, "3": 0.5}
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    everywhere = prune_gradually(network, digits.train, 0.8, scope="global", epochs=1, skip=["3"], progress=False)
    assert layer_sparsity(everywhere) == {"1": 0.8, "3": 0.0}


def test_masks_and_clusters_hold_while_the_values_learn(network, digits):
    shared = share_weights(prune_magnitude(network, 0.7), bits=3)
    tuned = tune_centroids(shared, digits.train, epochs=2, lr=0.01, progress=False)
    for name, layer in named_layers(tuned).items():
        before = dict(shared.named_modules())[name]
        labels = layer.parametrizations.weight[-1].labels
        assert torch.equal(labels, before.parametrizations.weight[-1].labels)
        assert torch.equal(layer.weight == 0, before.weight == 0)
        assert not torch.equal(layer.weight, before.weight)


def test_the_whole_pipeline_and_its_file(network, digits, tmp_path):
    network = learn(network, digits.train, epochs=10, lr=0.005, progress=False)
    teacher = teacher_outputs(network, digits.train)
    steps = deep_compression_steps(digits.train, sparsity={"1": 0.8, "3": 0.5}, bits={"1": 4, "3": 5},
                                   prune_epochs=8, tune_epochs=3, teacher=teacher)  # fmt: skip
    coded, rows = pipeline(network, steps, digits.test, repeats=0)
    assert [row.name for row in rows] == ["start", "prune_gradually", "share_weights", "tune_centroids", "gap_code"]
    assert [row.form for row in rows] == ["plain", "simulated", "simulated", "simulated", "packed"]
    assert rows[-1].file_bytes < rows[0].file_bytes / 3
    assert rows[-1].accuracy > rows[0].accuracy - 0.05
    path = tmp_path / "coded.safetensors"
    assert save(coded, path, entropy=True) < save(coded, tmp_path / "plain.safetensors")
    x = digits.test.x()[:50]
    assert torch.equal(load(path, network)(x), decompress(coded)(x))


def test_huffman_keeps_the_bound_of_entropy_on_the_gaps():
    counts = torch.bincount(torch.randint(0, 9, (500,), generator=torch.Generator().manual_seed(0)) ** 2 // 8).numpy()
    p = counts[counts > 0] / counts.sum()
    entropy = -(p * torch.from_numpy(p).log2().numpy()).sum()
    mean = (counts * code_lengths(counts)).sum() / counts.sum()
    assert entropy <= mean < entropy + 1


def test_contradictory_orders_name_the_layer_and_the_way_out(network, digits):
    coded = gap_code(share_weights(prune_magnitude(network, 0.5)))
    for late in (
        lambda: prune_gradually(coded, digits.train, 0.5, epochs=1),
        lambda: share_weights(coded),
        lambda: tune_centroids(encode(network, UniformCode.from_dense), digits.train, epochs=1),
    ):
        with pytest.raises(ValueError, match="encoded already in layer '1'.*before you encode, or decompress"):
            late()
    with pytest.raises(ValueError, match="no weight of this model is simulated"):
        gap_code(prune_magnitude(network, 0.5))


def test_bad_input_is_refused(network, digits):
    with pytest.raises(ValueError, match="settle must be in"):
        prune_gradually(network, digits.train, 0.5, epochs=1, settle=1.0)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 90"):
        prune_gradually(network, digits.train, 90, epochs=1)
    with pytest.raises(ValueError, match="bits must be"):
        SparseCodebook(torch.ones(3), 9)
    with pytest.raises(ValueError, match="index_bits must be"):
        SparseCodebook(torch.ones(3), 4, index_bits=1)
    with pytest.raises(ValueError, match=r"code book is for a weight of shape \(3,\), got \(4,\)"):
        SparseCodebook(torch.ones(3))(torch.ones(4))
    with pytest.raises(ValueError, match="no such layer: 'fc9'"):
        share_weights(network, {"fc9": 4})


@pytest.mark.parametrize("options", [{"bits": {"1": 3}}, {"bits": 3, "skip": ["3"]}])
def test_a_layer_that_is_not_shared_keeps_its_mask_while_the_others_tune(network, digits, options):
    shared = share_weights(prune_magnitude(network, 0.9), **options)
    tuned = tune_centroids(shared, digits.train, epochs=1, progress=False)
    assert int((tuned[3].weight != 0).sum()) == 40
    assert int((gap_code(tuned)[3].weight != 0).sum()) == 40


def test_pruning_without_training_is_refused(network, digits):
    with pytest.raises(ValueError, match="epochs must be a whole number of at least 1, got 0"):
        prune_gradually(network, digits.train, 0.9, epochs=0)
