"""What one image costs in energy: a model of operations and memory traffic, not a measurement.

    E = MACs (e_mult + e_add)  +  weight bits e_level(weights)  +  activation bits e_level(activations)

The prices are those of one chip technology, 45 nm at 0.9 V. Newer chips are cheaper in every line; what
carries over is the order of magnitude between the lines: fetching a 32-bit weight from DRAM costs about as
much as 140 float32 MACs. So the bytes that a network has to move matter more than what it computes, unless
every weight is used many times, as in a convolution.

What is left out: instructions, control, registers, leakage, and the caches in between. Every weight is
fetched once per image, and every activation is written once and read once, as if the rest stayed on the chip;
a real machine moves more. Use the model to see which term is large, never to state what a device draws.

Source: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, the table of
    rough energy costs (figure 1.1.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compresslab.core.macs import count_macs, plain
from compresslab.core.modules import WEIGHT_LAYERS
from compresslab.core.train import device_of, evaluating

ADD_PJ = {"int8": 0.03, "int32": 0.1, "float16": 0.4, "float32": 0.9}  # picojoules each, Horowitz 2014
MULTIPLY_PJ = {"int8": 0.2, "int32": 3.1, "float16": 1.1, "float32": 3.7}  # the same table
ACCESS_BITS = 64  # the width of one access in that table
ACCESS_PJ = {  # one access of 64 bits, the same table
    "sram_8k": 10.0,
    "sram_32k": 20.0,
    "sram_1m": 100.0,
    "dram": 1300.0,  # the low end of the table's 1.3 to 2.6 nJ
    "dram_high": 2600.0,
}


@dataclass(frozen=True)
class EnergyReport:
    """Picojoules of one image, by where they go."""

    compute_pj: float
    weights_pj: float
    activations_pj: float

    @property
    def total_pj(self) -> float:
        """The sum of the three."""
        return self.compute_pj + self.weights_pj + self.activations_pj

    @property
    def memory_share(self) -> float:
        """The fraction of the energy that moves numbers instead of computing with them, in [0, 1]."""
        return (self.weights_pj + self.activations_pj) / self.total_pj if self.total_pj else 0.0


def mac_energy(kind: str) -> float:
    """Picojoules of one multiply-accumulate in "int8", "int32", "float16" or "float32" arithmetic.

    int8 products are added up in 32 bits, because 8 would overflow.

    Raises:
        ValueError: an unknown kind.
    Example:
        >>> round(mac_energy("float32"), 2), round(mac_energy("int8"), 2)
        (4.6, 0.3)
    """
    if kind not in MULTIPLY_PJ:
        raise ValueError(f"arithmetic must be one of {', '.join(MULTIPLY_PJ)}, got {kind!r}")
    return MULTIPLY_PJ[kind] + ADD_PJ["int32" if kind == "int8" else kind]


def access_energy(bits: float, level: str) -> float:
    """Picojoules to move some bits once between a memory and the arithmetic.

        bits / 64 * price of one access: small numbers share an access

    Args:
        bits: how many, >= 0.
        level: a key of `ACCESS_PJ`: "sram_8k", "sram_32k", "sram_1m", "dram" or "dram_high".
    Raises:
        ValueError: an unknown level, or a negative number of bits.
    Example:
        >>> access_energy(32, "dram"), access_energy(32, "sram_8k")
        (650.0, 5.0)
    """
    if level not in ACCESS_PJ:
        raise ValueError(f"memory level must be one of {', '.join(ACCESS_PJ)}, got {level!r}")
    if not bits >= 0:
        raise ValueError(f"bits must be 0 or more, got {bits:g}")
    return bits / ACCESS_BITS * ACCESS_PJ[level]


def energy(
    macs: float,
    weights: float,
    activations: float,
    *,
    weight_bits: float = 32,
    activation_bits: float = 32,
    arithmetic: str = "float32",
    weights_from: str = "dram",
    activations_in: str = "sram_1m",
) -> EnergyReport:
    """The energy of a layer or a network, from its counts.

    Args:
        macs: multiply-accumulates of one image.
        weights: numbers that are fetched, once each.
        activations: numbers that are read or written, each time counted.
        weight_bits, activation_bits: of one number as it is moved, > 0; a mean where codes differ in length.
        arithmetic: see `mac_energy`. A 4-bit code is computed with as what it is decoded to.
        weights_from, activations_in: memory levels, see `access_energy`.
    Raises:
        ValueError: a negative count, bits that are not positive, an unknown arithmetic or level.
    Example:
        >>> report = energy(1000, 100, 20)  # 100 weights, each used ten times
        >>> round(report.compute_pj), report.weights_pj, report.activations_pj
        (4600, 65000.0, 1000.0)
    """
    for name, value in (("macs", macs), ("weights", weights), ("activations", activations)):
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, got {value:g}")
    for name, value in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value:g}")
    return EnergyReport(
        macs * mac_energy(arithmetic),
        access_energy(weights * weight_bits, weights_from),
        access_energy(activations * activation_bits, activations_in),
    )


def energy_per_image(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    weight_bits: float = 32,
    activation_bits: float = 32,
    arithmetic: str | None = None,
    weights_from: str = "dram",
    activations_in: str = "sram_1m",
) -> EnergyReport:
    """The energy of one image through a network: a model, not a measurement (see the head of this file).

    Counted are the MACs of `core.macs.count_macs`, every parameter once, and the inputs and outputs of the
    layers with weights: what activation functions, pooling and normalisation move is taken to be fused with
    them.

    Args:
        model: any network; a coded one counts as the dense network that it stands for, so say its
            `weight_bits`.
        input_shape: of one image, such as (3, 32, 32).
        weight_bits: stored bits per parameter, > 0: 8 * file bytes / parameters, for a pruned or coded
            network.
        activation_bits: of every activation, > 0.
        arithmetic: see `mac_energy`; None: int8 where weights and activations have at most 8 bits, float16 at
            most 16, else float32.
        weights_from, activations_in: memory levels, see `access_energy`.
    Raises:
        ValueError: as `energy`.
    Example:
        >>> report = energy_per_image(nn.Linear(100, 10, bias=False), (100,))  # 1000 weights, 110 activations
        >>> round(report.compute_pj), report.weights_pj, report.activations_pj
        (4600, 650000.0, 5500.0)
    """
    dense = plain(model)
    if arithmetic is None:
        bits = max(weight_bits, activation_bits)
        arithmetic = "int8" if bits <= 8 else "float16" if bits <= 16 else "float32"
    return energy(
        count_macs(dense, tuple(input_shape)).total,
        sum(parameter.numel() for parameter in dense.parameters()),
        moved_activations(dense, input_shape),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        arithmetic=arithmetic,
        weights_from=weights_from,
        activations_in=activations_in,
    )


def moved_activations(model: nn.Module, input_shape: Sequence[int]) -> int:
    """The numbers that the layers with weights read and write for one image, over all their calls."""
    moved = 0

    def hook(layer: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal moved
        moved += sum(value.numel() for value in (*inputs, output) if isinstance(value, Tensor))

    layers = [layer for layer in model.modules() if isinstance(layer, WEIGHT_LAYERS)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with evaluating(model):
            model(torch.zeros(1, *input_shape, device=device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return moved
