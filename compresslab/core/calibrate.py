"""What flows through the layers of a network: inputs, their second moments, their norms; outputs.

Data-aware methods (Wanda, SparseGPT, ThiNet, GPTQ, whitened SVD) need these, and all of them write a layer as
``Y = W X`` with one input vector per column of ``X``. A convolution is brought to that form by unfolding: each
output position contributes the patch it sees.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compresslab.core.errors import check_names
from compresslab.core.train import evaluating

Batches = Iterable[Tensor | tuple[Tensor, Tensor]]


def input_rows(layer: nn.Module, x: Tensor, *, name: str = "") -> Tensor:
    """Bring one batch of inputs of a layer to rows, so that ``rows @ weight.flatten(1).T`` is its output.

    Args:
        layer: ``nn.Linear`` or an ungrouped ``nn.Conv1d`` / ``nn.Conv2d``.
        x: (..., in_features) for a linear layer, (N, C, L) or (N, C, H, W) for a convolution.

    Returns:
        (rows, in_features), or (N * positions, in_channels * kernel size).

    Raises:
        TypeError: another layer type.
        ValueError: a grouped convolution, whose outputs do not share one input matrix.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, layer.in_features)
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        raise TypeError(f"inputs are collected for Linear, Conv1d and Conv2d, got {type(layer).__name__} in layer '{name}'")
    if layer.groups != 1:
        raise ValueError(f"inputs of a grouped convolution form no single matrix, got groups={layer.groups} in layer '{name}'")
    if layer._reversed_padding_repeated_twice and any(layer._reversed_padding_repeated_twice):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    if isinstance(layer, nn.Conv1d):
        x = x.unsqueeze(2)
    lift = (1,) * (2 - len(layer.kernel_size))  # a 1-d convolution is a 2-d one of height 1
    patches = F.unfold(x, lift + layer.kernel_size, dilation=lift + layer.dilation, stride=lift + layer.stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def find_layers(
    model: nn.Module, names: Iterable[str], types: tuple[type, ...] = (nn.Module,)
) -> dict[str, nn.Module]:
    """The layers of these names, in their order.

    Raises:
        ValueError: a name that the model does not have; says which it has. A string instead of a collection.
        TypeError: a layer of none of the types.
    """
    check_names("layers", names)
    known = dict(model.named_modules())
    found = {}
    for name in names:
        if name not in known:
            raise ValueError(f"the model has no layer {name!r}; it has {', '.join(filter(None, known)) or 'none'}")
        if not isinstance(known[name], types):
            allowed = " or ".join(kind.__name__ for kind in types)
            raise TypeError(f"this must be {allowed}, got {type(known[name]).__name__} in layer '{name}'")
        found[name] = known[name]
    return found


@contextmanager
def watch(model: nn.Module, layers: Iterable[str], *, inputs: bool = False) -> Iterator[dict[str, Tensor]]:
    """Inside, a dictionary keeps the latest output of every named layer, gradients attached.

    It is the tensor itself: a layer behind it that works in place, such as ``nn.ReLU(inplace=True)``, changes it.

    Args:
        model: the network; its hooks are gone afterwards.
        layers: names as in ``model.named_modules()``.
        inputs: keep the first input of each layer instead of its output.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.ReLU())
        >>> with watch(model, ["1"]) as outputs:
        ...     _ = model(torch.tensor([[[-1.0, 2.0]]]))
        >>> outputs
        {'1': tensor([[0., 2.]])}
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        if inputs:
            return lambda layer, args, output: seen.__setitem__(name, args[0])
        return lambda layer, args, output: seen.__setitem__(name, output)

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in find_layers(model, layers).items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _run(model: nn.Module, layers: Iterable[str], batches: Batches, see: Callable[[str, Tensor], None]) -> None:
    """Run the model in eval mode over the batches and hand ``see`` the input rows of every named layer."""
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, args, name=name: see(name, input_rows(layer, args[0].detach(), name=name))
        )
        for name, layer in find_layers(model, layers).items()
    ]
    ran = False
    try:
        with evaluating(model):
            for batch in batches:
                x = batch if isinstance(batch, Tensor) else batch[0]
                model(x)
                ran = ran or len(x) > 0
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise ValueError("no calibration data: batches is empty, or its batches are")


def collect_inputs(
    model: nn.Module, layers: Iterable[str], batches: Batches, *, max_rows: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Collect the inputs of named layers as rows, in eval mode; the model is left as it was.

    Args:
        model: the network.
        layers: names as in ``model.named_modules()``.
        batches: input tensors (N, ...), or pairs whose first item is one.
        max_rows: keep at most this many rows of each layer and batch, drawn without replacement.
        seed: of that draw.

    Returns:
        name -> (rows, in_features); for a convolution (rows, in_channels * kernel size).

    Raises:
        TypeError: a named layer is no Linear, Conv1d or Conv2d.
        ValueError: an unknown name, a grouped convolution, or no batch.
    """
    generator = torch.Generator().manual_seed(seed)
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str, rows: Tensor) -> None:
        if max_rows is not None and len(rows) > max_rows:
            rows = rows[torch.randperm(len(rows), generator=generator)[:max_rows]]
        seen.setdefault(name, []).append(rows.clone())

    _run(model, layers, batches, keep)
    return {name: torch.cat(parts) for name, parts in seen.items()}


def input_moments(model: nn.Module, layers: Iterable[str], batches: Batches) -> dict[str, Tensor]:
    r"""Second moments of the inputs of named layers, :math:`H = XX^\top`, without keeping the inputs.

    This ``H`` is the Hessian of the layer-wise error :math:`\tfrac12\|WX - \hat WX\|_F^2` in each row of the weight.

    Returns:
        name -> (in, in) float64, a sum over all rows (not a mean).

    Raises:
        TypeError, ValueError: as :func:`collect_inputs`.
    """
    moments: dict[str, Tensor] = {}

    def add(name: str, rows: Tensor) -> None:
        rows = rows.double()
        moments[name] = moments.get(name, 0) + rows.T @ rows

    _run(model, layers, batches, add)
    return moments


def input_norms(model: nn.Module, layers: Iterable[str], batches: Batches) -> dict[str, Tensor]:
    r"""Euclidean norm of every input feature over the data, :math:`\|X_j\|_2`: the square root of the diagonal of H.

    Returns:
        name -> (in,) float64.

    Raises:
        TypeError, ValueError: as :func:`collect_inputs`.
    """
    squares: dict[str, Tensor] = {}

    def add(name: str, rows: Tensor) -> None:
        squares[name] = squares.get(name, 0) + rows.double().square().sum(0)

    _run(model, layers, batches, add)
    return {name: total.sqrt() for name, total in squares.items()}
