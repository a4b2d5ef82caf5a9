"""N:M and block patterns: exact counts, storage codes, and their sizes by formula."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core.codes import CodebookCode, DenseCode, UniformCode
from compresslab.core.modules import get_mask
from compresslab.pruning.masks import layer_sparsity, sparsity_of
from compresslab.pruning.nm import (
    BlockCode,
    NMCode,
    block_mask,
    from_matrix,
    nm_mask,
    prune_blocks,
    prune_nm,
    to_matrix,
)

SHAPES = [(3, 8), (5, 7), (1, 1), (4, 6, 3), (8, 4, 3, 3), (6, 1, 5, 5), (2, 3, 1, 1)]


def randn(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stored_bits(code: nn.Module) -> int:
    return sum(8 * t.numel() * t.element_size() for t in code.state_dict().values())


@pytest.mark.parametrize("shape", SHAPES)
def test_matrix_form(shape):
    weight = randn(shape)
    matrix = to_matrix(weight)
    assert matrix.shape == (shape[0], math.prod(shape[1:]))
    assert torch.equal(from_matrix(matrix, shape), weight)
    if len(shape) == 4:  # channels innermost: column = (row * width + column) * I + channel
        for i, y, x in itertools.product(*map(range, shape[1:])):
            assert torch.equal(matrix[:, (y * shape[3] + x) * shape[1] + i], weight[:, i, y, x])


class TestNMMask:
    @pytest.mark.parametrize("n, m", [(2, 4), (1, 4), (4, 4), (1, 2), (4, 8), (3, 5), (1, 1)])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_exactly_n_largest_in_every_group(self, n, m, shape):
        for weight in (randn(shape), torch.zeros(shape), randn(shape).sign()):  # the last two have ties
            mask = nm_mask(weight, n, m)
            assert mask.dtype == torch.bool and mask.shape == weight.shape
            for row, keep in zip(to_matrix(weight.abs()), to_matrix(mask), strict=True):
                for group, kept in zip(row.split(m), keep.split(m), strict=True):
                    assert int(kept.sum()) == min(n, len(group))
                    assert torch.equal(group[kept].sort().values, group.sort().values[-n:])

    def test_best_of_all_2_4_masks(self):
        row = randn((1, 8), 3, torch.float64)
        best = max(
            row[0, list(a)].square().sum() + row[0, 4:][list(b)].square().sum()
            for a, b in itertools.product(itertools.combinations(range(4), 2), repeat=2)
        )
        torch.testing.assert_close(row[nm_mask(row)].square().sum(), best)

    def test_bad_arguments(self):
        for n, m in [(0, 4), (5, 4), (-1, 4), (1, 0)]:
            with pytest.raises(ValueError, match="must be a whole number"):
                nm_mask(torch.ones(2, 4), n, m)
        with pytest.raises(TypeError, match="whole number"):
            nm_mask(torch.ones(2, 4), 1.5, 4)
        with pytest.raises(ValueError, match="two axes"):
            nm_mask(torch.ones(4))
        with pytest.raises(ValueError, match="nan"):
            nm_mask(torch.full((1, 4), math.nan))


class TestBlockMask:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("block", [(1, 1), (2, 2), (4, 4), (3, 2), (100, 100)])
    @pytest.mark.parametrize("sparsity", [0.0, 0.3, 1.0])
    def test_whole_blocks_of_least_mean_square(self, shape, block, sparsity):
        weight = randn(shape, dtype=torch.float64)
        matrix, mask = to_matrix(weight), to_matrix(block_mask(weight, block, sparsity))
        kept, dropped = [], []
        for top, left in itertools.product(
            range(0, matrix.shape[0], block[0]), range(0, matrix.shape[1], block[1])
        ):
            cut = slice(top, top + block[0]), slice(left, left + block[1])
            assert mask[cut].all() or not mask[cut].any()
            (kept if mask[cut].all() else dropped).append(matrix[cut].square().mean().item())
        assert len(dropped) == round(sparsity * (len(kept) + len(dropped)))
        assert max(dropped, default=0) <= min(kept, default=math.inf)

    def test_one_by_one_blocks_are_magnitude_pruning(self):
        from compresslab.pruning.magnitude import magnitude_mask

        weight = randn((6, 7))
        assert torch.equal(block_mask(weight, (1, 1), 0.6), magnitude_mask(weight, 0.6))

    def test_bad_arguments(self):
        for bad in (80, -0.1, math.nan):
            with pytest.raises(ValueError, match="sparsity must be in"):
                block_mask(torch.ones(4, 4), (2, 2), bad)
        with pytest.raises(ValueError, match="block height"):
            block_mask(torch.ones(4, 4), (0, 2), 0.5)
        with pytest.raises(ValueError, match=r"\(height, width\)"):
            block_mask(torch.ones(4, 4), (2,), 0.5)


class TestSteps:
    def test_prune_nm_and_blocks(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(12, 8))
        before = copy.deepcopy(model.state_dict())
        assert layer_sparsity(prune_nm(model, skip=["1"])) == {"0": 0.5, "1": 0.0, "2": 0.5}
        assert layer_sparsity(prune_nm(model, 1, 4))["1"] == pytest.approx(6 / 9)  # 9 = 4 + 4 + 1
        assert layer_sparsity(prune_blocks(model, 0.5, (4, 4), only=["0", "2"])) == {
            "0": 0.5,
            "1": 0.0,
            "2": 0.5,
        }
        assert sparsity_of(prune_blocks(model, 1.0)) == 1
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        with pytest.raises(ValueError, match="no such layer"):
            prune_nm(model, only=["fc"])

    def test_mask_holds_while_training(self):
        torch.manual_seed(0)
        model = prune_nm(nn.Sequential(nn.Linear(16, 8)))
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(2, 16)).square().sum().backward()
            optimizer.step()
        assert (model[0].weight.view(-1, 4) != 0).sum(1).eq(2).all() and get_mask(model[0]).sum() == 64


class TestNMCode:
    @pytest.mark.parametrize("n, m", [(2, 4), (1, 4), (4, 4), (3, 5), (1, 2), (4, 8)])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_lossless_and_size_by_formula(self, n, m, shape):
        weight = randn(shape) * nm_mask(randn(shape), n, m)
        code = NMCode.from_dense(weight, n, m)
        assert torch.equal(code.decode(), weight) and code.decode().dtype == torch.float32
        groups = shape[0] * math.ceil(math.prod(shape[1:]) / m)
        index_bytes = math.ceil(groups * n * math.ceil(math.log2(m)) / 8)
        assert stored_bits(code) == 32 * groups * n + 8 * index_bytes

    def test_groups_with_fewer_nonzeros(self):
        weight = torch.tensor([[0, 0, 0, 0, 0, 5.0, 0, 0, 1, 2, 0, 0]])
        assert torch.equal(NMCode.from_dense(weight).decode(), weight)
        assert torch.equal(NMCode.from_dense(torch.zeros(2, 8)).decode(), torch.zeros(2, 8))

    def test_half_precision_values_give_ratio_16_over_9(self):
        weight = randn((16, 64)).half().float()
        weight = weight * nm_mask(weight)
        code = NMCode.from_dense(weight, values=partial(DenseCode.from_dense, dtype=torch.float16))
        assert torch.equal(code.decode(), weight)
        assert stored_bits(code) == 16 * 64 * 9

    def test_nested_lossy_values(self):
        weight = randn((8, 16)) * nm_mask(randn((8, 16)))
        for make in (partial(UniformCode.from_dense, bits=8), partial(CodebookCode.from_dense, bits=4)):
            decoded = NMCode.from_dense(weight, values=make).decode()
            assert ((decoded != 0) <= (weight != 0)).all()
            dense = make(weight[weight != 0]).decode()
            torch.testing.assert_close(decoded[weight != 0], dense)

    def test_state_dict_copy_and_rebuild(self):
        weight = randn((4, 8)) * nm_mask(randn((4, 8)))
        code = NMCode.from_dense(weight)
        again = NMCode(code.positions, code.values, **{k: getattr(code, k) for k in NMCode.meta})
        assert torch.equal(again.decode(), weight) and torch.equal(copy.deepcopy(code).decode(), weight)
        assert set(code.state_dict()) == {"positions", "values.value"}

    def test_refusals(self):
        with pytest.raises(ValueError, match="a group has 3 nonzeros"):
            NMCode.from_dense(torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
        with pytest.raises(ValueError, match="m must be"):
            NMCode.from_dense(torch.ones(1, 4), 1, 1)
        code = NMCode.from_dense(torch.tensor([[0, 1.0, 1.0, 0]]))
        with pytest.raises(ValueError, match="must rise"):  # position 1 twice: 1 + 1 * 4
            NMCode(torch.tensor([5], dtype=torch.uint8), code.values, (1, 4), 2, 4)
        with pytest.raises(ValueError, match="must rise"):  # position 3 of a group of 3: 0 + 3 * 4
            NMCode(torch.tensor([12], dtype=torch.uint8), code.values, (1, 3), 2, 3)
        with pytest.raises(ValueError, match="values must have shape"):
            NMCode(code.positions, DenseCode.from_dense(torch.ones(3)), (1, 4), 2, 4)
        with pytest.raises(ValueError):
            NMCode(torch.zeros(2, dtype=torch.uint8), code.values, (1, 4), 2, 4)


class TestBlockCode:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("block", [(1, 1), (2, 3), (4, 4), (64, 64)])
    @pytest.mark.parametrize("sparsity", [0.0, 0.6, 1.0])
    def test_lossless_and_size_by_formula(self, shape, block, sparsity):
        weight = randn(shape) * block_mask(randn(shape), block, sparsity)
        code = BlockCode.from_dense(weight, block)
        assert torch.equal(code.decode(), weight)
        grid = math.ceil(shape[0] / block[0]) * math.ceil(math.prod(shape[1:]) / block[1])
        stored = grid - round(sparsity * grid)
        assert stored_bits(code) == 32 * stored * block[0] * block[1] + 8 * math.ceil(grid / 8)

    def test_nested_and_rebuilt(self):
        weight = randn((8, 12)) * block_mask(randn((8, 12)), (4, 4), 0.5)
        code = BlockCode.from_dense(weight, (4, 4), partial(UniformCode.from_dense, bits=8))
        assert ((code.decode() != 0) <= (weight != 0)).all()
        torch.testing.assert_close(code.decode(), weight, atol=weight.abs().max().item() / 127, rtol=0)
        meta = {k: getattr(code, k) for k in BlockCode.meta} | {"block": [4, 4]}  # JSON gives back a list
        assert torch.equal(BlockCode(code.mask, code.values, **meta).decode(), code.decode())

    def test_refusals(self):
        code = BlockCode.from_dense(torch.ones(4, 4), (2, 2))
        with pytest.raises(ValueError, match="values must have shape"):
            BlockCode(code.mask, DenseCode.from_dense(torch.ones(3)), (4, 4), (2, 2))
        with pytest.raises(ValueError):
            BlockCode(code.mask, code.values, (40, 40), (2, 2))
        with pytest.raises(ValueError, match="block width"):
            BlockCode.from_dense(torch.ones(4, 4), (2, 0))


@pytest.mark.parametrize(
    "make", [lambda w: NMCode.from_dense(w, 2, 4), lambda w: BlockCode.from_dense(w, (2, 4))]
)
def test_decoding_exports(make):
    class Layer(nn.Module):
        def __init__(self, code):
            super().__init__()
            self.stored = code

        def forward(self, x):
            return x @ self.stored.decode().T

    weight = randn((6, 10)) * nm_mask(randn((6, 10)))
    layer, x = Layer(make(weight)), torch.randn(3, 10)
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), x @ weight.T)


def test_encode_a_pruned_network_and_decompress_it():
    from compresslab.core.layers import decompress, encode

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5)).eval()
    x = torch.randn(2, 3, 5, 5)
    for pruned, make in [
        (prune_nm(model), NMCode.from_dense),
        (prune_blocks(model, 0.5), BlockCode.from_dense),
    ]:
        coded = encode(pruned, make)
        torch.testing.assert_close(coded(x), pruned(x))
        assert torch.equal(decompress(coded)[3].weight, pruned[3].weight)
