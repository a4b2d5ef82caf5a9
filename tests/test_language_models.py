"""The text and the two language models of the course: windows, causality, caches, cells, bits per character, writing."""

import math
import random
from functools import partial
from itertools import combinations

import pytest
import torch
from torch import nn

from compresslab import models
from compresslab.core.macs import count_macs
from compresslab.core.store import load, save
from compresslab.sequence import text as text_module
from compresslab.sequence.gpt import GPT, CausalAttention, KVCache, block_layers
from compresslab.sequence.language import (
    bits_per_character,
    draw,
    generate,
    relative_bits,
    token_loss,
    train_language,
    window_bits,
)
from compresslab.sequence.lstm import CharLSTM, lstm_cell
from compresslab.sequence.text import (
    UNKNOWN,
    VOCABULARY,
    TextSplit,
    decode_text,
    encode_text,
    load_text,
)

projected_kernel = pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch: a slower kernel runs


def tokens(*shape, vocabulary=7, seed=0):
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def network(kind="gpt", **options):
    """A small untrained network with weights large enough that all it has read matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gpt":
            model = GPT(**{"vocabulary": 7, "width": 12, "layers": 2, "context": 24, "heads": 3, "head_size": 4} | options)
        else:
            model = CharLSTM(**{"vocabulary": 7, "embedding": 5, "hidden": 8} | options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.5)
    return model.eval()


KINDS = [
    partial(network, "gpt"),
    partial(network, "gpt", heads=[1, 3], hidden=[9, 4], tied=True),
    partial(network, "lstm", layers=2),
    partial(network, "lstm", projection=3),
]
both = pytest.mark.parametrize("make", KINDS, ids=["gpt", "gpt, tied, layers that differ", "lstm", "projected lstm"])


# -- the text ----------------------------------------------------------------------------------------

def test_text_and_tokens_are_one_to_one():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 97
    assert decode_text(torch.arange(97)) == VOCABULARY and encode_text(VOCABULARY).tolist() == list(range(97))
    assert encode_text("é\t").tolist() == [UNKNOWN, UNKNOWN]
    assert decode_text(encode_text("“a” – b…")) == '"a" - b...'
    assert encode_text("").shape == (0,) and decode_text(torch.zeros(0, dtype=torch.int64)) == ""
    for bad in (-1, 97):
        with pytest.raises(ValueError, match=f"numbers from 0 to 96, got {bad}"):
            decode_text(torch.tensor([1, bad]))


def paragraphs(split):
    return set(decode_text(split.tokens).split("\n\n"))


def test_the_parts_share_no_paragraph():
    text = load_text()
    for one, other in combinations((text.train, text.validation, text.test), 2):
        common = paragraphs(one) & paragraphs(other)
        assert not common, common
    sizes = [len(split.tokens) for split in (text.train, text.validation, text.test)]
    assert 0.8 < sizes[0] / sum(sizes) < 0.9 and 0.03 < sizes[1] / sum(sizes) < 0.08
    assert all(split.tokens.max() < 97 and split.context == 128 for split in (text.train, text.validation, text.test))


def test_a_paragraph_is_in_the_same_part_whatever_the_order(monkeypatch):
    parts = {name: paragraphs(split) for name, split in vars(load_text()).items()}
    topics = list(text_module.topics.items())
    random.Random(0).shuffle(topics)
    shuffled = {f"{number:04}": body for number, (_, body) in enumerate(topics[: len(topics) // 2])}
    monkeypatch.setattr(text_module, "topics", shuffled)
    again = text_module._parts.__wrapped__()
    assert {name: decode_text(encode_text(body)) != "" for name, body in again.items()} == dict.fromkeys(parts, True)
    for name, body in again.items():
        assert set(decode_text(encode_text(body)).split("\n\n")) <= parts[name]


def test_windows_go_through_the_text_once():
    split = TextSplit(tokens(50), context=6)
    assert len(split) == 8 and "8 windows of 6" in repr(split)
    x, y = (torch.cat(part) for part in zip(*split.batches(3)))
    assert torch.equal(x.flatten(), split.tokens[:48]) and torch.equal(y.flatten(), split.tokens[1:49])
    assert torch.equal(torch.cat(list(split.batches(3, labels=False))), x)
    seen = []
    for seed in range(3):
        shuffled = list(split.batches(3, shuffle=True, generator=torch.Generator().manual_seed(seed)))
        xs, ys = torch.cat([x for x, _ in shuffled]), torch.cat([y for _, y in shuffled])
        places = {tuple(split.tokens[i : i + 6].tolist()): i for i in range(45)}
        starts = [places[tuple(row.tolist())] for row in xs]
        assert {start % 6 for start in starts} == {starts[0] % 6} and len(set(starts)) == 8
        assert all(torch.equal(row, split.tokens[start + 1 : start + 7]) for start, row in zip(starts, ys))
        seen.append(starts)
    assert seen[0] != seen[1] or seen[1] != seen[2]


def test_pieces_of_a_split():
    split = TextSplit(tokens(100, vocabulary=90), context=6)
    assert torch.equal(split.take(3).tokens, split.tokens[:19]) and len(split.take(16)) == 16
    drawn = {seed: split.drawn(3, seed=seed).tokens for seed in (0, 0, 1, 2)}
    assert torch.equal(drawn[0], split.drawn(3).tokens) and not torch.equal(drawn[0], drawn[1])
    for piece in drawn.values():
        assert any(torch.equal(piece, window) for window in split.tokens.unfold(0, 19, 1))
    for bad in (0, 17):
        for call in (split.take, split.drawn):
            with pytest.raises(ValueError, match="n must be"):
                call(bad)


def test_documented_errors_of_the_split():
    with pytest.raises(TypeError, match="int64, got torch.float32"):
        TextSplit(torch.zeros(10), 2)
    for bad in (torch.zeros(6, dtype=torch.int64), torch.zeros(9, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="at least 7"):
            TextSplit(bad, 6)
    with pytest.raises(ValueError, match="context"):
        TextSplit(tokens(9), 0)
    with pytest.raises(ValueError, match="batch_size"):
        next(TextSplit(tokens(9), 2).batches(0))


# -- the models --------------------------------------------------------------------------------------

@projected_kernel
@both
def test_later_tokens_do_not_change_earlier_logits(make):
    model, x = make(), tokens(2, 20)
    changed = x.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 7
    with torch.no_grad():
        before, after = model(x), model(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-6)
    assert not torch.allclose(before[:, 12], after[:, 12], atol=1e-3)
    early = x.clone()
    early[:, 0] = (early[:, 0] + 1) % 7
    with torch.no_grad():
        assert not torch.allclose(model(early)[:, 3], before[:, 3], atol=1e-4)  # what was read matters


@projected_kernel
@both
@pytest.mark.parametrize("sizes", [[20], [1] * 20, [7, 1, 1, 8, 3]])
def test_reading_in_steps_is_reading_at_once(make, sizes):
    model, x, memory, parts = make(), tokens(2, 20), None, []
    with torch.no_grad():
        for part in x.split(sizes, dim=1):
            logits, memory = model.step(part, memory)
            parts.append(logits)
        assert torch.allclose(torch.cat(parts, 1), model(x), atol=1e-5)


def test_a_cache_is_cut_back():
    model, x, memory = network(), tokens(2, 20), KVCache()
    assert memory.length == 0 and memory.count_bytes() == 0
    with torch.no_grad():
        model.step(x[:, :15], memory)
        assert memory.length == 15 and memory.count_bytes() == 2 * 2 * 2 * 12 * 15 * 4
        memory.cut(9)
        assert torch.allclose(model.step(x[:, 9:], memory)[0], model(x)[:, 9:], atol=1e-5)
    with pytest.raises(ValueError, match="length must be"):
        memory.cut(21)


def test_attention_is_the_formula():
    q, k, v = (torch.randn(2, 3, length, 4, generator=torch.Generator().manual_seed(length)) for length in (5, 9, 10))
    v = v[:, :, :9]
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(torch.arange(9) > torch.arange(4, 9)[:, None], -math.inf)
    assert torch.allclose(CausalAttention()(q, k, v), scores.softmax(-1) @ v, atol=1e-6)
    macs = count_macs(network(), tokens(1, 6)).by_layer["blocks.0.attention"]
    assert macs == 2 * 6 * 6 * 12


def test_the_context_has_an_end():
    model, memory = network(), None
    with pytest.raises(ValueError, match="the context is 24 tokens, got 25"):
        model(tokens(1, 25))
    _, memory = model.step(tokens(1, 20))
    with pytest.raises(ValueError, match="the context is 24 tokens, got 25"):
        model.step(tokens(1, 5), memory)


@projected_kernel
@both
def test_files_and_specs_keep_a_model(make, tmp_path):
    model = make()
    again = models.from_spec(model.spec).eval()
    again.load_state_dict(model.state_dict())
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(again(tokens(1, 9)), model(tokens(1, 9))) and torch.equal(loaded(tokens(1, 9)), model(tokens(1, 9)))
    if model.spec.get("tied"):
        assert loaded.head.weight is loaded.tokens.weight


def test_every_matrix_of_a_block_has_a_name():
    model = network(heads=[1, 3], hidden=[9, 4])
    shapes = [tuple(model.get_submodule(name).weight.shape) for name in block_layers(model)]
    assert shapes == [(4, 12)] * 3 + [(12, 4), (9, 12), (12, 9)] + [(12, 12)] * 4 + [(4, 12), (12, 4)]
    assert block_layers(model, kinds=("v",)) == ["blocks.0.v", "blocks.1.v"]
    assert all(model.get_submodule(name).bias is None for name in block_layers(model))


@projected_kernel
@pytest.mark.parametrize("projection", [0, 3])
def test_the_cell_is_torchs_lstm(projection):
    lstm = nn.LSTM(5, 8, proj_size=projection, batch_first=True)
    x = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    h, c, out = torch.zeros(2, projection or 8), torch.zeros(2, 8), []
    for column in x.unbind(1):
        h, c = lstm_cell(column, (h, c), lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0,
                         lstm.weight_hr_l0 if projection else None)  # fmt: skip
        out.append(h)
    wanted, (last, memory) = lstm(x)
    assert torch.allclose(torch.stack(out, 1), wanted, atol=1e-6)
    assert torch.allclose(h, last[0], atol=1e-6) and torch.allclose(c, memory[0], atol=1e-6)


def test_documented_errors_of_the_models():
    for bad in ({"width": 0}, {"layers": 0}, {"context": 0}, {"vocabulary": 0}, {"heads": [3, 0]}, {"hidden": 0}, {"head_size": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            network(**bad)
    with pytest.raises(ValueError, match="heads needs one number per layer, 2 of them, got 1"):
        network(heads=[3])
    with pytest.raises(ValueError, match="blocks.1"):
        network(hidden=[3, 0])
    for bad in ({"embedding": 0}, {"hidden": 0}, {"layers": 0}, {"vocabulary": 0}, {"projection": 8}, {"projection": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            network("lstm", **bad)


# -- measuring, training, writing --------------------------------------------------------------------

@projected_kernel
@both
def test_bits_are_minus_log2_of_what_came(make):
    model, split = make(), TextSplit(tokens(70), context=9)
    bits = window_bits(model, split, batch_size=3)
    for number, measured in enumerate(bits.tolist()):
        window = split.tokens[9 * number : 9 * number + 10]
        with torch.no_grad():
            p = [model(window[None, :i])[0, -1].double().softmax(0)[window[i]].item() for i in range(1, 10)]
        assert measured == pytest.approx(sum(-math.log2(x) for x in p) / 9, rel=1e-4)
    assert bits.shape == (7,) and bits_per_character(model, split) == pytest.approx(bits.mean().item())
    x, y = next(split.batches(7))
    assert token_loss(model, x, y).item() == pytest.approx(bits.mean().item() * math.log(2), rel=1e-5)


def test_relative_bits_are_paired():
    g = torch.Generator().manual_seed(0)
    before = 1 + 5 * torch.rand(50, generator=g).double()  # windows differ much more than models
    after = before + 0.02 + 0.001 * torch.randn(50, generator=g).double()
    value, low, high = relative_bits(before, after)
    assert value == pytest.approx(((after - before).mean() / before.mean()).item()) and low < value < high
    assert high - low < 0.001
    assert relative_bits(before, before) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="same windows"):
        relative_bits(before, after[:-1])


def test_training_learns_and_leaves_the_model_alone():
    split, model = TextSplit(torch.arange(241) % 5, context=12), CharLSTM(7, embedding=8, hidden=16)  # 0 1 2 3 4 0 1 ...
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = train_language(model, split, epochs=25, batch_size=4, lr=0.02, progress=False)
    assert not trained.training and model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert bits_per_character(trained, split) < 0.3 < bits_per_character(model, split)
    assert generate(trained, torch.tensor([0, 1, 2]), 6, temperature=0).tolist() == [3, 4, 0, 1, 2, 3]
    again = train_language(model, split, epochs=25, batch_size=4, lr=0.02, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters()))
    with pytest.raises(ValueError, match="epochs"):
        train_language(model, split, epochs=-1)


@projected_kernel
@both
def test_greedy_writing_is_the_most_likely_token_of_all_that_was_read(make):
    model, text = make(), tokens(5).tolist()
    written = generate(model, torch.tensor(text), 19, temperature=0)
    with torch.no_grad():
        for token in written.tolist():
            assert token == model(torch.tensor([text]))[0, -1].argmax()
            text.append(token)
    assert generate(model, tokens(5), 0).shape == (0,)


def test_writing_past_the_context_reads_the_last_half_again():
    model, text = network(context=8), tokens(3).tolist()
    written, start = generate(model, torch.tensor(text), 20, temperature=0), 0
    with torch.no_grad():
        for token in written.tolist():
            if len(text) - start > 8:
                start = len(text) - 4
            assert token == model(torch.tensor([text[start:]]))[0, -1].argmax()
            text.append(token)
    assert generate(network(context=1), tokens(3), 4).shape == (4,)
    long = tokens(30)
    assert torch.equal(generate(model, long, 1, temperature=0), generate(model, long[-8:], 1, temperature=0))


def test_draws_follow_the_probabilities():
    logits, g = torch.tensor([0.0, 1.0, 2.0]), torch.Generator().manual_seed(0)
    for temperature in (1.0, 0.5):
        counts = torch.bincount(torch.stack([draw(logits, temperature, g) for _ in range(2000)]), minlength=3)
        assert torch.allclose(counts / 2000, (logits / temperature).softmax(0), atol=0.04)
    assert draw(logits, 0, g) == 2
    model = network()
    one, same = (generate(model, tokens(3), 15, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    other = generate(model, tokens(3), 15, generator=torch.Generator().manual_seed(6))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(generate(model, tokens(3), 15), generate(model, tokens(3), 15))


def test_documented_errors_of_writing():
    model = network()
    for bad in ({"prompt": tokens(0)}, {"prompt": tokens(1, 3)}, {"n": -1}, {"temperature": -0.5}, {"temperature": math.nan}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            generate(**({"model": model, "prompt": tokens(3), "n": 2} | bad))
