r"""Different bit widths for different layers: the best split of a budget of bits.

Layers differ in how much an error in their weights hurts (``sensitivity``) and in how many weights they have.
If the costs of layers add up, choosing a width for each is a knapsack: ``allocate_bits`` solves it exactly,
``allocate_greedy`` nearly; the sum itself is the assumption to doubt.
"""

from collections.abc import Mapping
from functools import partial

from torch import nn

from compresslab.core.errors import check_int
from compresslab.core.knapsack import check_budget, choose_within_budget
from compresslab.core.layers import encode
from compresslab.quantization.sensitivity import PER_CHANNEL, Errors, MakeBits, check_errors


def allocate_bits(errors: Errors, sizes: Mapping[str, int], budget_bits: int) -> dict[str, int]:
    r"""The bit widths of least total error within a budget: exact, by integer linear programming.

    .. math:: \min_{x \in \{0, 1\}} \sum_{l, b} x_{lb}\, \Omega_l(b) \quad \text{s.t.} \quad
              \sum_b x_{lb} = 1, \quad \sum_{l, b} n_l\, b\, x_{lb} \le B

    Args:
        errors: layer -> bits -> :math:`\Omega`; layers may offer different widths. Only differences matter.
        sizes: layer -> :math:`n_l`, the number of weights.
        budget_bits: B, for the weights alone: scales, zero points and biases are not in it.

    Returns:
        layer -> bits, in the order of ``errors``.

    Raises:
        TypeError: ``budget_bits`` is no whole number.
        ValueError: the budget is too small, and the message says the least that is enough; no layer; a layer
            without widths or size; an error that is not finite.

    Source:
        Z. Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021 (widths by integer linear
        programming).

    Example:
        >>> errors = {"a": {2: 9.0, 4: 1.0}, "b": {2: 5.0, 4: 0.0}}
        >>> allocate_bits(errors, {"a": 10, "b": 10}, budget_bits=60)
        {'a': 4, 'b': 2}
    """
    costs = _check_allocation(errors, sizes, budget_bits)
    return choose_within_budget(errors, costs, budget_bits)


def allocate_greedy(errors: Errors, sizes: Mapping[str, int], budget_bits: int) -> dict[str, int]:
    """Start at the fewest bits, then buy whatever lowers the error most per bit, as long as it fits.

    Fast and usually close, but an early purchase can stand in the way of a better one.

    Args, returns and errors as in ``allocate_bits``.

    Example:
        >>> errors = {"a": {2: 3.0, 4: 0.0}, "b": {2: 10.0, 4: 0.0}}
        >>> allocate_greedy(errors, {"a": 1, "b": 10}, budget_bits=42)  # a first; b no longer fits
        {'a': 4, 'b': 2}
    """
    _check_allocation(errors, sizes, budget_bits)
    chosen = {layer: min(row) for layer, row in errors.items()}
    left = budget_bits - sum(sizes[layer] * b for layer, b in chosen.items())
    while True:
        offers = []
        for layer, row in errors.items():
            for b, error in row.items():
                gain, price = row[chosen[layer]] - error, sizes[layer] * (b - chosen[layer])
                if gain > 0 and 0 < price <= left:
                    offers.append((gain / price, gain, layer, b, price))
        if not offers:
            return chosen
        _, _, layer, b, price = max(offers)
        chosen[layer], left = b, left - price


def encode_mixed(
    model: nn.Module, bits_by_layer: Mapping[str, int], make_code: MakeBits = PER_CHANNEL
) -> nn.Module:
    """Store each named layer with its own number of bits; other layers stay as they are.

    Args:
        model: any network; it is not changed.
        bits_by_layer: layer -> bits, from ``allocate_bits``.
        make_code: (weight, bits=b) -> code; a symmetric grid per output channel by default, of 2 to 8 bits.

    Raises:
        TypeError, ValueError: an unknown layer, or a width that ``make_code`` refuses; the message names the
            layer.

    Example:
        >>> model = encode_mixed(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)), {"0": 8, "1": 3})
        >>> model[0].coded.bits, model[1].coded.bits
        (8, 3)
    """
    return encode(model, {name: partial(make_code, bits=b) for name, b in bits_by_layer.items()})


def _check_allocation(errors: Errors, sizes: Mapping[str, int], budget_bits: int) -> Errors:
    """The bits of every choice; raise unless the arguments make sense and the budget can be met."""
    check_errors(errors, sizes)
    check_int("budget_bits", budget_bits, 1)
    costs = {layer: {b: sizes[layer] * b for b in row} for layer, row in errors.items()}
    check_budget(costs, budget_bits, "bits")
    return costs
