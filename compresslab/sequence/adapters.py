r"""QLoRA: a frozen 4-bit network, and a few numbers on top that learn.

.. math:: y = \hat W x + \frac{\alpha}{r} B A x, \qquad \hat W = \text{NF4}(W), \quad
          \text{only } A, B \text{ learn}

Training a network in the usual way keeps, for every weight, the weight, its gradient and two averages of
AdamW. Here the weights have four bits and no gradient, and all the rest is kept for the adapters only. The
base is the same for every task, so a new task costs one small file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from compresslab.core.codes import MakeCode, WeightCode
from compresslab.core.layers import CodedLinear, encode
from compresslab.core.modules import as_parameter, map_layers
from compresslab.core.size import storage_bits
from compresslab.lowrank.lora import LoRALinear, add_lora
from compresslab.quantization.nf4 import NF4Code
from compresslab.sequence.gpt import GPT, block_layers


def qlora(
    model: GPT,
    rank: int = 4,
    *,
    group: int = 64,
    double: bool = True,
    alpha: float | None = None,
    make_code: MakeCode | None = None,
    seed: int = 0,
) -> GPT:
    """Copy of a GPT with frozen, coded matrices in its blocks, and an adapter on each; nothing else learns.

    Matrices that are coded already stay as they are, so the base may come from `compress_gpt`. Train it by
    `train_language`, which leaves frozen parameters alone. At first it computes what the coded network
    computes, because B is zero.

    Args:
        model: a GPT, plain or coded.
        rank: r of every adapter. alpha: its factor is alpha / r; None for 1.
        group: weights that share a scale in NF4; it must divide the inputs of every matrix.
        double: NF4's scales are quantized as well.
        make_code: another code for the matrices that are not coded yet, such as
            `partial(UniformCode.from_dense, bits=2, axis=0, group_size=32)`; group and double are not used
            then.
        seed: of A.

    Raises:
        TypeError, ValueError: a rank, alpha or group out of range (the message names the layer), or adapters
            that are there already.

    Source: T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized
        LLMs", NeurIPS 2023, section 3.
    Differs: embeddings and the output layer stay as they are, frozen; computed in float32, without paged
        optimizers.

    Example:
        >>> from compresslab.lowrank import trainable_parameters
        >>> adapted = qlora(GPT(width=8, layers=1), rank=1, group=8)
        >>> trainable_parameters(adapted), adapted.blocks[0].up.layer.coded  # 4 (8 + 8) + 2 (8 + 32)
        (144, NF4Code(shape=(32, 8)))
    """
    make_code = make_code or partial(NF4Code.from_dense, group_size=group, double=double)
    names = block_layers(model)
    plain = [name for name in names if not isinstance(model.get_submodule(name), (CodedLinear, LoRALinear))]
    coded = encode(model, make_code, only=plain) if plain else model
    return add_lora(coded, rank, alpha=alpha, only=names, seed=seed)


def extract_adapters(model: nn.Module) -> dict[str, Tensor]:
    """What a task adds to the frozen base: A and B of every adapter, by name, as copies.

    Example:
        >>> list(extract_adapters(qlora(GPT(width=8, layers=1), rank=1, group=8)))[:2]
        ['blocks.0.q.a', 'blocks.0.q.b']
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}
    arrays = {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in "ab"}
    return {name: array.detach().clone() for name, array in arrays.items()}


def insert_adapters(model: nn.Module, adapters: Mapping[str, Tensor]) -> nn.Module:
    """Copy of a model whose adapters hold other numbers: the same base, another task.

    Args:
        model: with adapters, as `qlora` makes it. adapters: as from `extract_adapters`, of the same shapes.

    Raises:
        ValueError: names or shapes that are not those of the model's adapters.
    """
    own = extract_adapters(model)
    if odd := own.keys() ^ adapters.keys():
        raise ValueError(f"the adapters must be those of the model; {min(odd)!r} is in one of the two only")
    for name, tensor in own.items():
        if adapters[name].shape != tensor.shape:
            shapes = tuple(tensor.shape), tuple(adapters[name].shape)
            raise ValueError(f"{name!r} must have shape {shapes[0]}, got {shapes[1]}")

    def exchange(name: str, layer: LoRALinear) -> None:
        for part in "ab":
            setattr(layer, part, as_parameter(adapters[f"{name}.{part}"].detach().clone()))

    return map_layers(model, LoRALinear, exchange)


def remove_adapters(model: nn.Module) -> nn.Module:
    """Copy of a model without its adapters: the frozen, coded base, as it was before the task."""
    return map_layers(model, LoRALinear, lambda name, layer: layer.layer)


def bits_per_weight(model: nn.Module) -> float:
    """Stored bits of all coded weights in a model, scales included, divided by their number.

    Example:
        >>> import torch
        >>> weight = torch.randn(64, 256)
        >>> single, double = (NF4Code.from_dense(weight, double=double) for double in (False, True))
        >>> bits_per_weight(single), round(bits_per_weight(double), 3)
        (4.5, 4.129)

    Raises:
        ValueError: no coded weight.
    """
    codes = [module for module in model.modules() if isinstance(module, WeightCode)]
    inner = {part for code in codes for part in code.modules() if part is not code}
    codes = [code for code in codes if code not in inner]
    if not codes:
        raise ValueError("the model has no coded weight")
    return sum(map(storage_bits, codes)) / sum(code.numel for code in codes)
