"""Heads and layers: scores against ablation and finite differences, removal against masks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.core.codes import UniformCode
from compresslab.core.layers import encode
from compresslab.core.store import load, save
from compresslab.sequence.gpt import GPT, KVCache
from compresslab.sequence.heads import block_influence, head_scores, lowest_heads, remove_heads, remove_layers


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = GPT(vocabulary=11, width=12, layers=3, context=16, heads=[3, 2, 4], head_size=4, hidden=[8, 10, 12]).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.double()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randint(11, (3, 7), generator=generator), torch.randint(11, (3, 7), generator=generator)) for _ in range(2)]


def masked(model, heads, factor=0.0):
    """The model with the columns of o that read some heads multiplied by a factor."""
    twin = GPT(**{key: value for key, value in model.spec.items() if key != "model"}).double().eval()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        for block, numbers in heads.items():
            size = twin.blocks[block].head_size
            for head in numbers:
                twin.blocks[block].o.weight[:, head * size : (head + 1) * size] *= factor
    return twin


def test_scores_are_the_derivatives_with_respect_to_a_factor(model, batches):
    scores, step = head_scores(model, batches), 1e-5
    for block, heads in enumerate(model.spec["heads"]):
        for head in range(heads):
            slopes = []
            for x, y in batches:
                up, down = (
                    F.cross_entropy(masked(model, {block: [head]}, 1 + sign * step)(x).transpose(1, 2), y, reduction="none").mean(1)
                    for sign in (1, -1)
                )
                slopes.append((up - down) / (2 * step))
            assert scores[block][head].item() == pytest.approx(torch.cat(slopes).abs().mean().item(), rel=1e-5)


def test_scores_do_not_depend_on_the_batches_and_leave_the_model_alone(model, batches):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    single = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(x))]
    for one, other in zip(head_scores(model, batches).values(), head_scores(model.requires_grad_(False), single).values()):
        assert torch.allclose(one, other) and not one.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_coded_model_can_be_scored(batches):
    model = GPT(vocabulary=11, width=8, layers=1, context=16)
    coded = encode(model, UniformCode.from_dense)
    assert head_scores(coded, batches)[0].shape == (4,)


def test_no_text_is_refused(model):
    with pytest.raises(ValueError, match="no text to score"):
        head_scores(model, [])
    with pytest.raises(ValueError, match="no text to measure"):
        block_influence(model, [])


def test_lowest_heads_keep_the_best_of_each_block():
    scores = {0: torch.tensor([0.1, 0.2, 0.3]), 1: torch.tensor([5.0, 4.0]), 2: torch.tensor([0.0])}
    assert lowest_heads(scores, 0) == {}
    assert lowest_heads(scores, 2) == {0: [0, 1]}
    assert lowest_heads(scores, 3) == {0: [0, 1], 1: [1]}
    with pytest.raises(ValueError, match="n must be a whole number from 0 to 3, got 4"):
        lowest_heads(scores, 4)


def test_removed_is_masked_exactly(model, batches):
    heads = {0: [0, 2], 2: (1, 3)}
    small = remove_heads(model, heads)
    assert small.spec["heads"] == [1, 2, 2] and model.spec["heads"] == [3, 2, 4]
    assert (small.blocks[0].q.weight.shape, small.blocks[2].o.weight.shape) == ((4, 12), (12, 8))
    x = batches[0][0]
    assert torch.allclose(small(x), masked(model, heads)(x), atol=1e-12)
    assert not torch.allclose(small(x), model(x), atol=1e-3)


def test_a_smaller_model_writes_with_a_cache_and_survives_a_file(model, batches, tmp_path):
    small = remove_layers(remove_heads(model.float(), {1: [0]}), [0])
    assert (small.spec["layers"], small.spec["heads"], small.spec["hidden"]) == (2, [1, 4], [10, 12])
    x, cache = batches[0][0], KVCache()
    parts = torch.cat([small(x[:, :4], cache), small(x[:, 4:], cache)], 1)
    assert torch.allclose(parts, small(x), atol=1e-5) and set(cache.keys) == {0, 1}
    save(small, tmp_path / "small.safetensors")
    assert torch.equal(load(tmp_path / "small.safetensors")(x), small(x))


def test_a_layer_removed_is_a_layer_that_adds_nothing(model, batches):
    twin = masked(model, {1: [0, 1]})
    with torch.no_grad():
        twin.blocks[1].down.weight.zero_()
    x = batches[0][0]
    assert torch.allclose(remove_layers(model, [1])(x), twin(x), atol=1e-12)


def test_influence_is_one_minus_the_cosine(model, batches):
    x = batches[0][0]
    stream = [model.tokens(x) + model.positions(torch.arange(7))]
    for block in model.blocks:
        stream.append(block(stream[-1]))
    wanted = [1 - ((a * b).sum(2) / (a.norm(dim=2) * b.norm(dim=2))).mean() for a, b in zip(stream, stream[1:])]
    assert torch.allclose(block_influence(model, [x]), torch.stack(wanted), atol=1e-9)
    with torch.no_grad():
        model.blocks[1].o.weight.zero_()
        model.blocks[1].down.weight.zero_()
    assert block_influence(model, batches)[1].item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("heads, words", [
    ({3: [0]}, "the number of a block must be a whole number from 0 to 2, got 3"),
    ({1: [2]}, "the number of a head must be a whole number from 0 to 1, got 2 in layer 'blocks.1'"),
    ({1: [0, 1]}, "at least one of the 2 heads must stay in layer 'blocks.1'"),
])  # fmt: skip
def test_heads_that_cannot_go(model, heads, words):
    with pytest.raises(ValueError, match=words):
        remove_heads(model, heads)


def test_what_else_cannot_go(model):
    with pytest.raises(ValueError, match="at least one of the 3 blocks must stay"):
        remove_layers(model, [0, 1, 2])
    with pytest.raises(ValueError, match="from 0 to 2, got -1"):
        remove_layers(model, [-1])
    with pytest.raises(TypeError, match="decompress first in layer 'blocks.0.q'"):
        remove_heads(encode(model.float(), UniformCode.from_dense), {0: [0]})
