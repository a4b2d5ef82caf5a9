"""What every layer can be turned into, measured: pairs of a sparsity and a bit width, their bytes and harm.

What a choice costs is no formula here: the layer is compressed so, and the bytes are those that its code
takes in a file, Huffman-coded, with its lines in the header. ``joint_search`` chooses from such a table.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from compresslab.core.codes import CodebookCode, WeightCode, check_weight
from compresslab.core.errors import check_fraction, check_int, naming, where
from compresslab.core.layers import decompress, encode
from compresslab.core.measure import file_size
from compresslab.core.modules import bake, named_layers
from compresslab.core.sparse import GapSparseCode, SparseCode
from compresslab.data import Split
from compresslab.pruning.magnitude import magnitude_mask
from compresslab.quantization.sensitivity import mean_loss

Setting = tuple[float, int]  # (sparsity, bits)
Settings = dict[str, Setting]
MakeValues = Callable[..., WeightCode]  # (values, bits=b) -> code


@dataclass(frozen=True)
class Option:
    """One way to store one layer: what it costs, what it harms, and the code itself.

    Attributes:
        bytes: what the code takes in a file: its arrays, Huffman-coded, and its lines in the header.
        error: what the compression of this layer alone costs; higher is worse, comparable between layers.
        code: the layer's code, for ``apply_settings``; None in tables made by hand.
    """

    bytes: int
    error: float
    code: WeightCode | None = field(default=None, repr=False, compare=False)


Options = Mapping[str, Mapping[Setting, Option]]


def prune_and_code(
    weight: Tensor, sparsity: float, bits: int, *, make_values: MakeValues = CodebookCode.from_dense
) -> WeightCode:
    """Drop the smallest weights, and store the others with ``bits`` bits each: what an option is made of.

    The positions are gaps where at least half of the weights are zero, else a mask: about what is smaller
    once it is Huffman-coded. Without a zero in the weight no positions are stored at all.

    Args:
        weight: any shape.
        sparsity: fraction in [0, 1] of the weights to drop, by magnitude.
        bits: of the values that are left.
        make_values: (values, bits=b) -> code of the values; a k-means codebook by default.

    Example:
        >>> prune_and_code(torch.tensor([0.1, 3.0, -0.2, 4.0]), 0.5, 1).decode()
        tensor([0., 3., 0., 4.])
    """
    check_fraction("sparsity", sparsity)
    weight = check_weight(weight)
    left = torch.where(magnitude_mask(weight, sparsity), weight, 0.0)
    zeros = int((left == 0).sum())
    if not zeros:
        return make_values(left, bits=bits)
    form = GapSparseCode if 2 * zeros >= weight.numel() else SparseCode
    return form.from_dense(left, partial(make_values, bits=bits))


def code_bytes(code: WeightCode, name: str = "weight") -> int:
    """The bytes of a file with this code alone, under a name, above those of a file with nothing in it."""
    holder = nn.Sequential(OrderedDict({name.replace(".", "_") or "weight": code}))
    return file_size(holder, entropy=True) - file_size(nn.Sequential(), entropy=True)


@torch.no_grad()
def layer_options(
    model: nn.Module,
    data: Split | Mapping[str, Tensor],
    sparsities: Collection[float],
    bits: Collection[int],
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    make_code: Callable[[Tensor, float, int], WeightCode] = prune_and_code,
) -> dict[str, dict[Setting, Option]]:
    r"""Compress every layer in every way, by itself, and measure what that costs.

    Args:
        model: the trained network; it is not changed.
        data: validation images: the error is the rise of the loss with this one layer compressed. Or layer ->
            second moments of its inputs :math:`M = X X^\top` (``core.input_moments``): the error is that of
            the layer's outputs, :math:`\mathrm{tr}(\Delta M \Delta^\top)`; no pass over the data is needed.
        sparsities: fractions in [0, 1].
        bits: widths that ``make_code`` takes.
        only, skip: names of layers, as in ``named_layers``.
        make_code: (weight, sparsity, bits) -> code.

    Returns:
        layer -> (sparsity, bits) -> ``Option``.

    Raises:
        TypeError, ValueError: no layer, sparsity or width; one out of range; an unknown layer; moments that
            are missing or do not fit. The message names the layer.

    Source:
        K. Wang, Z. Liu, Y. Lin, J. Lin, S. Han, "HAQ: Hardware-Aware Automated Quantization with Mixed
        Precision", CVPR 2019, and T. Wang et al., "APQ: Joint Search for Network Architecture, Pruning and
        Quantization Policy", CVPR 2020, for a search under the measured cost of every choice.
    """
    settings = _checked_settings(sparsities, bits)
    layers = named_layers(model, only=only, skip=skip)
    if not layers:
        raise ValueError("there is no Linear, Conv1d or Conv2d layer to compress")
    plain = bake(model)
    batches = [(x, y) for x, y in data.batches(512)] if isinstance(data, Split) else []
    base = mean_loss(plain, batches) if batches else 0.0

    def error(name: str, code: WeightCode) -> float:
        if not isinstance(data, Split):
            return _output_error(code.decode() - plain.get_submodule(name).weight, data.get(name))
        return mean_loss(decompress(encode(plain, {name: lambda _: code})), batches) - base

    options: dict[str, dict[Setting, Option]] = {name: {} for name in layers}
    for name, row in options.items():
        weight = plain.get_submodule(name).weight.detach()
        with naming(name):
            for sparsity, width in settings:
                code = make_code(weight, sparsity, width)
                row[sparsity, width] = Option(code_bytes(code, name), error(name, code), code)
    return options


def _checked_settings(sparsities: Collection[float], bits: Collection[int]) -> list[Setting]:
    settings = [(check_fraction("sparsity", s), check_int("bits", b, 1)) for s in sparsities for b in bits]
    if not settings:
        raise ValueError("sparsities and bits must name at least one value each, got none")
    return settings


def _output_error(change: Tensor, moments: Tensor | None) -> float:
    r""":math:`\mathrm{tr}(\Delta M \Delta^\top)`."""
    delta = change.flatten(1).double()
    if moments is None or moments.shape != (delta.shape[1],) * 2:
        got = "none" if moments is None else tuple(moments.shape)
        raise ValueError(f"there must be moments of shape {(delta.shape[1],) * 2}, got {got}")
    return float(((delta @ moments.double()) * delta).sum())


def file_budget(model: nn.Module, options: Options, budget_bytes: int) -> int:
    """What a budget for the whole file leaves for the codes: biases, norms and most of the header come off.

    Whatever settings fit into what is left, the file of ``apply_settings`` keeps ``budget_bytes``. A few
    bytes stay unused: the header's numbers may take a digit more, and it is filled up to a multiple of 8.

    Args:
        model: the network that the options are of.
        options: from ``layer_options``.
        budget_bytes: the most that the file may take.

    Raises:
        ValueError: not even the cheapest settings fit; the message says the smallest budget that can be met.
    """
    check_int("budget_bytes", budget_bytes, 1)
    costs = option_bytes(options)
    dearest = {layer: max(row, key=row.get) for layer, row in costs.items()}
    whole = file_size(apply_settings(model, dearest, options=options), entropy=True)
    rest = whole - sum(costs[layer][setting] for layer, setting in dearest.items())
    spare = 8 * (len(costs) + 1) + 16  # each measured size is filled up to 8; "huffman" may come in
    room = budget_bytes - rest - spare
    least = sum(min(row.values()) for row in costs.values())
    if room < least:
        smallest = least + rest + spare
        raise ValueError(
            f"a file of {budget_bytes} bytes cannot be met; the smallest that surely can is {smallest}"
        )
    return room


def option_bytes(options: Options) -> dict[str, dict[Setting, int]]:
    """Layer -> setting -> bytes, after the table has been checked.

    Raises:
        ValueError: no layer, a layer without options, an error that is not finite, or bytes below 0.
    """
    if not options:
        raise ValueError("options must name at least one layer, got none")
    for layer, row in options.items():
        if not row:
            raise ValueError(f"options must offer at least one setting, got none{where(layer)}")
        for setting, option in row.items():
            check_int("bytes", option.bytes, 0, layer=layer)
            if not math.isfinite(option.error):
                raise ValueError(f"errors must be finite, got {option.error} at {setting}{where(layer)}")
    return {layer: {s: option.bytes for s, option in row.items()} for layer, row in options.items()}


def settings_bytes(options: Options, settings: Settings) -> int:
    """What the codes of these settings take together.

    Raises:
        ValueError: a layer without a setting, or one that its options do not offer.
    """
    for layer, row in options.items():
        if settings.get(layer) not in row:
            offered = ", ".join(map(str, row))
            raise ValueError(f"the setting must be one of {offered}, got {settings.get(layer)}{where(layer)}")
    return sum(row[settings[layer]].bytes for layer, row in options.items())


def settings_error(options: Options, settings: Settings) -> float:
    """The errors of the single layers, added up: what ``allocate`` believes."""
    settings_bytes(options, settings)
    return math.fsum(row[settings[layer]].error for layer, row in options.items())


def apply_settings(
    model: nn.Module, settings: Settings, *, options: Options | None = None
) -> nn.Module:
    """Store every named layer with its own sparsity and bits; other layers stay as they are.

    Args:
        model: any network; it is not changed.
        settings: layer -> (sparsity, bits).
        options: if given, the codes that were measured there are used, which is quick. None codes the
            weights of ``model`` anew: right after a fine-tuning.

    Raises:
        TypeError, ValueError: an unknown layer, or a setting that cannot be; the message names the layer.

    Example:
        >>> model = apply_settings(nn.Sequential(nn.Linear(8, 4)), {"0": (0.5, 2)})
        >>> int((model[0].weight == 0).sum()), len(model[0].weight.unique())
        (16, 5)
    """
    if options is None:
        return encode(model, {layer: partial(_with, setting) for layer, setting in settings.items()})
    settings_bytes({layer: options.get(layer, {}) for layer in settings}, settings)
    codes = {layer: options[layer][setting].code for layer, setting in settings.items()}
    return encode(model, {layer: lambda _, code=code: code for layer, code in codes.items()})


def _with(setting: Setting, weight: Tensor) -> WeightCode:
    return prune_and_code(weight, *setting)
