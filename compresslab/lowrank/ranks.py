r"""How many ranks a layer deserves: by the energy that they keep, or by a budget that all layers share.

The same share of energy in every layer is easy and wrong: layers differ in what a rank costs. Under a budget
the question is a knapsack with one choice per layer,

.. math:: \min_{k_1, k_2, \ldots} \sum_l \frac{\sum_{i > k_l} \sigma_{l,i}^2}{\sum_i \sigma_{l,i}^2}
          \quad \text{s.t.} \quad \sum_l c_l(k_l) \le B

where leaving a layer alone is one of its choices: it loses nothing and costs what it costs today.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core.errors import check_fraction, check_int, naming
from compresslab.core.macs import count_macs
from compresslab.core.modules import bake, named_layers
from compresslab.core.train import device_of, evaluating

from .convolution import Pixels, count_pixels, factored_macs, kernel_matrix, pair_scheme
from .decompose import Rank, bound_layers, can_decompose
from .svd import check_moments, check_singular_values
from .tucker import hosvd

UNITS = ("macs", "parameters")
STEPS = 50_000  # in which what must be saved is counted, at most


class Choice(NamedTuple):
    """One way to store a layer: its rank (None: as it is), its cost, and its relative squared error."""

    rank: Rank | None
    cost: int
    error: float


def energy_rank(singular_values: Tensor, energy: float) -> int:
    r"""The smallest rank that keeps a share of the energy.

    .. math:: \min \Big\{ k : \sum_{i \le k} \sigma_i^2 \ge e \sum_i \sigma_i^2 \Big\}

    Args:
        singular_values: :math:`\sigma` (r,), in descending order, at least one.
        energy: e, a fraction in [0, 1].

    Returns:
        k, 1 to r: rank 0 is no layer. A share of 1 keeps whatever is not zero to rounding.

    Raises:
        TypeError, ValueError: no fraction, or no singular values in descending order.

    Example:
        >>> energy_rank(torch.tensor([3.0, 2.0, 1.0]), 0.9)  # 9 + 4 of 14 is 0.93
        2
    """
    check_fraction("energy", energy)
    check_singular_values(singular_values)
    kept = singular_values.double().square().cumsum(0)
    enough = kept >= energy * kept[-1] * (1 - 1e-12)
    return int(enough.int().argmax()) + 1


def ranks_for_budget(
    model: nn.Module,
    example: Sequence[int] | Tensor,
    fraction: float,
    *,
    unit: str = "macs",
    scheme: str = "channel",
    moments: Mapping[str, Tensor] | None = None,
    multiple_of: int = 1,
    skip: Collection[str] = (),
) -> dict[str, Rank]:
    r"""The ranks that lose least while the whole network costs at most a fraction of what it does.

    Args:
        model: any network; run once, on a copy.
        example: the shape of one input without the batch axis, or a batch, as for ``count_macs``.
        fraction: of the present cost of the *whole* model, in [0, 1]: what cannot be decomposed (biases,
            batch norm, grouped convolutions, layers whose weight something else reads (``bound_layers``),
            the layers in ``skip``) costs what it did.
        unit: "macs" or "parameters".
        scheme: of the convolutions: "channel", "input", "spatial", or "tucker" (two ranks each).
        moments: layer -> :math:`XX^\top` (``core.calibrate.input_moments``): then the relative error is that
            of the responses, :math:`\|(W - W_k)X\|^2 / \|WX\|^2`. Only for "channel".
        multiple_of: ranks are multiples of this (or, Tucker's, all channels): 8 or 16 suits fast kernels.
        skip: layers to leave alone.

    Returns:
        layer -> rank for ``decompose``, in the model's order; for "tucker" (outputs, inputs). A layer that is
        better left alone, or would only get dearer, is absent.

    Raises:
        TypeError, ValueError: an argument out of its range, an unknown layer in ``skip``, moments that are
            missing or of another shape, or a budget that not even the smallest ranks meet (the message says
            what they need).

    Source:
        the idea of one budget for all layers: X. Zhang, J. Zou, K. He, J. Sun, "Accelerating Very Deep
        Convolutional Networks for Classification and Detection", 2016, on rank selection.
    Differs: they maximise the product of the layers' PCA energies, greedily; here the sum of what is lost is
        minimised, which is the same to first order.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 10, bias=False))
        >>> model[0].weight.data = torch.diag(torch.tensor([1.0] * 8 + [0.0] * 56))
        >>> ranks_for_budget(model, (64,), 0.5, multiple_of=4)  # rank 8 says all, the other layer stays
        {'0': 8}
    """
    check_fraction("fraction", fraction)
    check_int("multiple_of", multiple_of, 1)
    _check_options(unit, scheme, moments)
    layers = _candidates(model, skip)
    if unit == "macs":
        total, pixels = count_macs(model, example).total, _pixels(model, layers, example)
    else:
        total, pixels = sum(p.numel() for p in bake(model).parameters()), dict.fromkeys(layers, Pixels())
    choices = {
        name: layer_choices(
            bake(layers[name]), scheme, seen, multiple_of, _moments_of(moments, name, layers[name])
        )
        for name, seen in pixels.items()
    }
    fixed = total - sum(options[0].cost for options in choices.values())
    least = fixed + sum(min(option.cost for option in options) for options in choices.values())
    if least > fraction * total:
        raise ValueError(
            f"fraction {fraction:g} of the {unit} is out of reach: the least ranks leave {least / total:.4f}"
        )
    return choose_ranks(choices, fraction * total - fixed)


def layer_choices(
    layer: nn.Linear | nn.Conv2d,
    scheme: str = "channel",
    pixels: Pixels = Pixels(),
    multiple_of: int = 1,
    moments: Tensor | None = None,
) -> list[Choice]:
    """Every sensible way to store a layer: as it is, then all ranks that are cheaper, none of them dominated.

    Args:
        layer: without groups or parametrizations.
        scheme, multiple_of, moments: as for ``ranks_for_budget``, the moments of this layer.
        pixels: from ``count_pixels``; one each (the default) counts parameters.

    Example:
        >>> layer = nn.Linear(3, 3, bias=False)
        >>> layer.weight.data = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
        >>> layer_choices(layer)
        [Choice(rank=None, cost=9, error=0.0), Choice(rank=1, cost=6, error=0.1)]
    """
    dense = Choice(None, layer.weight.numel() * pixels.outputs, 0.0)
    if scheme == "tucker" and isinstance(layer, nn.Conv2d):
        return [dense, *_tucker_choices(layer, pixels, multiple_of, dense.cost)]
    energy = _energies(layer, scheme, moments)
    lost = _tails(energy)
    per_rank = factored_macs(layer, 1, "channel" if scheme == "tucker" else scheme, pixels)
    ranks = range(multiple_of, min(len(lost), math.ceil(dense.cost / per_rank)), multiple_of)
    return [dense, *(Choice(k, k * per_rank, lost[k]) for k in ranks)]


def choose_ranks(choices: Mapping[str, Sequence[Choice]], budget: float) -> dict[str, Rank]:
    r"""The choices of least total error whose costs sum to at most a budget, by dynamic programming.

    .. math:: f_l(s) = \min_{j} \; e_{l,j} + f_{l-1}\big(\max(s - s_{l,j}, 0)\big)

    is the least error of the first l layers that save at least s, where choice j of layer l saves
    :math:`s_{l,j}`. Exact if what must be saved is at most ``STEPS`` times the costs' greatest common
    divisor; beyond that savings are rounded down to a ``STEPS``-th of it, so that the budget is always kept.

    Args:
        choices: layer -> its choices, from ``layer_choices``.
        budget: in the unit of their costs.

    Returns:
        layer -> rank; layers whose best choice is to stay (rank None) are absent.

    Raises:
        ValueError: not even the cheapest choices fit.

    Example:
        >>> a = [Choice(None, 10, 0.0), Choice(1, 4, 0.2)]
        >>> b = [Choice(None, 10, 0.0), Choice(2, 6, 0.3), Choice(1, 3, 0.4)]
        >>> choose_ranks({"a": a, "b": b}, 14), choose_ranks({"a": a, "b": b}, 13)
        ({'a': 1}, {'b': 1})
    """
    savings = {name: np.array([row[0].cost - option.cost for option in row]) for name, row in choices.items()}
    need = math.ceil(sum(row[0].cost for row in choices.values()) - budget)
    least = sum(min(option.cost for option in row) for row in choices.values())
    if least > budget:
        raise ValueError(f"no choice fits a budget of {budget:g}: the cheapest cost {least}")
    if need <= 0:
        return {}
    divisor = int(np.gcd.reduce(np.concatenate(list(savings.values()))))
    unit = divisor * math.ceil(need / (divisor * STEPS))
    steps = -(-need // unit)
    f, picks = np.full(steps + 1, np.inf), []  # and the choice behind every value of f
    f[0] = 0.0
    for name, row in choices.items():
        before, f, pick = f, np.full(steps + 1, np.inf), np.zeros(steps + 1, dtype=int)
        for j, saved in enumerate(savings[name] // unit):
            free = min(saved, steps)
            offer = np.concatenate([np.full(free, before[0]), before[: steps + 1 - free]]) + row[j].error
            better = offer < f
            f[better], pick[better] = offer[better], j
        picks.append(pick)
    if np.isinf(f[steps]):  # only rounding stands in the way: the cheapest choices are enough
        chosen = {name: row[int(savings[name].argmax())] for name, row in choices.items()}
    else:
        chosen, left = {}, steps
        for name, pick in zip(reversed(choices), reversed(picks), strict=True):
            chosen[name] = choices[name][pick[left]]
            left = max(left - int(savings[name][pick[left]] // unit), 0)
    return {name: chosen[name].rank for name in choices if chosen[name].rank is not None}


def _energies(layer: nn.Linear | nn.Conv2d, scheme: str, moments: Tensor | None) -> Tensor:
    """Squared singular values of the layer's matrix, or of its responses, descending."""
    weight = layer.weight.detach().double()
    if moments is not None:
        matrix = weight.flatten(1)
        return torch.linalg.eigvalsh(matrix @ moments.to(matrix) @ matrix.T).clamp(min=0).flip(0)
    matrix = weight if weight.ndim == 2 else kernel_matrix(weight, scheme)
    return torch.linalg.svdvals(matrix).square()


def _tails(energy: Tensor) -> list[float]:
    """For every rank from 0 to all: the share of the energy that it leaves out."""
    tails = torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)])
    return (tails / tails[0]).tolist() if tails[0] > 0 else tails.tolist()


def _tucker_choices(conv: nn.Conv2d, pixels: Pixels, multiple_of: int, dense: int) -> list[Choice]:
    """The undominated pairs of ranks: the core of the full HOSVD holds the error of every pair at once."""
    n, c, size = conv.out_channels, conv.in_channels, math.prod(conv.kernel_size)
    full = min(n, c * size), min(c, n * size)
    core = hosvd(conv.weight, full).core.square().sum((2, 3))  # (R_out, R_in)
    kept = core.cumsum(0).cumsum(1)
    lost = (1 - kept / kept[-1, -1]).clamp(min=0) if kept[-1, -1] > 0 else torch.zeros_like(kept)
    o, i = torch.meshgrid(*(_ranks(most, multiple_of) for most in full), indexing="ij")
    cost = (i * c * pixels.inputs + (i * o * size + o * n) * pixels.outputs).flatten()
    order = torch.from_numpy(np.lexsort((lost[o - 1, i - 1].flatten(), cost)))  # by cost, then by error
    cost, error = cost[order], lost[o - 1, i - 1].flatten()[order]
    least = torch.cat([error.new_full((1,), math.inf), error.cummin(0).values[:-1]])  # of all cheaper ones
    good = (error < least) & (cost < dense)
    pairs = torch.stack([o.flatten(), i.flatten()], 1)[order][good].tolist()
    return [
        Choice(tuple(pair), *rest)
        for pair, *rest in zip(pairs, cost[good].tolist(), error[good].tolist(), strict=True)
    ]


def _ranks(most: int, multiple_of: int) -> Tensor:
    """The multiples up to ``most``, and ``most`` itself."""
    return torch.tensor([r for r in range(1, most + 1) if r % multiple_of == 0 or r == most])


def _moments_of(moments: Mapping[str, Tensor] | None, name: str, layer: nn.Module) -> Tensor | None:
    if moments is None:
        return None
    if name not in moments:
        raise ValueError(f"moments has nothing for layer '{name}'; collect them for every layer, or skip it")
    with naming(name):
        check_moments(moments[name], layer.weight.flatten(1).shape[1])
    return moments[name]


def _check_options(unit: str, scheme: str, moments: Mapping[str, Tensor] | None) -> None:
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    if scheme != "tucker":
        pair_scheme(scheme)
    if moments is not None and scheme != "channel":
        raise ValueError(f"moments are of the inputs of whole kernels: scheme 'channel', got {scheme!r}")


def _candidates(model: nn.Module, skip: Collection[str]) -> dict[str, nn.Module]:
    """The layers that factors can replace."""
    bound = bound_layers(model)
    return {
        name: layer
        for name, layer in named_layers(model, skip=skip).items()
        if can_decompose(layer) and id(layer) not in bound
    }


def _pixels(
    model: nn.Module, layers: Mapping[str, nn.Module], example: Sequence[int] | Tensor
) -> dict[str, Pixels]:
    """For each layer that is called: the pixels (a linear layer: the rows) of one image, in all its calls."""
    x = example if isinstance(example, Tensor) else torch.zeros(1, *example)
    counts: dict[str, np.ndarray] = {}

    def see(name: str, layer: nn.Module, inputs: tuple) -> None:
        if isinstance(layer, nn.Linear):
            seen = np.full(3, inputs[0].numel() // layer.in_features)
        else:
            images = inputs[0].numel() // math.prod(inputs[0].shape[-3:])
            seen = images * np.array(count_pixels(layer, tuple(inputs[0].shape[-2:])))
        counts[name] = counts.get(name, 0) + seen

    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: see(name, layer, inputs))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            model(x.to(device_of(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: Pixels(*(counts[name] // len(x)).tolist()) for name in layers if name in counts}
