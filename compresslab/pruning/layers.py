"""Layer removal: take out whole residual blocks.

A residual block computes ``x + f(x)``. Without ``f`` it is the identity, so a network survives the loss
of a block as it does not survive the loss of a layer in a chain. The network gets shallower, which
saves time even where narrow layers do not.
"""

from collections.abc import Collection, Iterable

from torch import Tensor, fx, nn

from compresslab.core.errors import check_int
from compresslab.core.modules import map_layers
from compresslab.core.train import Loss, cross_entropy, evaluating

from .channel_tracing import function_name


def residual_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks that compute ``g(x + f(x))`` on their own input ``x``, outermost first.

    A block whose shortcut is a projection is none: without it the shapes change.

    Args:
        model: any network. Blocks that ``torch.fx`` cannot trace are not found; name them yourself.

    Example:
        >>> import compresslab, torchvision
        >>> residual_blocks(torchvision.models.resnet18(weights=None))
        ['layer1.0', 'layer1.1', 'layer2.1', 'layer3.1', 'layer4.1']
    """
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(block + ".") for block in found)
        plain = isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) or module is model
        if not (inside or plain) and next(module.children(), None) is not None and _adds_its_input(module):
            found.append(name)
    return found


def _adds_its_input(block: nn.Module) -> bool:
    try:
        graph = fx.Tracer().trace(block)
    except Exception:  # whatever tracing meets: this is a question, not a demand
        return False
    stream = {next(node for node in graph.nodes if node.op == "placeholder")}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(block.get_submodule(node.target), nn.Identity):
            stream |= {node} if node.args[0] in stream else set()
        name = function_name(node.target)
        operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
        if name in ("add", "iadd") and not stream.isdisjoint(operands):
            return True
    return False


def remove_layers(model: nn.Module, names: Collection[str], example_input: Tensor) -> nn.Module:
    """Copy of ``model`` with the named modules replaced by the identity.

    Args:
        model: any network; not changed.
        names: modules whose output has the shape of their input.
        example_input: an input (N, ...) on which the shapes are checked.

    Raises:
        ValueError: an unknown name, one inside another, a module that is not called with one tensor, or
            one that changes the shape.
    """
    if isinstance(names, str):
        raise ValueError(f"names must be a collection of names, got the string {names!r}; write [{names!r}]")
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules or modules[name] is model:
            raise ValueError(f"the model has no module '{name}' that can be removed")
        outer = next((other for other in names if name.startswith(other + ".")), None)
        if outer is not None:
            raise ValueError(f"module '{name}' is inside '{outer}', which is removed, too")
    _check_shapes(model, {name: modules[name] for name in names}, example_input)
    chosen = {id(modules[name]) for name in names}
    by_name = {name for name, module in modules.items() if id(module) in chosen}
    return map_layers(model, nn.Module, lambda name, module: nn.Identity() if name in by_name else None)


def _check_shapes(model: nn.Module, blocks: dict[str, nn.Module], example_input: Tensor) -> None:
    called: set[str] = set()

    def check(name: str, inputs: tuple, output: object) -> None:
        called.add(name)
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            kind = "it is not a function of one tensor to one tensor"
            raise ValueError(f"module '{name}' cannot be removed: {kind}")
        before, after = tuple(inputs[0].shape), tuple(output.shape)
        if before != after:
            raise ValueError(f"module '{name}' cannot be removed: it turns shape {before} into {after}")

    hooks = [
        block.register_forward_hook(lambda _, inputs, output, name=name: check(name, inputs, output))
        for name, block in blocks.items()
    ]
    try:
        with evaluating(model):
            model(example_input)
    finally:
        for hook in hooks:
            hook.remove()
    missed = [name for name in blocks if name not in called]
    if missed:
        raise ValueError(f"module '{missed[0]}' is not called in eval mode, so its shapes are unknown")


def ablation_importance(
    model: nn.Module,
    names: Collection[str],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss: Loss = cross_entropy,
) -> dict[str, float]:
    r"""How much the loss rises when each block alone is removed.

    .. math:: s_b=L(\text{without }b)-L

    No approximation: the effect itself, measured one block at a time. It may be negative. What it cannot
    see is two blocks that stand in for each other: each alone seems useless.

    Args:
        model: the network; not changed, run in eval mode.
        names: blocks, as from :func:`residual_blocks`.
        batches: pairs (x, y).
        loss: from (model, x, y) to a scalar, averaged over the batch.

    Returns:
        name -> rise of the mean loss.

    Source: A. Veit, M. Wilber, S. Belongie, "Residual Networks Behave Like Ensembles of Relatively
        Shallow Networks", NeurIPS 2016, section 4.1, who delete single blocks and measure the error.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("no data: batches is empty")
    whole = _mean_loss(model, batches, loss)
    example = batches[0][0][:1]
    return {name: _mean_loss(remove_layers(model, [name], example), batches, loss) - whole for name in names}


def prune_layers(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], count: int, *, loss: Loss = cross_entropy
) -> nn.Module:
    """Copy of ``model`` without the ``count`` residual blocks that matter least.

    How much they matter is measured anew after each removal.

    Args:
        model: a network with residual blocks; not changed.
        batches: pairs (x, y), to measure the loss on.
        count: how many blocks go.
        loss: from (model, x, y) to a scalar.

    Raises:
        ValueError: the network has fewer than ``count`` residual blocks; no data.
    """
    blocks, batches = residual_blocks(model), list(batches)
    check_int("count", count, 0, len(blocks))
    for _ in range(count):
        rise = ablation_importance(model, blocks, batches, loss=loss)
        least = min(rise, key=rise.get)
        model = remove_layers(model, [least], batches[0][0][:1])
        blocks.remove(least)
    return model


def _mean_loss(model: nn.Module, batches: list[tuple[Tensor, Tensor]], loss: Loss) -> float:
    with evaluating(model):
        total = sum(loss(model, x, y).double().item() * len(x) for x, y in batches)
    return total / sum(len(x) for x, _ in batches)
