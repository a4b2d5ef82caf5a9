"""QLoRA: the base stays, the adapters learn, and the bits are those of the paper."""

from functools import partial

import pytest
import torch

from compresslab.core.codes import UniformCode
from compresslab.core.layers import CodedLinear, encode
from compresslab.core.store import load, save
from compresslab.lowrank import trainable_parameters
from compresslab.quantization.nf4 import NF4Code
from compresslab.sequence.adapters import bits_per_weight, extract_adapters, insert_adapters, qlora, remove_adapters
from compresslab.sequence.gpt import GPT, block_layers
from compresslab.sequence.language import bits_per_character, train_language
from compresslab.sequence.text import TextSplit

SPLIT = TextSplit(torch.arange(600) % 7, context=16)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(vocabulary=11, width=16, layers=2, context=16).eval()


def test_at_first_it_computes_what_the_coded_network_computes(model):
    coded = encode(model, partial(NF4Code.from_dense, group_size=16, double=True), only=block_layers(model))
    adapted, tokens = qlora(model, rank=2, group=16), torch.arange(10)[None]
    assert torch.equal(adapted(tokens), coded(tokens)) and not torch.equal(adapted(tokens), model(tokens))


def test_only_the_adapters_learn(model):
    adapted = qlora(model, rank=2, group=16)
    assert trainable_parameters(adapted) == 2 * 2 * (4 * (16 + 16) + 2 * (16 + 64))
    trained = train_language(adapted, SPLIT, epochs=6, lr=0.03, batch_size=10, progress=False)
    assert bits_per_character(trained, SPLIT) < bits_per_character(adapted, SPLIT) - 0.2
    before, after = (remove_adapters(each).state_dict() for each in (adapted, trained))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(remove_adapters(trained).blocks[0].q, CodedLinear)
    changed = [name for name, tensor in extract_adapters(trained).items() if not torch.equal(tensor, extract_adapters(adapted)[name])]
    assert len(changed) == 24


def test_a_file_keeps_base_and_adapters(model, tmp_path):
    adapted = qlora(model, rank=1, group=16)
    adapted = insert_adapters(adapted, {name: torch.full_like(tensor, 0.1) for name, tensor in extract_adapters(adapted).items()})
    save(adapted, tmp_path / "adapted.safetensors")
    again = load(tmp_path / "adapted.safetensors")
    tokens = torch.arange(9)[None]
    assert torch.equal(again(tokens), adapted(tokens))
    assert all((tensor == torch.full_like(tensor, 0.1)).all() for tensor in extract_adapters(again).values())


def test_adapters_are_exchanged(model):
    one, other = (qlora(model, rank=2, group=16, seed=seed) for seed in (0, 9))
    adapters = {name: tensor + 0.05 for name, tensor in extract_adapters(other).items()}
    inserted, tokens = insert_adapters(one, adapters), torch.arange(9)[None]
    assert torch.equal(inserted(tokens), insert_adapters(other, adapters)(tokens))
    assert not torch.equal(inserted(tokens), one(tokens))
    assert all(parameter.requires_grad for name, parameter in inserted.named_parameters() if name.endswith((".a", ".b")))
    adapters["blocks.0.q.a"].zero_()  # a copy was inserted
    assert inserted.blocks[0].q.a.abs().sum() > 0


def test_a_base_that_is_coded_already_stays(model):
    two_bits = partial(UniformCode.from_dense, bits=2, axis=0, group_size=16)
    coded = encode(model, two_bits, only=block_layers(model))
    tokens = torch.arange(9)[None]
    assert torch.equal(qlora(coded, rank=1)(tokens), coded(tokens))
    assert torch.equal(qlora(model, rank=1, make_code=two_bits)(tokens), coded(tokens))


def test_bits_per_weight_as_in_the_paper():
    weight = torch.randn(256, 512)  # 2048 scales: 8 groups of 256
    assert bits_per_weight(NF4Code.from_dense(weight)) == 4.5
    double = bits_per_weight(NF4Code.from_dense(weight, double=True))
    assert double == pytest.approx(4 + 8 / 64 + 32 / (64 * 256) + 32 / weight.numel(), abs=1e-12)
    assert round(4 + 8 / 64 + 32 / (64 * 256), 3) == 4.127


def test_refusals(model):
    adapted = qlora(model, rank=1, group=16)
    with pytest.raises(ValueError, match="adapters already"):
        qlora(adapted, rank=1, group=16)
    with pytest.raises(ValueError, match="in layer 'blocks.0.q'"):
        qlora(model, rank=1, group=5)
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 16, got 17 in layer 'blocks.0.q'"):
        qlora(model, rank=17, group=16)
    with pytest.raises(ValueError, match="'blocks.0.q.a' is in one of the two only"):
        insert_adapters(adapted, {name: t for name, t in extract_adapters(adapted).items() if name != "blocks.0.q.a"})
    with pytest.raises(ValueError, match=r"'blocks.0.q.a' must have shape \(1, 16\), got \(2, 16\)"):
        insert_adapters(adapted, extract_adapters(qlora(model, rank=2, group=16)))
    with pytest.raises(ValueError, match="no coded weight"):
        bits_per_weight(model)
