"""What the part of chapter 09 on writing computes and draws beside its exercises."""

import matplotlib.pyplot as plt
import pytest
import torch

from compresslab.course.chapter09 import checks_decoding, figures_decoding, references_decoding
from compresslab.sequence.arithmetic import DecodeStep
from compresslab.sequence.cache import QuantizedKVCache
from compresslab.sequence.speculative import accept_or_resample, tokens_per_call


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_exact_sum_tells_right_rules_from_wrong_ones():
    p, q = torch.tensor([0.125, 0.5, 0.25, 0.125]), torch.tensor([0.5, 0.25, 0.125, 0.125])
    for rule in (references_decoding.accept_or_resample, accept_or_resample):
        out, accepted = checks_decoding.what_comes_out(rule, p, q)
        assert out == pytest.approx(p.tolist()) and accepted == pytest.approx(0.625)
    out, accepted = checks_decoding.what_comes_out(lambda p, q, token, u, v: (token, True), p, q)
    assert out == pytest.approx(q.tolist()) and accepted == pytest.approx(1.0)


def test_references_agree_with_the_library():
    for case in checks_decoding.LIMITED_BY_READING + checks_decoding.LIMITED_BY_COMPUTING:
        weights, bits, cache, batch, bandwidth, macs = case
        step = DecodeStep(weights * bits / 8, cache, weights, batch)
        assert references_decoding.tokens_per_second(*case) == pytest.approx(step.tokens_per_second(bandwidth, macs))
        reading = batch * bandwidth / step.bytes <= macs / weights
        assert reading == (case in checks_decoding.LIMITED_BY_READING)
    keys = torch.randn(2, 3, 11, 4, generator=torch.Generator().manual_seed(0))
    memory = QuantizedKVCache(3, group=4)
    memory.append(0, keys, keys)
    held = memory.append(0, keys[:, :, :1], keys[:, :, :1])[0][:, :, :11]
    assert torch.allclose(held, references_decoding.quantize_keys(keys, 3, 4), atol=0.01)
    assert torch.equal(held[:, :, 8:], keys[:, :, 8:])


def test_bytes_per_token_count_both_models():
    row = {"target_bytes": 1000, "draft_bytes": 100, "tokens_per_call": 3.0, "drafted_per_call": 5.0}
    assert figures_decoding.fewer_bytes(row) == 2.0  # 1500 bytes for three tokens, 3000 without the draft


def test_figures_draw():
    rows = [{"draft": name, "k": k, "acceptance": 0.8, "tokens_per_call": 2.0, "drafted_per_call": 2.0, "draft_bytes": 1, "target_bytes": 9}
            for name in ("a", "b") for k in (1, 2)]  # fmt: skip
    caches = [{"bits": bits, "keys": keys, "relative": 0.1, "low": 0.0, "high": 0.2} for bits in (2, 4) for keys in ("channel", "token")]
    figures_decoding.per_call(rows, tokens_per_call)
    figures_decoding.cache_cost(caches)
    figures_decoding.products([1, 2], [0.1, 0.1])
    figures_decoding.held(torch.eye(5), torch.ones(5, 3))
    figures_decoding.chances([0.5, 0.5], [0.2, 0.8], [0.4, 0.6], "ab")
    figures_decoding.written("a $\\frac\nb", [True] * 10, width=4).canvas.draw()
    figures_decoding.step_bytes(plt.subplots()[1], {"texts": 2, "formats": {"4 bits": (1e9, 2e9, 5.0)}})
