"""A GPT in few bits: every method against its family's function on the same matrices, sizes against a formula."""

import copy

import pytest
import torch
from torch import nn

from compresslab.core.calibrate import collect_inputs, input_moments, input_norms
from compresslab.core.codes import UniformCode
from compresslab.core.layers import decompress, encode
from compresslab.core.measure import file_size
from compresslab.core.size import storage_bits
from compresslab.core.store import load, save
from compresslab.pruning.nm import nm_mask
from compresslab.pruning.sparsegpt import sparsegpt_prune
from compresslab.pruning.wanda import wanda_mask
from compresslab.quantization.gptq import gptq
from compresslab.quantization.nf4 import NF4Code
from compresslab.sequence.compress_gpt import PRUNING, ROUNDING, compress_gpt, half_scales, norm_readers
from compresslab.sequence.gpt import GPT, block_layers
from compresslab.sequence.outliers import plant_outliers


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT(vocabulary=20, width=16, layers=2, context=12, hidden=32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8) if parameter.ndim == 2 else parameter.add_(0.3 * torch.randn(16))
    return model


@pytest.fixture
def batches():
    g = torch.Generator().manual_seed(1)
    return [torch.randint(20, (8, 12), generator=g) for _ in range(3)]


def weights(model):
    plain = decompress(model)
    return {name: plain.get_submodule(name).weight.detach() for name in [*block_layers(plain), "tokens", "positions", "head"]}


def options(method, batches):
    return {"batches": batches} | ({"nm": (2, 4)} if method in PRUNING else {"group": 8})


def test_rounding_to_the_nearest_group_by_group(model):
    coded = weights(compress_gpt(model, "rtn", bits=4, group=8))
    for name in block_layers(model):
        rows = model.get_submodule(name).weight.detach().reshape(-1, 8)
        scale = rows.abs().amax(1, keepdim=True) / 7
        wanted = torch.round(rows / scale) * scale
        torch.testing.assert_close(coded[name].reshape(-1, 8), wanted, rtol=1e-3, atol=0)
    for name in ("tokens", "positions", "head"):
        rows = model.get_submodule(name).weight.detach()
        assert ((coded[name] - rows).abs() <= rows.abs().amax(1, keepdim=True) / 254 * 1.1).all()


def test_the_size_is_what_the_formula_says(model):
    matrices = sum(model.get_submodule(name).weight.numel() for name in block_layers(model))
    rest = sum(layer.weight.numel() for layer in (model.tokens, model.positions, model.head))
    norms = 32 * 16 * 5
    rows = 20 + 12 + 20
    for bits in (3, 4, 8):
        expected = matrices * bits + matrices // 8 * 16 + rest * 8 + rows * 16 + norms
        assert storage_bits(compress_gpt(model, "rtn", bits=bits, group=8)) == expected
    smaller = matrices * 4 + matrices // 8 * 16 + rest * 4 + rows * 16 + norms
    assert storage_bits(compress_gpt(model, "rtn", bits=4, group=8, rest_bits=4)) == smaller
    assert storage_bits(compress_gpt(model, "nf4", group=8)) == matrices * 4 + matrices // 8 * 16 + rest * 8 + rows * 16 + norms
    assert storage_bits(compress_gpt(model, "magnitude", nm=(2, 4))) == matrices + matrices // 2 * 16 + rest * 8 + rows * 16 + norms


@pytest.mark.parametrize("group", [None, 8])
def test_gptq_block_by_block_on_what_the_coded_blocks_hand_over(model, batches, group):
    coded = compress_gpt(model, "gptq", bits=3, group=group, batches=batches)
    got = weights(coded)
    H = input_moments(model, block_layers(model)[:6], batches)
    for name in block_layers(model):
        if name == "blocks.1.q":  # the first block is coded now, and the second sees that
            plain = copy.deepcopy(model)
            plain.blocks[0] = decompress(coded).blocks[0]
            H = input_moments(plain, block_layers(model)[6:], batches)
        weight = model.get_submodule(name).weight.detach()
        wanted = UniformCode.from_rows(*gptq(weight, H[name], 3, group_size=group), weight.shape).decode()
        torch.testing.assert_close(got[name], wanted, rtol=2e-3, atol=1e-6)


def test_gptq_loses_less_than_rounding(model, batches):
    x = torch.cat(batches)
    off = {m: (compress_gpt(model, m, bits=3, group=8, batches=batches)(x) - model(x)).square().mean() for m in ("rtn", "gptq")}
    assert off["gptq"] < 0.8 * off["rtn"]


def test_awq_is_never_worse_than_rounding_on_its_calibration_inputs(model, batches):
    loud = plant_outliers(model, 20.0, channels=1)
    nearest, scaled = (weights(compress_gpt(loud, m, bits=3, group=8, batches=batches)) for m in ("rtn", "awq"))
    names = block_layers(model)[:6]
    inputs = collect_inputs(loud, names, batches)
    errors = []
    for name in names:
        W, X = loud.get_submodule(name).weight.detach(), inputs[name]
        errors.append([((V[name] - W) @ X.T).square().sum() for V in (scaled, nearest)])
    assert all(a <= b * 1.01 for a, b in errors) and sum(a for a, _ in errors) < 0.9 * sum(b for _, b in errors)


def test_nf4_is_the_familys_code(model):
    got = weights(compress_gpt(model, "nf4", group=8))
    for name in block_layers(model):
        weight = model.get_submodule(name).weight.detach()
        torch.testing.assert_close(got[name], NF4Code.from_dense(weight, 8).decode(), rtol=1e-3, atol=0)


def test_pruning_methods_are_the_familys(model, batches):
    first = block_layers(model)[:6]
    H, norms = input_moments(model, first, batches), input_norms(model, first, batches)
    pruned = {method: weights(compress_gpt(model, method, nm=(2, 4), batches=batches)) for method in PRUNING}
    for name in first:
        weight = model.get_submodule(name).weight.detach()
        wanted = {
            "magnitude": weight * nm_mask(weight, 2, 4),
            "wanda": weight * wanda_mask(weight, norms[name], nm=(2, 4)),
            "sparsegpt": sparsegpt_prune(weight, H[name], nm=(2, 4))[0].float(),
        }
        for method, expected in wanted.items():
            torch.testing.assert_close(pruned[method][name], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", PRUNING)
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 1.0])
def test_exact_sparsity(model, batches, method, sparsity):
    got = weights(compress_gpt(model, method, sparsity=sparsity, batches=batches))
    for name in block_layers(model):
        assert (got[name] == 0).sum() == round(sparsity * got[name].numel())


def test_smoothing_saves_a_network_with_outliers(model, batches):
    loud, x = plant_outliers(model, 100.0, channels=2), torch.cat(batches)

    def off(network, method):
        return (compress_gpt(network, method, batches=batches)(x) - model(x)).square().mean().item()

    assert off(loud, "smoothquant") < 0.05 * off(loud, "w8a8")
    assert off(loud, "smoothquant") == pytest.approx(off(model, "smoothquant"), rel=0.7)


def test_activations_are_rounded(model, batches):
    coded = compress_gpt(model, "w8a8", bits=4, batches=batches)
    seen = {}
    coded.blocks[0].q.register_forward_hook(lambda layer, args, output: seen.update(x=args[0].detach()))
    coded(batches[0])
    assert len(seen["x"].unique()) <= 15 and coded.blocks[0].q.coded.bits == 4


@pytest.mark.parametrize("method", ROUNDING + PRUNING)
def test_a_step_of_a_pipeline(model, batches, method, tmp_path):
    before, held = copy.deepcopy(model.state_dict()), [batch.clone() for batch in batches]
    coded = compress_gpt(model, method, **options(method, batches))
    again = compress_gpt(model, method, **options(method, iter(batches)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, batches, held))
    with torch.no_grad():
        logits = coded(batches[0])
        assert torch.equal(logits, again(batches[0])) and torch.equal(logits, copy.deepcopy(coded)(batches[0]))
        if method in ("w8a8", "smoothquant"):
            return
        save(coded, tmp_path / "gpt", entropy=True)
        assert torch.equal(load(tmp_path / "gpt")(batches[0]), logits)
    assert file_size(coded) < file_size(model)


def test_scales_that_float16_cannot_hold_stay(model):
    layer = nn.Linear(4, 2, bias=False)
    for factor, dtype in ((1.0, torch.float16), (1e-7, torch.float32), (1e9, torch.float32)):
        with torch.no_grad():
            layer.weight.copy_(factor * torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]]))
        coded = encode(layer, lambda weight: UniformCode.from_dense(weight, 4, axis=0))
        assert half_scales(coded).coded.scale.dtype == dtype and coded.coded.scale.dtype == torch.float32


def test_readers_of_each_norm(model):
    assert len(norm_readers(model)) == 4 and norm_readers(model)[2] == ("blocks.1.norm1", ("blocks.1.q", "blocks.1.k", "blocks.1.v"))


@pytest.mark.parametrize(
    "method, changes, message",
    [
        ("best", {}, "method must be one of rtn, gptq"),
        ("gptq", {"batches": None}, '"gptq" needs calibration text'),
        ("rtn", {"bits": 9}, "bits must be a whole number from 2 to 8"),
        ("nf4", {"bits": 3}, "NF4 has 4 bits, got bits=3"),
        ("rtn", {"group": 5}, "group_size 5 does not divide .* in layer 'blocks.0.q'"),
        ("rtn", {"sparsity": 0.5}, '"rtn" drops no weights'),
        ("wanda", {}, "exactly one of sparsity and nm"),
        ("wanda", {"sparsity": 50}, "did you mean 0.5"),
        ("wanda", {"sparsity": 0.5, "bits": 4}, "keeps 16 bits"),
        ("rtn", {"rest_bits": 1}, "rest_bits must be a whole number from 2 to 8"),
        ("gptq", {"batches": []}, "no calibration data"),
    ],
)
def test_errors(model, batches, method, changes, message):
    with pytest.raises(ValueError, match=message):
        compress_gpt(model, method, **{"batches": batches, "group": 8 if method not in PRUNING else None} | changes)


def test_wrong_types(model):
    with pytest.raises(TypeError, match="bits must be a whole number"):
        compress_gpt(model, "rtn", bits=4.0)
