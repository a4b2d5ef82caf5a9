"""What every recipe of every family must hold, whatever it does inside.

A recipe maps a model to a new model. Each one, on each small network it applies to, is put through the same questions:
is the input left alone, is the result the same twice, does it survive a deep copy and a file read by another process, does
the file hold exactly the bits that were counted, do an independent size formula and the simulated network agree.
"""

import copy
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from contract_models import MODELS, build
from torch import nn

import compresslab.hybrid as H
import compresslab.lowrank as L
import compresslab.pruning as P
import compresslab.quantization as Q
import compresslab.sharing as S
from compresslab.core import (
    CodebookCode, DenseCode, GapSparseCode, SparseCode, UniformCode, WeightCode, bake, convert, decompress,
    encode, gap_codebook, named_layers, prepare, save, sparse_codebook, storage_bits, storage_report,
)  # fmt: skip
from compresslab.core.store import header_bytes, payload_bits


def row(weight):
    """The number of weights of one output: a block size that always divides."""
    return math.prod(weight.shape[1:])


def pruned_then(make_code, sparsity=0.7):
    """A code for a weight that is first pruned by magnitude."""
    return lambda weight: make_code(weight * P.magnitude_mask(weight, sparsity))


CODES = {
    "float16": partial(DenseCode.from_dense, dtype=torch.float16),
    "uniform, one scale": partial(UniformCode.from_dense, bits=4),
    "uniform, per channel": partial(UniformCode.from_dense, bits=8, axis=0),
    "uniform, 3 bits, last axis": partial(UniformCode.from_dense, bits=3, axis=-1),
    "uniform, affine": partial(UniformCode.from_dense, bits=4, axis=0, symmetric=False),
    "ternary": partial(Q.ternary_code, axis=0),
    "binary": partial(Q.BinaryCode.from_dense, axis=0),
    "fp8": partial(Q.Float8Code.from_dense, axis=0),
    "fp8, e5m2, one scale": partial(Q.Float8Code.from_dense, format="e5m2"),
    "mxfp4": lambda weight: Q.MXFP4Code.from_dense(weight, row(weight)),
    "nvfp4": lambda weight: Q.NVFP4Code.from_dense(weight, row(weight)),
    "nf4": lambda weight: Q.NF4Code.from_dense(weight, row(weight)),
    "nf4, double": lambda weight: Q.NF4Code.from_dense(weight, row(weight), double=True),
    "codebook": partial(CodebookCode.from_dense, bits=3),
    "sparse": pruned_then(SparseCode.from_dense),
    "gap sparse": pruned_then(GapSparseCode.from_dense),
    "gap sparse, 2 bits": pruned_then(partial(GapSparseCode.from_dense, index_bits=2), 0.95),
    "sparse codebook": pruned_then(sparse_codebook(bits=4)),
    "deep compression": pruned_then(gap_codebook(bits=3)),
    "all zero": lambda weight: GapSparseCode.from_dense(torch.zeros_like(weight)),
    "2:4": lambda weight: P.NMCode.from_dense(weight * P.nm_mask(weight)),
    "2:4 in 4 bits": lambda weight: P.NMCode.from_dense(weight * P.nm_mask(weight), values=UniformCode.from_dense),
    "hashed": partial(S.HashedCode.from_dense, fraction=0.3),
    "hashed, as large as the weight": partial(S.HashedCode.from_dense, fraction=1.0, injective=True),
    "circulant": lambda weight: S.BlockCirculantCode.from_dense(weight, math.gcd(*weight.shape[:2])),
    "toeplitz": S.ToeplitzCode.from_dense,
    "product": partial(S.ProductCode.from_dense, subspaces=1, k=3),
    "product, shared": lambda weight: S.ProductCode.from_dense(weight, row(weight), 4, shared=True),
    "clusters": partial(S.ClusterCode.from_dense, bits=2),
    "buckets": partial(H.BucketCode.from_dense, bits=3, bucket=5),
    "blocks": lambda weight: P.BlockCode.from_dense(weight * P.block_mask(weight, (2, 3), 0.5), (2, 3)),
}
WEIGHTED = ("mlp", "convolutional", "conv1d", "shared")
GRAPHS = ("mlp", "convolutional")

RECIPES = {f"encode: {name}": (tuple(MODELS), partial(encode, make_code=code)) for name, code in CODES.items()}
RECIPES |= {
    "magnitude, by layer": (WEIGHTED, partial(P.prune_magnitude, sparsity=0.6)),
    "magnitude, globally": (WEIGHTED, partial(P.prune_magnitude, sparsity=0.6, scope="global")),
    "magnitude, nothing": (WEIGHTED, partial(P.prune_magnitude, sparsity=0.0)),
    "magnitude, everything": (WEIGHTED, partial(P.prune_magnitude, sparsity=1.0)),
    "random masks": (WEIGHTED, lambda model: P.random_masks(model, like=P.prune_magnitude(model, 0.5), seed=3)),
    "2:4 mask": (WEIGHTED, P.prune_nm),
    "block mask": (WEIGHTED, partial(P.prune_blocks, sparsity=0.5, block=(2, 2))),
    "channels, half": (GRAPHS, "channels"),
    "channels, then deep compression": (GRAPHS, "channels, coded"),
}
RECIPES |= {
    "fold batch norm": (GRAPHS, Q.fold_batch_norm),
    "equalize": (GRAPHS, lambda model: Q.equalize(Q.fold_batch_norm(model))),
}


def half_ranks(model: nn.Module, scheme: str = "channel") -> dict[str, int]:
    """Half the full rank of every layer that can be decomposed."""
    layers = {name: layer for name, layer in named_layers(model).items() if L.can_decompose(layer)}
    return {name: max(1, L.full_rank(layer, scheme) // 2) for name, layer in layers.items()}


RECIPES |= {
    f"decompose: {scheme}": (
        WEIGHTED, lambda model, scheme=scheme: L.decompose(model, half_ranks(model, scheme), method=scheme))
    for scheme in ("input", "spatial")
}
RECIPES |= {
    f"decompose: {method}, rank 1": (
        WEIGHTED, lambda model, method=method: L.decompose(model, dict.fromkeys(half_ranks(model), 1), method=method))
    for method in ("tucker", "cp")
}
RECIPES |= {
    "decompose, then deep compression": (
        WEIGHTED, lambda model: encode(L.decompose(model, half_ranks(model)), pruned_then(gap_codebook(bits=3)))),
    "adapters": (("mlp", "shared"), partial(L.add_lora, rank=2)),
    "adapters, merged": (("mlp", "shared"), lambda model: L.merge_lora(L.add_lora(model, rank=2))),
}
RECIPES |= {
    "prune, share, code": (WEIGHTED, lambda model: H.gap_code(H.share_weights(P.prune_magnitude(model, 0.7), bits=3))),
    "clip-q, converted": (WEIGHTED, lambda model: convert(prepare(model, lambda weight: H.ClipQ(0.5, 3)))),
    "buckets, converted": (WEIGHTED, lambda model: convert(prepare(model, lambda weight: H.BucketQuantize(bits=3, bucket=4)))),
    "low rank plus sparse": (("mlp", "shared"), lambda model: H.split_layers(model, dict.fromkeys(named_layers(model), (1, 3)))),
    "projected to three values": (WEIGHTED, lambda model: H.project_weights(model, dict.fromkeys(named_layers(model), H.project_ternary))),
}
CASES = [(recipe, model) for recipe, (models, _) in RECIPES.items() for model in models]


def apply(recipe: str, model: nn.Module, x: torch.Tensor) -> nn.Module:
    step = RECIPES[recipe][1]
    if isinstance(step, str):
        small = P.prune_channels(model, x, 0.5)
        return encode(small, pruned_then(gap_codebook(bits=3))) if "coded" in step else small
    return step(model)


def same_state(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def results():
    """Every recipe, applied once: (recipe, model name) -> (model before, a copy of it, input, result)."""
    out = {}
    for recipe, name in CASES:
        model, x = build(name)
        before = copy.deepcopy(model)
        out[recipe, name] = (model, before, x, apply(recipe, model, x).eval())
    return out


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_recipe(case, results):
    model, before, x, result = results[case]
    with torch.no_grad():
        y = result(x)
    assert same_state(model, before), "the input was changed"
    assert y.shape == model(x).shape and torch.isfinite(y).all()
    assert same_state(result, apply(case[0], model, x)), "the same seed gives another result"
    with torch.no_grad():
        twin = copy.deepcopy(result)
        assert torch.equal(twin(x), y) and storage_bits(twin) == storage_bits(result)
        torch.testing.assert_close(decompress(result)(x), y)
    assert sum(storage_report(result).by_role.values()) == storage_bits(result)


def test_files_hold_the_counted_bits_and_another_process_reads_the_same_networks(results, tmp_path):
    jobs = []
    for number, ((recipe, name), (_, _, x, result)) in enumerate(results.items()):
        for entropy in (False, True):
            path = tmp_path / f"{number}-{entropy}.safetensors"
            written = save(result, path, entropy=entropy)
            assert written == path.stat().st_size, (recipe, name)
            if not entropy:
                assert payload_bits(path) == storage_bits(result), (recipe, name)
                assert written == storage_bits(result) // 8 + header_bytes(path), (recipe, name)
            with torch.no_grad():
                jobs.append({"path": str(path), "model": name, "label": f"{recipe}, {name}, {entropy}", "bits": storage_bits(result)})
                torch.save(result(x), str(path) + ".out")
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    script = """
import json, sys, torch
from contract_models import build
from compresslab.core import load, storage_bits
wrong = []
for job in json.load(open(sys.argv[1])):
    skeleton, x = build(job["model"], seed=0)
    for p in skeleton.parameters():
        p.data.fill_(float("nan"))
    model = load(job["path"], skeleton)
    with torch.no_grad():
        same = torch.equal(model(x), torch.load(job["path"] + ".out", weights_only=True))
    if not same or storage_bits(model) != job["bits"]:
        wrong.append(job["label"])
print(json.dumps(wrong))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "jobs.json"], capture_output=True, text=True,
                          cwd=Path(__file__).parent, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def packed(entries: int, bits: int) -> int:
    """Bits of a packed array: whole bytes."""
    return 8 * math.ceil(entries * bits / 8)


def gap_entries(weight: torch.Tensor, index_bits: int) -> int:
    """How many gaps the positions of a weight's nonzeros take, counted one zero at a time."""
    skip, entries, run = 2**index_bits - 1, 0, 0
    for value in weight.flatten().tolist():
        if value == 0:
            run += 1
            continue
        entries += run // skip + 1
        run = 0
    return entries


def expected_bits(code: WeightCode, weight: torch.Tensor) -> int:
    """The size of a code by the formula of its paper, from the decoded weight and the settings alone."""
    n, nnz = weight.numel(), int((weight != 0).sum())
    match type(code).__name__:
        case "DenseCode":
            return code.value.element_size() * 8 * n
        case "UniformCode":
            zero_points = 0 if code.zero_point is None else 8 * len(code.zero_point)
            return packed(n, code.bits) + 32 * len(code.scale) + zero_points
        case "BinaryCode":
            return packed(n, 1) + 32 * len(code.scale)
        case "Float8Code":
            return 8 * n + 32 * code.scale.numel()
        case "MXFP4Code":
            return packed(n, 4) + 8 * weight.shape[0]
        case "NVFP4Code":
            return packed(n, 4) + 8 * weight.shape[0] + 32
        case "NF4Code":
            blocks = weight.shape[0]
            return packed(n, 4) + (8 * blocks + 32 * math.ceil(blocks / 256) + 32 if code.group_scale is not None else 32 * blocks)
        case "CodebookCode" | "ClusterCode":
            return packed(n, code.bits) + 32 * len(code.codebook)
        case "SparseCode":
            return packed(n, 1) + expected_bits(code.values, torch.ones(nnz))
        case "GapSparseCode":
            return packed(gap_entries(weight, code.index_bits), code.index_bits) + expected_bits(code.values, torch.ones(nnz))
        case "NMCode":
            groups = weight.shape[0] * math.ceil(n / weight.shape[0] / 4)
            return packed(2 * groups, 2) + expected_bits(code.values, torch.ones(2 * groups))
        case "HashedCode":
            return 32 * (n if code.injective else max(1, round(0.3 * n)))
        case "BlockCirculantCode":
            return 32 * n // math.gcd(*weight.shape[:2])
        case "ToeplitzCode":
            return 32 * (weight.shape[0] + n // weight.shape[0] - 1)
        case "ProductCode":
            rows, columns = weight.shape[0], n // weight.shape[0]
            if len(code.codebooks) == 1 and code.subspaces > 1:  # one book of four words of one number each
                return packed(rows * columns, 2) + 32 * 4
            words = min(3, rows)  # asked for are three
            return packed(rows, 2 if words == 3 else 1) + 32 * words * columns
        case "BucketCode":
            return packed(n, code.bits) + 32 * len(code.points) + 2 * 32 * math.ceil(n / code.bucket)
        case "BlockCode":
            columns = math.ceil(n / weight.shape[0] / 3)
            blocks = math.ceil(weight.shape[0] / 2) * columns
            return packed(blocks, 1) + expected_bits(code.values, torch.ones(code.values.numel))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe.startswith("encode")])
def test_counted_bits_are_those_of_the_formula(recipe, name, results):
    model, _, _, result = results[recipe, name]
    codes = {id(m): m for m in result.modules() if isinstance(m, WeightCode)}
    inner = {id(child) for code in codes.values() for child in code.children()}
    outer = [code for key, code in codes.items() if key not in inner]
    other = sum(tensor.nbytes for key, tensor in state_without_codes(result).items())
    assert storage_bits(result) == sum(expected_bits(code, code.decode()) for code in outer) + 8 * other


def state_without_codes(model: nn.Module) -> dict[str, torch.Tensor]:
    """Biases and normalisation: what no code holds, each storage once."""
    inside = tuple(name for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, WeightCode))
    distinct = {t.data_ptr(): (key, t) for key, t in model.state_dict().items()
                if not any(key.startswith(f"{name}.") for name in inside)}
    return dict(distinct.values())


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize(
    "simulate, code",
    [(partial(P.prune_magnitude, sparsity=0.7), SparseCode.from_dense),
     (partial(P.prune_magnitude, sparsity=0.7), GapSparseCode.from_dense),
     (P.prune_nm, P.NMCode.from_dense),
     (partial(P.prune_blocks, sparsity=0.5, block=(2, 3)), partial(P.BlockCode.from_dense, block=(2, 3)))],
    ids=["mask", "gaps", "2:4", "blocks"],
)
def test_simulated_weights_are_the_encoded_ones_bit_for_bit(simulate, code, name):
    model, _ = build(name)
    masked = simulate(model)
    baked, decoded = bake(masked), decompress(encode(masked, code))
    for key, weight in baked.state_dict().items():
        assert torch.equal(weight, decoded.state_dict()[key]), key


SIMULATED = {
    "fake quantization": lambda weight: Q.FakeQuantize(bits=3),
    "affine, one scale": lambda weight: Q.FakeQuantize(bits=4, axis=None, symmetric=False),
    "learned step": lambda weight: Q.LSQ(weight, 4, axis=0),
    "DoReFa": lambda weight: Q.DoReFa(2),
    "powers of two": lambda weight: Q.PowersOfTwo(weight, 5),
    "BinaryConnect": lambda weight: Q.BinaryConnect(),
    "BWN": lambda weight: Q.BWN(),
    "ternary": lambda weight: Q.Ternary(axis=0),
    "trained ternary": Q.TTQ,
    "trained codebook": partial(Q.TrainedCodebook, bits=3),
}


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("method", SIMULATED)
def test_prepared_weights_are_the_converted_ones_bit_for_bit(method, name):
    model, x = build(name)
    prepared = Q.prepare(model, SIMULATED[method])
    stored = decompress(Q.convert(prepared))
    for key, weight in bake(prepared).state_dict().items():
        assert torch.equal(weight, stored.state_dict()[key]), key
    with torch.no_grad():
        torch.testing.assert_close(prepared(x), stored(x))
    out = prepared.train()(x)
    out.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in prepared.parameters()), "nothing can be trained"


@pytest.mark.parametrize("name, sites", [("tied", ["embedding", "out"]), ("shared", ["block.0", "again.0"])])
def test_what_was_shared_stays_shared(name, sites):
    model, _ = build(name)
    coded = encode(model, UniformCode.from_dense)
    assert len({id(coded.get_submodule(site).coded) for site in sites}) == 1
    plain = decompress(coded)
    assert len({id(plain.get_submodule(site).weight) for site in sites}) == 1
    assert storage_bits(plain) == storage_bits(model)


@pytest.mark.parametrize("name", WEIGHTED)
def test_strength_zero_changes_nothing_and_strength_one_is_all_zero(name):
    model, x = build(name)
    with torch.no_grad():
        assert torch.equal(P.prune_magnitude(model, 0.0)(x), model(x))
    assert P.sparsity_of(P.prune_magnitude(model, 1.0)) == 1.0
    if name in GRAPHS:
        assert same_state(P.prune_channels(model, x, 0.0), model)
