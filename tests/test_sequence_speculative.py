"""Speculative decoding: what comes out is distributed as the target alone would write, in exact sums and in samples."""

from collections import Counter
from fractions import Fraction
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from compresslab.sequence.cache import QuantizedKVCache
from compresslab.sequence.gpt import GPT
from compresslab.sequence.language import generate
from compresslab.sequence.lstm import CharLSTM
from compresslab.sequence.speculative import (
    accept_or_resample,
    acceptance_rate,
    generate_speculative,
    speculative_speedup,
    tokens_per_call,
)

PROMPT = torch.tensor([1, 0, 2])


class Bigrams(nn.Module):
    """The next token depends on the last one alone: a table of logits (V, V)."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", logits)

    def step(self, tokens, memory=None):
        return self.logits[tokens], memory


def bigrams(seed, vocabulary=3, spread=1.0):
    return Bigrams(spread * torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed)))


def network(kind, seed=0, vocabulary=5, context=24):
    """An untrained GPT or LSTM whose next token does depend on all that it has read."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "gpt":
            model = GPT(vocabulary=vocabulary, width=8, layers=1, context=context, heads=2, head_size=4, hidden=8)
        else:
            model = CharLSTM(vocabulary=vocabulary, embedding=4, hidden=8, layers=2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.8)
    return model.eval()


weights = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


@settings(max_examples=60, deadline=None)
@given(p=weights, q=weights)
def test_the_rule_gives_p_exactly(p, q):
    """Sum over every token, and over every interval of u and v on which the answer is constant."""
    P, Q = ([Fraction(x, sum(row)) for x in row] for row in (p, q))
    left = [max(a - b, Fraction(0)) for a, b in zip(P, Q)]
    out = [Fraction(0)] * 4
    tensors = [torch.tensor([float(x) for x in row], dtype=torch.float64) for row in (P, Q)]
    edges = [Fraction(0)]
    for x in left:
        edges.append(edges[-1] + (x / sum(left) if sum(left) else 0))
    for token in range(4):
        if not Q[token]:
            continue
        limit = min(Fraction(1), P[token] / Q[token])
        for low, high in ((Fraction(0), limit), (limit, Fraction(1))):
            for start, end in zip(edges, edges[1:]) if low == limit and limit < 1 else [(Fraction(0), Fraction(1))]:
                if low < high and start < end:
                    u, v = float((low + high) / 2), float((start + end) / 2)
                    new, accepted = accept_or_resample(*tensors, token, u, v)
                    assert accepted == (low < limit) and (not accepted or new == token)
                    out[new] += Q[token] * (high - low) * (end - start)
    assert out == P


def test_acceptance_is_one_minus_total_variation():
    g = torch.Generator().manual_seed(0)
    p, q = (torch.randn(6, 9, generator=g).softmax(-1) for _ in range(2))
    assert torch.allclose(acceptance_rate(p, q), 1 - (p - q).abs().sum(-1) / 2)
    counts = [accept_or_resample(p[0], q[0], token, u / 200, 0.5)[1] * q[0, token] / 200
              for token, u in product(range(9), range(200))]  # fmt: skip
    assert sum(counts).item() == pytest.approx(acceptance_rate(p, q)[0].item(), abs=0.01)


def sequences(model, n, vocabulary):
    """The probability of every continuation of PROMPT by n tokens, by brute force."""
    table = {}
    with torch.no_grad():
        for tail in product(range(vocabulary), repeat=n):
            text = torch.cat([PROMPT, torch.tensor(tail)])
            p = model.step(text[None])[0][0].double().softmax(-1)
            table[tail] = torch.stack([p[len(PROMPT) - 1 + i, token] for i, token in enumerate(tail)]).prod().item()
    return table


@pytest.mark.parametrize(
    "target, draft, runs",
    [(bigrams(0), bigrams(1), 1000), (network("gpt", 0, 3), network("lstm", 1, 3), 250), (network("lstm", 0, 3), network("gpt", 1, 3), 250)],
    ids=["bigrams", "lstm writes for gpt", "gpt writes for lstm"],
)  # fmt: skip
def test_texts_have_the_distribution_of_the_target(target, draft, runs):
    wanted, other = sequences(target, 3, 3), sequences(draft, 3, 3)
    g = torch.Generator().manual_seed(0)
    seen = Counter(
        tuple(generate_speculative(target, draft, PROMPT, 3, k=2, generator=g).tokens.tolist()) for _ in range(runs)
    )

    def pvalue(table):
        frequent = [tail for tail in table if runs * table[tail] >= 5]
        counts = [seen[tail] for tail in frequent]
        expected = [runs * table[tail] for tail in frequent]
        return chisquare([*counts, runs - sum(counts)], [*expected, runs - sum(expected)]).pvalue

    assert pvalue(wanted) > 1e-3 and pvalue(other) < 1e-6


@pytest.mark.parametrize("k", [0, 1, 3, 7])
@pytest.mark.parametrize("target, draft", [("gpt", "gpt"), ("gpt", "lstm"), ("lstm", "gpt"), ("lstm", "lstm")])
def test_greedy_text_is_the_targets(k, target, draft):
    """Longer than the contexts, which differ, so that windows slide."""
    target, draft = network(target, 0, context=16), network(draft, 1, context=11)
    wanted = generate(target, PROMPT, 40, temperature=0)
    result = generate_speculative(target, draft, PROMPT, 40, k=k, temperature=0)
    assert torch.equal(result.tokens, wanted)
    assert len(result.drafted) == 40 and int(result.drafted.sum()) == result.accepted <= result.tested
    long = torch.arange(40) % 5
    wanted = generate(target, long, 9, temperature=0)
    assert torch.equal(generate_speculative(target, draft, long, 9, k=k, temperature=0).tokens, wanted)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_a_perfect_draft_is_always_accepted(kind):
    model = network(kind, context=64)
    result = generate_speculative(model, model, PROMPT, 30, k=4)
    assert result.acceptance == 1.0 and result.tokens_per_call == 5.0 and result.target_calls == 6
    assert result.draft_calls == 24 and result.drafted.tolist() == ([True] * 4 + [False]) * 6
    alone = generate_speculative(model, model, PROMPT, 6, k=0)
    assert (alone.target_calls, alone.draft_calls, alone.tested, alone.acceptance) == (6, 0, 0, 0.0)
    nothing = generate_speculative(model, model, PROMPT, 0)
    assert len(nothing.tokens) == 0 and nothing.tokens_per_call == 0.0


def test_without_a_draft_the_draws_are_those_of_generate():
    model = network("gpt", context=12)
    wanted = generate(model, PROMPT, 30, temperature=0.7, generator=torch.Generator().manual_seed(3))
    g = torch.Generator().manual_seed(3)
    assert torch.equal(generate_speculative(model, model, PROMPT, 30, k=0, temperature=0.7, generator=g).tokens, wanted)


def test_acceptance_measured_is_acceptance_expected():
    target, draft = bigrams(0, 4, 0.8), bigrams(1, 4, 0.8)
    result = generate_speculative(target, draft, PROMPT, 1500, k=3)
    p, q = (model.logits.softmax(-1) for model in (target, draft))
    read = torch.bincount(torch.cat([PROMPT[-1:], result.tokens[:-1]]), minlength=4) / 1500
    assert result.acceptance == pytest.approx((read * acceptance_rate(p, q)).sum().item(), abs=0.05)
    assert result.tokens_per_call == pytest.approx(tokens_per_call(result.acceptance, 3), rel=0.05)


def test_a_rounded_cache_may_be_used():
    model = network("gpt", context=40)
    exact = generate_speculative(model, model, PROMPT, 20, temperature=0).tokens
    make = partial(QuantizedKVCache, 8, group=4, window=8)
    assert torch.equal(generate_speculative(model, model, PROMPT, 20, temperature=0, memory=make).tokens, exact)


def test_the_state_of_the_models_is_kept():
    model, draft = network("gpt").train(), network("lstm").train()
    state = torch.get_rng_state()
    generate_speculative(model, draft, PROMPT, 5)
    assert model.training and draft.training and torch.equal(torch.get_rng_state(), state)


def test_closed_forms():
    assert tokens_per_call(0.0, 5) == 1.0 and tokens_per_call(1.0, 5) == 6.0
    assert tokens_per_call(0.8, 4) == pytest.approx((1 - 0.8**5) / (1 - 0.8))
    assert speculative_speedup(0.8, 4, 0.1) == pytest.approx((1 - 0.8**5) / ((1 - 0.8) * (1 + 0.4)))
    assert speculative_speedup(0.3, 8, 0.5) < 1  # a poor draft costs time


def test_documented_errors():
    model, p = network("gpt"), torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match="of one V"):
        accept_or_resample(p, torch.ones(3) / 3, 0, 0.5, 0.5)
    with pytest.raises(ValueError, match="cannot have drawn token 1"):
        accept_or_resample(p, torch.tensor([1.0, 0.0]), 1, 0.5, 0.5)
    with pytest.raises(ValueError, match="token must be"):
        accept_or_resample(p, p, 2, 0.5, 0.5)
    for bad in ({"n": -1}, {"k": -1}, {"temperature": -1.0}, {"prompt": PROMPT[:0]}, {"draft": network("gpt", vocabulary=4)}):
        with pytest.raises(ValueError):
            generate_speculative(**({"target": model, "draft": model, "prompt": PROMPT, "n": 9} | bad))
    with pytest.raises(TypeError, match="n must be"):
        generate_speculative(model, model, PROMPT, 2.5)
    for call in (partial(tokens_per_call, 1.5, 2), partial(tokens_per_call, 0.5, -1), partial(speculative_speedup, 0.5, 2, -1.0)):
        with pytest.raises(ValueError):
            call()
