r"""Depth that varies: blocks dropped in training (stochastic depth, LayerDrop), and blocks removed for good.

Stochastic depth trains a short network and tests the deep one: it costs no less afterwards. LayerDrop makes
the same move for another end: a network that has seen its blocks missing can *lose* some of them, and
`prune_depth` returns the network that is really smaller.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.modules import map_layers


def survival_probabilities(blocks: int, last: float = 0.5) -> list[float]:
    r"""How likely each residual block takes part in a training step, falling along a line.

    .. math:: p_l = 1 - \frac l L (1 - p_L), \qquad l = 1 \dots L

    Early blocks make the features that all later ones use, so they are dropped less often.

    Args:
        blocks: :math:`L`, at least 1.
        last: :math:`p_L`, of the last block, in [0, 1].

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Q. Weinberger, "Deep Networks with Stochastic Depth",
        ECCV 2016, section 3.

    Example:
        >>> survival_probabilities(4, last=0.5)
        [0.875, 0.75, 0.625, 0.5]
    """
    check_int("blocks", blocks, 1)
    drop = 1 - check_fraction("last", last)
    return [1 - block / blocks * drop for block in range(1, blocks + 1)]


def expected_depth(blocks: int, last: float = 0.5) -> float:
    r"""How many blocks a training step uses on average.

    .. math:: \mathbb E[\tilde L] = \sum_{l=1}^{L} p_l = L - \frac{L + 1}{2} (1 - p_L)

    Args: of `survival_probabilities`.
    Source: Huang et al., ECCV 2016, section 3; the sum is written out here.

    Example:
        >>> expected_depth(54, last=0.5)  # a ResNet of 110 layers; about three quarters
        40.25
    """
    check_int("blocks", blocks, 1)
    return blocks - (blocks + 1) / 2 * (1 - check_fraction("last", last))


class StochasticDepth(nn.Module):
    r"""The end of a residual branch: the branch is there or not, by the toss of a coin.

    .. math:: H_l = \mathrm{ReLU}(b_l\, f_l(H_{l-1}) + H_{l-1}), \quad b_l \sim \mathrm{Bernoulli}(p_l)
              \qquad\text{in training}

    .. math:: H_l = \mathrm{ReLU}(p_l\, f_l(H_{l-1}) + H_{l-1}) \qquad\text{at test}

    This layer is the factor before :math:`f_l`. ``torchvision.ops.StochasticDepth`` is told the probability
    to *drop*, :math:`1 - p_l`, and divides by :math:`p_l` in training instead of multiplying at test; that is
    ``inverted=True`` here. After training, the two differ by a factor that the branch has learned to include.

    Args:
        survival: :math:`p_l`, in [0, 1]; positive where ``inverted``.
        mode: "batch", one coin for the batch as in the paper, or "row", one for each image.
        inverted: divide by :math:`p_l` in training, and do nothing at test.

    Shape: any; the batch comes first. Coins come from torch's global generator, as those of dropout do.

    Raises:
        TypeError, ValueError: ``survival`` is no fraction, or 0 where it divides; another ``mode``.

    Source: Huang et al., ECCV 2016, section 3.

    Example:
        >>> StochasticDepth(0.75).eval()(torch.tensor([8.0])).item()
        6.0
        >>> StochasticDepth(0.75, inverted=True).eval()(torch.tensor([8.0])).item()
        8.0
    """

    def __init__(self, survival: float, mode: str = "batch", inverted: bool = False):
        super().__init__()
        self.survival = check_fraction("survival", survival)
        if mode not in ("batch", "row"):
            raise ValueError(f"mode must be 'batch' or 'row', got {mode!r}")
        if inverted and survival == 0:
            raise ValueError("survival must be positive where the branch is divided by it, got 0")
        self.mode, self.inverted = mode, inverted

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x if self.inverted else x * self.survival
        rows = len(x) if self.mode == "row" else 1
        coins = x.new_empty(rows, *[1] * (x.ndim - 1)).bernoulli_(self.survival)
        return x * (coins / self.survival if self.inverted else coins)

    def extra_repr(self) -> str:
        return f"survival={self.survival:g}, mode={self.mode!r}, inverted={self.inverted}"


class LayerDrop(nn.Module):
    r"""A residual block that is skipped altogether in a fraction of the training steps, and never at test.

    .. math:: y = \begin{cases} x & \text{with probability } p \text{ in training} \\ \mathrm{block}(x) &
              \text{otherwise} \end{cases}

    A skipped block is not computed. Its output is not rescaled, because at test, too, it is there or not.

    Args:
        block: a module that keeps the shape of its input.
        drop: :math:`p`, in [0, 1].

    Source: A. Fan, E. Grave, A. Joulin, "Reducing Transformer Depth on Demand with Structured Dropout",
        ICLR 2020, section 3.

    Example:
        >>> block = LayerDrop(nn.Flatten(), drop=1.0)
        >>> block(torch.zeros(2, 3, 4)).shape, block.eval()(torch.zeros(2, 3, 4)).shape
        (torch.Size([2, 3, 4]), torch.Size([2, 12]))
    """

    def __init__(self, block: nn.Module, drop: float):
        super().__init__()
        self.block, self.drop = block, check_fraction("drop", drop)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()) < self.drop:
            return x
        return self.block(x)

    def extra_repr(self) -> str:
        return f"drop={self.drop:g}"


def residual_branches(model: nn.Module) -> list[str]:
    """The names of the last layers of the residual branches, in order: where `StochasticDepth` belongs.

    A block of this package, or of `compresslab.models`, says that it has a shortcut by the attribute
    ``residual``, or by a child ``shortcut``; the branch is its other children in their order.

    Example:
        >>> from compresslab.models import ResNet
        >>> residual_branches(ResNet(depth=8))
        ['stage1.0.bn2', 'stage2.0.bn2', 'stage3.0.bn2']
    """
    ends = []
    for name, block in model.named_modules():
        if _is_residual(block) or isinstance(getattr(block, "shortcut", None), nn.Module):
            children = [child for child, _ in block.named_children()]
            branch = [child for child in children if child not in ("shortcut", "activation")]
            ends.append(f"{name}.{branch[-1]}".lstrip("."))
    return ends


def removable_blocks(model: nn.Module) -> list[str]:
    """The names of the blocks that the identity can stand in for: their shortcut is the identity.

    Example:
        >>> from compresslab.models import ResNet
        >>> removable_blocks(ResNet(depth=14))  # the first blocks of stages 2 and 3 change the shape
        ['stage1.0', 'stage1.1', 'stage2.1', 'stage3.1']
    """
    found = {}
    for name, module in model.named_modules():
        block = module.block if isinstance(module, LayerDrop) else module
        if _is_residual(block) and id(block) not in found:
            found[id(block)] = name
    return list(found.values())


def add_stochastic_depth(model: nn.Module, last: float = 0.5, inverted: bool = False) -> nn.Module:
    """Return a copy whose residual branches survive with `survival_probabilities`, for training from scratch.

    Args:
        model: a network with residual blocks, see `residual_branches`.
        last: survival of the last branch, in [0, 1].
        inverted: see `StochasticDepth`.

    Raises:
        ValueError: the model has no residual branch, or ``last`` is no fraction.

    Source: Huang et al., ECCV 2016.
    Differs: the branch is computed and multiplied by 0, so that no time is saved in training.

    Example:
        >>> from compresslab.models import ResNet
        >>> add_stochastic_depth(ResNet(depth=8), last=0.7).stage1[0].bn2[1].survival
        0.9
    """
    names = residual_branches(model)
    if not names:
        raise ValueError(f"{type(model).__name__} has no residual block, so that nothing can be dropped")
    survival = dict(zip(names, survival_probabilities(len(names), last), strict=True))

    def extend(name: str, layer: nn.Module) -> nn.Module | None:
        if name not in survival:
            return None
        return nn.Sequential(layer, StochasticDepth(survival[name], inverted=inverted)).train(layer.training)

    return map_layers(model, nn.Module, extend)


def layer_drop(model: nn.Module, drop: float = 0.2, layers: Sequence[str] | None = None) -> nn.Module:
    """Return a copy that trains with dropped blocks, so that `prune_depth` can take some away afterwards.

    Args:
        model: a network with residual blocks.
        drop: fraction of the training steps in which a block is missing, in [0, 1].
        layers: names of blocks; None for all `removable_blocks`.

    Raises:
        TypeError, ValueError: ``drop`` is no fraction; a name that is no removable block.

    Source: Fan et al., ICLR 2020, section 3.

    Example:
        >>> from compresslab.models import ResNet
        >>> type(layer_drop(ResNet(depth=14), 0.5).stage1[1]).__name__
        'LayerDrop'
    """
    check_fraction("drop", drop)
    chosen = _check_names("layers", removable_blocks(model) if layers is None else layers, model)

    def wrap(name: str, block: nn.Module) -> nn.Module | None:
        return LayerDrop(block, drop).train(block.training) if name in chosen else None

    return map_layers(model, nn.Module, wrap)


def every_other(names: Sequence[str], drop: float) -> list[str]:
    r"""Blocks to remove, spread evenly, so that no two neighbours go while there is a choice.

    .. math:: \{d : \lfloor d\,p \rfloor > \lfloor (d - 1)\,p \rfloor\}, \qquad d = 1 \dots L

    For :math:`p = 1/k` these are the multiples of :math:`k`, the rule of the paper.

    Args:
        names: of blocks, in the model's order.
        drop: :math:`p`, the fraction to remove, in [0, 1].

    Returns:
        :math:`\lfloor p L \rfloor` of the names.

    Source: Fan et al., ICLR 2020, section 3 ("every other").
    Differs: any fraction, not only those of the form 1/k.

    Example:
        >>> every_other(["a", "b", "c", "d", "e"], 0.5)
        ['b', 'd']
    """
    check_fraction("drop", drop)
    before = [int(position * drop + 1e-9) for position in range(len(names) + 1)]  # 0.29 * 100 < 29 in floats
    return [name for name, low, high in zip(names, before, before[1:], strict=False) if high > low]


def prune_depth(model: nn.Module, remove: Sequence[str] = ()) -> nn.Module:
    """Return a smaller copy without the named blocks, and without any `LayerDrop`.

    The identity takes the place of a removed block, so that the other layers keep their names.

    Args:
        model: a network with residual blocks, best trained with `layer_drop`.
        remove: names from `removable_blocks`, such as those of `every_other`.

    Raises:
        ValueError: a name that is no removable block; the message lists those that are.

    Source: Fan et al., ICLR 2020, section 3.

    Example:
        >>> from compresslab.models import ResNet
        >>> sum(p.numel() for p in prune_depth(ResNet(depth=14), ["stage3.1"]).parameters())
        101274
    """
    gone = _check_names("remove", remove, model)

    def replace(name: str, block: nn.Module) -> nn.Module | None:
        if name in gone:
            return nn.Identity().train(block.training)
        return block.block if isinstance(block, LayerDrop) else None

    return map_layers(model, nn.Module, replace)


def _is_residual(block: nn.Module) -> bool:
    """Whether the block adds its very input to what it computes."""
    shortcut = getattr(block, "shortcut", None)
    return getattr(block, "residual", False) is True or isinstance(shortcut, nn.Identity)


def _check_names(argument: str, names: Sequence[str], model: nn.Module) -> set[str]:
    if isinstance(names, str):
        raise ValueError(f"{argument} must be a list of names, got the string {names!r}; write [{names!r}]")
    allowed = removable_blocks(model)
    for name in names:
        if name not in allowed:
            raise ValueError(
                f"{argument} names no removable block: {name!r}; such are {', '.join(allowed) or 'none'}"
            )
    return set(names)
