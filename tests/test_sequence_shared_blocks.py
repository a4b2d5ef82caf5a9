"""Blocks that share their matrices: one object, one place in the file, a cache for each use."""

import pytest
import torch

from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode
from compresslab.core.macs import count_macs
from compresslab.core.measure import file_size
from compresslab.core.store import load, save
from compresslab.sequence.gpt import GPT, KVCache
from compresslab.sequence.language import train_language
from compresslab.sequence.shared_blocks import PARTS, block_groups, share_blocks
from compresslab.sequence.text import TextSplit
from compresslab.sharing import tie_embedding, unique_parameters

TOKENS = torch.tensor([[1, 4, 2, 2, 0, 7]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = GPT(vocabulary=11, width=8, layers=4, context=16).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_every_part_of_a_block_is_shared():
    assert set(PARTS) == {name for name, part in GPT(width=8, layers=1).blocks[0].named_children() if any(True for _ in part.parameters())}


@pytest.mark.parametrize("pattern, unique", [(None, 1), ((0, 0, 1, 1), 2), ((5, 3, 5, 3), 2), ((0, 1, 2, 3), 4)])
def test_groups_are_one_object(model, pattern, unique):
    shared, block = share_blocks(model, pattern), sum(p.numel() for p in model.blocks[0].parameters())
    assert unique_parameters(model) - unique_parameters(shared) == (4 - unique) * block
    groups = pattern or (0, 0, 0, 0)
    assert block_groups(shared) == [list(dict.fromkeys(groups)).index(group) for group in groups]
    for i, one in enumerate(shared.blocks):
        for j, other in enumerate(shared.blocks):
            assert all((getattr(one, part) is getattr(other, part)) == (groups[i] == groups[j]) for part in PARTS)


def test_the_starts(model):
    for part in PARTS:
        weights = [getattr(block, part).weight for block in model.blocks]
        mean, first = share_blocks(model, (0, 1, 0, 0)), share_blocks(model, (0, 1, 0, 0), start="first")
        assert torch.allclose(getattr(mean.blocks[3], part).weight, (weights[0] + weights[2] + weights[3]) / 3)
        assert torch.equal(getattr(mean.blocks[1], part).weight, weights[1])
        assert torch.equal(getattr(first.blocks[3], part).weight, weights[0])
    assert torch.equal(share_blocks(model, range(4))(TOKENS), model(TOKENS))


def test_each_use_has_a_cache_of_its_own(model):
    shared, cache = share_blocks(model), KVCache()
    parts = torch.cat([shared(TOKENS[:, :2], cache), shared(TOKENS[:, 2:], cache)], 1)
    assert torch.allclose(parts, shared(TOKENS), atol=1e-5)
    assert len(cache.keys) == 4 and not torch.allclose(cache.keys[0], cache.keys[1])


def test_a_file_holds_what_is_shared_once_and_gives_it_back_shared(model, tmp_path):
    shared = tie_embedding(share_blocks(model, (0, 0, 1, 1)), "tokens", "head")
    for name, each in (("plain", shared), ("coded", encode(shared, UniformCode.from_dense, skip=["tokens", "head"]))):
        size = save(each, tmp_path / name)
        again = load(tmp_path / name)
        assert torch.equal(again(TOKENS), each(TOKENS)) and block_groups(again) == [0, 0, 1, 1]
        assert size == file_size(each) and again.head.weight is again.tokens.weight
    block = 4 * sum(p.numel() for p in model.blocks[0].parameters())
    assert file_size(model) - file_size(share_blocks(model)) > 2.5 * block
    assert count_macs(share_blocks(model), TOKENS).total == count_macs(model, TOKENS).total


def test_what_is_shared_stays_shared_in_training(model):
    split = TextSplit(torch.arange(200) % 7, context=16)
    trained = train_language(share_blocks(model), split, epochs=1, progress=False)
    assert block_groups(trained) == [0, 0, 0, 0]
    assert not torch.equal(trained.blocks[0].q.weight, share_blocks(model).blocks[0].q.weight)


@pytest.mark.parametrize("pattern, start, words", [
    ((0, 0, 0), "mean", "one number for each of the 4 blocks, got 3"),
    ((0, -1, 0, 0), "mean", "the number of a group must be a whole number of at least 0, got -1"),
    (None, "last", "start must be one of .'mean', 'first'., got 'last'"),
])  # fmt: skip
def test_refusals(model, pattern, start, words):
    with pytest.raises(ValueError, match=words):
        share_blocks(model, pattern, start=start)


def test_blocks_of_different_shapes_cannot_share():
    with pytest.raises(ValueError, match="it cannot be 'blocks.0.q'.*in layer 'blocks.1.q'"):
        share_blocks(GPT(width=8, layers=2, heads=[4, 2]))
