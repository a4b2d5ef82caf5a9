"""The cache in few bits: its error bound, its bytes, cutting it back, and one head for a group."""

from functools import partial

import pytest
import torch

from compresslab.core.bits import packed_size
from compresslab.sequence.cache import PackedGroup, QuantizedKVCache, cached_window_bits
from compresslab.sequence.gpt import GPT, KVCache
from compresslab.sequence.grouped_heads import GroupedKVCache, merge_kv_heads
from compresslab.sequence.language import window_bits
from compresslab.sequence.text import TextSplit


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gpt(**options):
    """A small GPT with weights large enough that its tokens attend to each other."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT(vocabulary=7, width=16, layers=2, context=32, heads=4, **options).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(std=0.4)
    return model


TEXT = TextSplit(torch.randint(7, (129,), generator=torch.Generator().manual_seed(0)), context=32)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_no_number_moves_by_more_than_half_a_step(bits, dim):
    x = 3 * randn(2, 3, 8, 5) + torch.linspace(-50, 50, 5)
    packed = PackedGroup.from_dense(x, bits, dim)
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    step = (high - low) / (2**bits - 1)
    assert ((packed.decode() - x).abs() <= 1.01 * step / 2 + 2**-11 * low.abs() + 1e-6).all()
    levels = packed.decode().movedim(dim, -1).reshape(-1, x.shape[dim])
    assert max(len(row.unique()) for row in levels) <= 2**bits
    assert packed.count_bytes() == packed_size(x.numel(), bits) + 4 * x.numel() // x.shape[dim]


def test_numbers_on_the_grid_stay():
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0], [-4.0, 8.0, 4.0, 0.0], [7.0, 7.0, 7.0, 7.0]])
    assert torch.equal(PackedGroup.from_dense(x, 2, 1).decode(), x)
    with pytest.raises(ValueError, match="bits"):
        PackedGroup.from_dense(x, 9, 1)
    for bad in (torch.nan, torch.inf, 1e6):
        with pytest.raises(ValueError, match="finite and at most 65,504"):
            PackedGroup.from_dense(torch.tensor([[1.0, bad]]), 2, 1)


def test_keys_share_a_grid_along_the_tokens_and_values_along_the_channels():
    loud = randn(1, 2, 8, 4) * torch.tensor([1.0, 1.0, 100.0, 1.0])  # one loud channel
    error = {}
    for keys in ("channel", "token"):
        cache = QuantizedKVCache(3, group=8, keys=keys)
        cache.append(0, loud, loud)
        held = cache.append(0, loud[:, :, :1], loud[:, :, :1])
        error[keys] = [(part[:, :, :8] - loud)[..., :2].abs().max().item() for part in held]
    assert error["channel"][0] < 0.4 < 0.8 < error["token"][0]  # a grid per token gives quiet channels no level
    assert error["channel"][1] == error["token"][1] > 0.8  # values: always per token


@pytest.mark.parametrize("make", [KVCache, partial(QuantizedKVCache, None, group=4)])
def test_without_rounding_the_cache_changes_nothing(make):
    model, tokens = gpt(), TEXT.tokens[None, :20]
    memory = make()
    parts = [model.step(part, memory)[0] for part in tokens.split([5, 1, 7, 1, 6], dim=1)]
    with torch.no_grad():
        assert torch.allclose(torch.cat(parts, 1), model(tokens), atol=1e-5)
    assert memory.length == 20 and memory.count_bytes() == 2 * 2 * 16 * 20 * 4
    assert torch.allclose(cached_window_bits(model, TEXT, make, chunk=5), window_bits(model, TEXT), atol=1e-5)


@pytest.mark.parametrize("window", [0, 3])
def test_parts_of_a_group_give_what_single_tokens_give(window):
    model, tokens = gpt(), TEXT.tokens[None, :32]
    out = {}
    for chunk in (1, 2, 4, 8):
        memory = QuantizedKVCache(2, group=4, window=window)
        out[chunk] = torch.cat([model.step(part, memory)[0] for part in tokens.split(chunk, dim=1)], 1)
        assert memory.length == 32 and memory.rounded == (32 if window == 0 else 28)
    if window == 0:
        assert torch.allclose(out[1], out[2], atol=1e-5) and torch.allclose(out[1], out[4], atol=1e-5)
    assert not torch.allclose(out[4], out[8], atol=1e-5)  # eight at once see each other as they are
    with torch.no_grad():
        assert torch.allclose(out[1][:, :4], model(tokens)[:, :4], atol=1e-5)
        assert not torch.allclose(out[1], model(tokens), atol=1e-3)


def test_more_bits_are_closer():
    model = gpt()
    before = window_bits(model, TEXT)
    error = [
        (cached_window_bits(model, TEXT, partial(QuantizedKVCache, bits, group=4), chunk=4) - before).abs().mean()
        for bits in (1, 2, 4, 8)
    ]
    assert sorted(error, reverse=True) == error and error[-1] < 0.05 < error[0]


def test_bytes_are_those_of_the_packed_arrays():
    cache = QuantizedKVCache(3, group=8)
    cache.append(0, randn(2, 4, 21, 6), randn(2, 4, 21, 6))
    held = 2 * packed_size(2 * 4 * 8 * 6, 3) + 4 * (2 * 4 * 6) + 4 * (2 * 4 * 8)  # codes; grids of keys; of values
    assert cache.rounded == 16 and cache.count_bytes() == 2 * held + 2 * (2 * 4 * 5 * 6) * 4
    assert cache.keys[0].untyped_storage().nbytes() == 2 * 4 * 5 * 6 * 4  # what was packed is not kept alive


def test_cut_forgets_and_goes_on():
    model, tokens = gpt(), TEXT.tokens[None, :24]
    with torch.no_grad():
        for length in (0, 3, 8, 11, 12, 17):
            memory = QuantizedKVCache(8, group=4, window=20)  # nothing is rounded: exact
            model.step(tokens[:, :17], memory)
            memory.cut(length)
            assert memory.length == length and memory.keys[0].shape[2] == length
            assert torch.allclose(model.step(tokens[:, length:], memory)[0], model(tokens)[:, length:], atol=1e-5)
            memory = QuantizedKVCache(8, group=4)
            model.step(tokens[:, :17], memory)
            held = memory._decode(0)[0]
            memory.cut(length)
            assert memory.length == length and memory.rounded == length // 4 * 4
            assert torch.equal(memory._decode(0)[0] if length else held[:, :, :0], held[:, :, :length])
            assert (model.step(tokens[:, length:], memory)[0] - model(tokens)[:, length:]).abs().max() < 0.5


def test_documented_errors_of_the_cache():
    with pytest.raises(ValueError, match='keys must be "channel" or "token"'):
        QuantizedKVCache(4, keys="head")
    with pytest.raises(ValueError, match="bits"):
        QuantizedKVCache(0)
    with pytest.raises(TypeError, match="bits"):
        QuantizedKVCache(4.0)
    with pytest.raises(ValueError, match="group"):
        QuantizedKVCache(4, group=0)
    with pytest.raises(ValueError, match="window"):
        QuantizedKVCache(4, window=-1)
    cache = QuantizedKVCache(4)
    cache.append(1, randn(2, 1, 3, 4), randn(2, 1, 3, 4))
    with pytest.raises(ValueError, match="one batch.*blocks.1"):
        cache.append(1, randn(1, 1, 3, 4), randn(1, 1, 3, 4))
    with pytest.raises(ValueError, match="length"):
        cache.cut(4)
    with pytest.raises(ValueError, match="chunk"):
        cached_window_bits(gpt(), TEXT, chunk=0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_cache_holds_one_head_of_each_group(groups):
    model, tokens = gpt(), TEXT.tokens[None, :12]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merged, memory = merge_kv_heads(model, groups), GroupedKVCache(groups)
    parts = [merged.step(part, memory)[0] for part in tokens.split([6, 1, 5], dim=1)]
    with torch.no_grad():
        assert torch.allclose(torch.cat(parts, 1), merged(tokens), atol=1e-5)
        assert torch.equal(merged(tokens), model(tokens)) == (groups == 4)
    assert memory.count_bytes() == 2 * 2 * groups * 4 * 12 * 4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    heads = model.blocks[1].v.weight.view(groups, 4 // groups, 4, 16)  # the mean is the matrix of least squared error
    assert torch.allclose(merged.blocks[1].v.weight.view_as(heads), heads.mean(1, keepdim=True).expand_as(heads))
    assert torch.linalg.matrix_rank(merged.blocks[1].k.weight) <= 4 * groups


def test_documented_errors_of_grouped_heads():
    with pytest.raises(ValueError, match="groups must divide the 4 heads, got 3 in layer 'blocks.0'"):
        merge_kv_heads(gpt(), 3)
    with pytest.raises(ValueError, match="groups must divide the 4 heads, got 3"):
        GroupedKVCache(3).append(0, randn(1, 4, 1, 2), randn(1, 4, 1, 2))
    with pytest.raises(ValueError, match="not equal in layer 'blocks.0'"):
        gpt().step(TEXT.tokens[None, :3], GroupedKVCache(2))
    for call in (partial(merge_kv_heads, gpt()), GroupedKVCache):
        with pytest.raises(ValueError, match="groups must be"):
            call(0)
        with pytest.raises(TypeError, match="groups must be"):
            call(2.0)
