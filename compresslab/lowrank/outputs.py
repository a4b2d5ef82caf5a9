"""What layers put out, and what happens to it next: a batch norm, a ReLU, or something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from compresslab.core.calibrate import Batches, find_layers
from compresslab.core.train import evaluating

RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d)  # in eval mode they give back the tensor that they got
ONLY_RELU = ({"relu"}, {"batch norm", "relu behind it"})


def sample_outputs(
    model: nn.Module, names: Iterable[str], batches: Batches, max_rows: int, seed: int
) -> tuple[dict[str, Tensor], dict[str, Behind]]:
    """Rows of what named layers put out, and what follows each of them, in eval mode.

    Args:
        model: the network; it is left as it was.
        names: of linear layers and convolutions.
        batches: input tensors (N, ...), or pairs whose first item is one.
        max_rows: positions to draw from each output, without replacement. Which ones depends on the seed and
            the shapes alone: two networks are asked at the same positions.
        seed: of that draw.

    Returns:
        name -> (rows, channels) float64, in the order in which the layers are called; name -> ``Behind``.

    Raises:
        ValueError: an unknown name, or no output of a layer.
    """
    layers = find_layers(model, names)
    rows: dict[str, list[Tensor]] = {}
    follow = _Follow(layers)

    def keep(name: str, layer: nn.Module, output: Tensor) -> None:
        parts = rows.setdefault(name, [])
        found = output.detach().movedim(1 if isinstance(layer, nn.Conv2d) else -1, -1).flatten(0, -2)
        drawn = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed + len(parts)))
        parts.append(found[drawn[:max_rows].to(found.device)].double())
        follow.start(name, output)

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: keep(name, layer, output))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model), follow:
            for batch in batches:
                follow.end(model(batch if isinstance(batch, Tensor) else batch[0]))
    finally:
        for hook in hooks:
            hook.remove()
    missing = [name for name in layers if not sum(map(len, rows.get(name, ())))]
    if missing:
        raise ValueError(f"no calibration data reaches layer '{missing[0]}': no batch, or it is not called")
    return {name: torch.cat(parts) for name, parts in rows.items()}, follow.behind


class Behind:
    """What first happens to the outputs of a layer: a batch norm (``scale`` and ``shift``), a ReLU.

    ``uses`` is all that happens to them: a ReLU beside a skip connection forgives nothing.
    """

    def __init__(self, channels: int):
        self.scale, self.shift = torch.ones(channels), torch.zeros(channels)
        self.uses: set[str] = set()

    @property
    def rectified(self) -> bool:
        """Whether all that is ever seen of the outputs is what a ReLU leaves of them."""
        return self.uses in ONLY_RELU

    def see_batch_norm(
        self, _: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
        weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
        momentum: float = 0.1, eps: float = 1e-5,
    ) -> bool:  # fmt: skip
        """Take the arguments of ``F.batch_norm``; False if it is no fixed map, as it looks at the batch.

        A channel with a scale of almost 0 is not quite lost.
        """
        if training or running_mean is None:
            return False
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight.detach())
        self.shift = (0 if bias is None else bias.detach()) - running_mean * scale
        least = (1e-3 * scale.abs().max()).clamp(min=1e-12)
        self.scale = torch.where(scale.abs() < least, least, scale)
        return True


class _Follow(TorchFunctionMode):
    """Inside, watches which functions use the outputs of layers; ``start`` says which tensors these are."""

    def __init__(self, layers: Mapping[str, nn.Module]):
        super().__init__()
        self.behind = {name: Behind(len(layer.weight)) for name, layer in layers.items()}
        # id -> the layer, whether a batch norm came between, the tensor (kept, so that its id stays its own)
        self.followed: dict[int, tuple[str, bool, Tensor]] = {}

    def start(self, name: str, output: Tensor, normed: bool = False) -> None:
        self.followed[id(output)] = name, normed, output

    def end(self, result: object) -> None:
        """Forget all tensors; what the network itself gives back is used, too."""
        for name, _, _ in self._found([result]):
            self.behind[name].uses.add("result")
        self.followed.clear()

    def _found(self, values: Iterable) -> list[tuple[str, bool, Tensor]]:
        """Those of the values, and of the values in lists, tuples and dictionaries, that are followed."""
        found = []
        for value in values:
            if isinstance(value, (list, tuple, dict)):
                found += self._found(value.values() if isinstance(value, dict) else value)
            elif isinstance(value, Tensor) and id(value) in self.followed:
                found.append(self.followed[id(value)])
        return found

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        used = self._found([*args, *(kwargs or {}).values()])
        result = func(*args, **(kwargs or {}))
        if isinstance(result, (Tensor, list, tuple)) and not isinstance(result, torch.Size):
            for name, normed, tensor in used:  # a shape or a device is no use
                self._note(name, normed, tensor, func, args, kwargs or {}, result)
        return result

    def _note(
        self, name: str, normed: bool, tensor: Tensor,
        func: Callable, args: tuple, kwargs: dict, result: object,
    ) -> None:  # fmt: skip
        behind = self.behind[name]
        if func in DROPOUTS and result is tensor:
            return
        if func in RELUS:
            behind.uses.add("relu behind it" if normed else "relu")
            if result is tensor:  # in place: from now on the tensor is something else
                self.followed.pop(id(tensor), None)
        elif func is F.batch_norm and not normed and behind.see_batch_norm(*args, **kwargs):
            behind.uses.add("batch norm")
            self.start(name, result, normed=True)
        else:
            behind.uses.add(getattr(func, "__name__", str(func)))
