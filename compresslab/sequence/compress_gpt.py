r"""A GPT in few bits: every method of the course on the same network, through one function.

Rounding a language model is rounding some twenty matrices. What the methods disagree about is which of the
two neighbours on the grid a weight should take ("rtn" and "gptq"), what to multiply it by before ("awq",
"smoothquant"), and where the grid points are ("nf4"). Pruning methods disagree about which weights to drop
("magnitude", "wanda"), and whether the others should make up for it ("sparsegpt"). So they share all else
here: the same calibration text, the same groups, the same rest.

The matrices of a block are coded together, and the next block is calibrated on what the blocks before it,
already coded, hand over. Embeddings and the output layer are not where methods differ: they take `rest_bits`
bits, one scale per token or position.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches, collect_inputs, input_moments
from compresslab.core.codes import DenseCode, MakeCode, UniformCode, WeightCode
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.layers import encode
from compresslab.core.modules import bake
from compresslab.core.sparse import SparseCode
from compresslab.pruning.magnitude import magnitude_mask
from compresslab.pruning.nm import nm_mask
from compresslab.pruning.sparsegpt import sparsegpt_prune
from compresslab.pruning.wanda import wanda_mask
from compresslab.quantization.activations import calibrate, simulate_activations
from compresslab.quantization.awq import InputScaledCode, search_awq
from compresslab.quantization.gptq import gptq
from compresslab.quantization.nf4 import NF4Code
from compresslab.quantization.smoothquant import smooth_layers
from compresslab.sequence.gpt import GPT, block_layers

ROUNDING = ("rtn", "gptq", "awq", "nf4", "w8a8", "smoothquant")
PRUNING = ("magnitude", "wanda", "sparsegpt")
NO_DATA = ("rtn", "nf4", "magnitude")
ACTIVATIONS = ("w8a8", "smoothquant")
MAX_ROWS = 512  # inputs per batch on which AWQ compares its exponents


def compress_gpt(
    model: GPT,
    method: str,
    *,
    bits: int | None = None,
    group: int | None = 32,
    batches: Batches | None = None,
    sparsity: float | None = None,
    nm: tuple[int, int] | None = None,
    alpha: float = 0.5,
    damp: float = 0.01,
    rest_bits: int = 8,
) -> GPT:
    """Copy of a GPT with coded weights, made by one of nine methods.

    ======================  ============================================================================
    "rtn"                   round to the nearest point of a symmetric grid
    "gptq"                  column by column; the columns to come make up for the error
    "awq"                   rounded after the weights of loud inputs were made larger
    "nf4"                   nearest of sixteen quantiles of the normal distribution
    "w8a8", "smoothquant"   8-bit weights, and the inputs of all matrices rounded as well, with one scale
                            per matrix: simulated by hooks, which no file keeps. "smoothquant" first
                            moves outliers from the activations to the weights.
    "magnitude", "wanda"    drop small weights; small weights times input norms, compared within each row
    "sparsegpt"             drop weights column by column, with compensation
    ======================  ============================================================================

    Args:
        model: a trained GPT; masks are baked in.
        method: see above.
        bits: of the weights inside the blocks, 2 to 8; None is 4, or 8 for "w8a8" and "smoothquant". "nf4"
            has 4. Pruned weights that stay take 16 bits, and this must be None.
        group: consecutive inputs of a row that share a scale; None: one scale per row. Not for pruning, nor
            for "w8a8" and "smoothquant", which have one scale per row.
        batches: calibration tokens (B, L), such as `text.train.drawn(32).batches(8, labels=False)`; all
            methods but "rtn", "nf4" and "magnitude" need them.
        sparsity: fraction in [0, 1] of the weights of every matrix to drop; or
        nm: (N, M), keep N of every M consecutive inputs. Pruning methods take exactly one of the two.
        alpha: of "smoothquant", as in `quantization.smooth_scale`.
        damp: of "gptq" and "sparsegpt", as in `core.linalg.inverse_factor`.
        rest_bits: of `tokens`, `positions` and `head`, 2 to 8.

    Returns:
        A coded GPT in eval mode. Scales take 16 bits; norms stay float32.

    Raises:
        TypeError, ValueError: an unknown method, no calibration data where needed, numbers out of range, a
            group that does not divide a matrix's inputs (the message names the layer), what the method has no
            use for.

    Source: E. Frantar et al., "GPTQ", ICLR 2023; J. Lin et al., "AWQ", MLSys 2024; G. Xiao et al.,
        "SmoothQuant", ICML 2023; T. Dettmers et al., "QLoRA", NeurIPS 2023; M. Sun et al., "A Simple and
        Effective Pruning Approach for Large Language Models", ICLR 2024; E. Frantar, D. Alistarh,
        "SparseGPT", ICML 2023.
    Differs: those papers leave embeddings and the output layer in 16 bits. Activations are rounded with fixed
        scales. AWQ stores its scales, and does not clip.

    Example:
        >>> coded = compress_gpt(GPT(width=32, layers=1), "rtn")
        >>> coded.blocks[0].up.coded, coded.head.coded.bits
        (UniformCode(shape=(128, 32), bits=4, axis=0), 8)
    """
    bits = _check(method, bits, group, batches, sparsity, nm, rest_bits)
    model, batches = bake(model).eval(), None if batches is None else list(batches)
    grids = None
    if method == "smoothquant":
        model = smooth_layers(model, batches, norm_readers(model), alpha=alpha)
    if method in ACTIVATIONS:
        grids, group = calibrate(model, batches, layers=block_layers(model), bits=bits, symmetric=True), None
    for number in range(len(model.blocks)):
        names = [name for name in block_layers(model) if name.startswith(f"blocks.{number}.")]
        make = _codes_of(model, names, method, batches, bits, group, sparsity, nm, damp)
        model = half_scales(encode(model, make))  # the next block is calibrated behind what will be stored
    rest = partial(UniformCode.from_dense, bits=rest_bits, axis=0)
    model = half_scales(encode(model, rest, only=["tokens", "positions", "head"]))
    return model if grids is None else simulate_activations(model, grids)


def norm_readers(model: GPT) -> list[tuple[str, tuple[str, ...]]]:
    """Each RMSNorm inside the blocks with the matrices that read it: pairs as `smooth_layers` takes them.

    Example:
        >>> norm_readers(GPT(width=8, layers=1))
        [('blocks.0.norm1', ('blocks.0.q', 'blocks.0.k', 'blocks.0.v')), ('blocks.0.norm2', ('blocks.0.up',))]
    """
    pairs = []
    for number in range(len(model.blocks)):
        pairs.append((f"blocks.{number}.norm1", tuple(f"blocks.{number}.{kind}" for kind in "qkv")))
        pairs.append((f"blocks.{number}.norm2", (f"blocks.{number}.up",)))
    return pairs


def half_scales(model: nn.Module) -> nn.Module:
    """Copy of a coded model whose scales take 16 bits: a weight moves by at most 1/2048 of itself.

    Scales that float16 cannot hold that well, tiny or huge ones, stay as they are.

    Source: T. Dettmers, L. Zettlemoyer, "The case for 4-bit precision: k-bit Inference Scaling Laws", ICML
        2023, count 16 bits per scale as well.
    """
    model = bake(model)
    for code in model.modules():
        if not isinstance(code, WeightCode):
            continue
        for name, role in code.roles.items():
            scale = getattr(code, name)
            if role == "scales" and scale is not None and scale.is_floating_point():
                half = scale.half()
                if ((half.float() - scale).abs() <= scale.abs() / 2048).all():
                    setattr(code, name, half)
    return model


def _codes_of(
    model: GPT,
    names: list[str],
    method: str,
    batches: list | None,
    bits: int,
    group: int | None,
    sparsity: float | None,
    nm: tuple[int, int] | None,
    damp: float,
) -> dict[str, MakeCode]:
    """For each matrix of a block, what makes its code; one pass over the calibration text at most."""
    plain = partial(UniformCode.from_dense, bits=bits, axis=0, group_size=group)
    if method in ("rtn", *ACTIVATIONS):
        return dict.fromkeys(names, plain)
    if method == "nf4":
        return dict.fromkeys(names, partial(_nf4, group=group))
    if method == "magnitude":
        prune = partial(_prune, method=method, H=None, sparsity=sparsity, nm=nm, damp=damp)
        return dict.fromkeys(names, prune)
    if method == "awq":
        inputs = collect_inputs(model, names, batches, max_rows=MAX_ROWS)
        return {name: partial(_awq, inputs=inputs[name], make_code=plain) for name in names}
    H = _moments(model, names, batches)
    if method == "gptq":
        return {name: partial(_gptq, H=H[name], bits=bits, group=group, damp=damp) for name in names}
    return {
        name: partial(_prune, method=method, H=H[name], sparsity=sparsity, nm=nm, damp=damp) for name in names
    }


def _moments(model: GPT, names: list[str], batches: list) -> dict[str, Tensor]:
    """`input_moments`, with q, k and v, which read the same input, counted once."""
    distinct = [name for name in names if not name.endswith((".k", ".v"))]
    H = input_moments(model, distinct, batches)
    return {name: H[name[: -len("k")] + "q"] if name.endswith((".k", ".v")) else H[name] for name in names}


def _nf4(weight: Tensor, group: int | None) -> NF4Code:
    return NF4Code.from_dense(weight, weight.shape[1] if group is None else group)


def _awq(weight: Tensor, inputs: Tensor, make_code: MakeCode) -> WeightCode:
    found = search_awq(weight, inputs, make_code)
    if found.alpha == 0:
        return make_code(weight)
    return InputScaledCode.from_dense(weight, found.input_scale, make_code)


def _gptq(weight: Tensor, H: Tensor, bits: int, group: int | None, damp: float) -> UniformCode:
    q, grid = gptq(weight, H, bits, axis=0, group_size=group, damp=damp)
    return UniformCode.from_rows(q, grid, weight.shape)


def _prune(
    weight: Tensor,
    method: str,
    H: Tensor | None,
    sparsity: float | None,
    nm: tuple[int, int] | None,
    damp: float,
) -> SparseCode:
    """The code of a pruned matrix: one bit per weight for where, 16 bits for what is left."""
    if method == "sparsegpt":
        weight = sparsegpt_prune(weight, H, sparsity=sparsity, nm=nm, damp=damp)[0].float()
    else:
        if method == "wanda":
            mask = wanda_mask(weight, H.diagonal().sqrt(), sparsity=sparsity, nm=nm)
        else:
            mask = magnitude_mask(weight, sparsity) if nm is None else nm_mask(weight, *nm)
        weight = weight * mask
    return SparseCode.from_dense(weight, partial(DenseCode.from_dense, dtype=torch.float16))


def _check(
    method: str,
    bits: int | None,
    group: int | None,
    batches: Batches | None,
    sparsity: float | None,
    nm: tuple[int, int] | None,
    rest_bits: int,
) -> int:
    """The bits to use, if the arguments fit the method."""
    if method not in ROUNDING + PRUNING:
        raise ValueError(f"method must be one of {', '.join(ROUNDING + PRUNING)}, got {method!r}")
    if batches is None and method not in NO_DATA:
        raise ValueError(f'"{method}" needs calibration text: give batches')
    check_int("rest_bits", rest_bits, 2, 8)
    if method in PRUNING:
        if (sparsity is None) == (nm is None):
            raise ValueError(f"give exactly one of sparsity and nm, got sparsity={sparsity} and nm={nm}")
        if sparsity is not None:
            check_fraction("sparsity", sparsity)
        if bits is not None:
            raise ValueError(f'"{method}" keeps 16 bits for what it does not drop, got bits={bits}')
        return 16
    if sparsity is not None or nm is not None:
        raise ValueError(f'"{method}" drops no weights, got sparsity={sparsity} and nm={nm}')
    if method == "nf4" and bits not in (None, 4):
        raise ValueError(f"NF4 has 4 bits, got bits={bits}")
    if group is not None:
        check_int("group", group, 1)
    return check_int("bits", (8 if method in ACTIVATIONS else 4) if bits is None else bits, 2, 8)
