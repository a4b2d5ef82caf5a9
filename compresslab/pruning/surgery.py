r"""Dynamic network surgery: prune while training, and put weights back that turn out to be needed.

Ordinary pruning is final: a masked weight gets no gradient, so it can never prove itself. Here the forward
pass uses the masked weight, but the update goes to the weight behind the mask. It keeps moving, and when it
has grown large it returns.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.modules import Mask, bake
from compresslab.pruning.masks import mask_layers, masks_of, weight_layers


def surgery_mask(weight: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    r"""One step of pruning and splicing, with hysteresis between two thresholds.

    .. math:: T_{k+1} = \begin{cases} 0 & |w| < a \\ T_k & a \le |w| < b \\ 1 & |w| \ge b \end{cases}

    The gap keeps a weight near a threshold from flickering. With ``a = b`` this is a plain threshold.

    Args:
        weight: the weight *behind* the mask, any shape.
        mask: :math:`T_k`, bool, same shape.
        low: ``a``, at least 0.
        high: ``b``, at least ``a``.

    Returns:
        :math:`T_{k+1}`, bool.

    Raises:
        ValueError: the thresholds are not ordered.

    Source: Y. Guo, A. Yao, Y. Chen, "Dynamic Network Surgery for Efficient DNNs", NeurIPS 2016, equation 3.

    Example:
        >>> weight, mask = torch.tensor([0.1, 0.5, 0.5, 0.9]), torch.tensor([True, True, False, False])
        >>> surgery_mask(weight, mask, 0.4, 0.6)
        tensor([False,  True, False,  True])
    """
    if not 0 <= low <= high:
        raise ValueError(f"thresholds must satisfy 0 <= low <= high, got low={low:g} and high={high:g}")
    size = weight.detach().abs()
    return (size >= high) | (mask & (size >= low))


class SurgeryMask(Mask):
    r"""A mask that gradients pass: forward :math:`w \odot T`, backward as if it were the identity.

    So the optimizer does :math:`w \leftarrow w - \eta\, \partial L / \partial (w \odot T)` for all ``w``.

    Args:
        mask: bool, the weight's shape.
        low, high: the thresholds ``a`` and ``b`` of :func:`surgery_mask`.
    """

    def __init__(self, mask: Tensor, low: float, high: float):
        super().__init__(mask)
        self.low, self.high = low, high

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (super().forward(weight) - weight).detach()

    def update_(self, weight: Tensor) -> None:
        """Prune and splice by the size of ``weight``, the weight behind the mask."""
        self.mask = surgery_mask(weight, self.mask, self.low, self.high)


def prepare_surgery(
    model: nn.Module,
    *,
    strictness: float = 0.5,
    margin: float = 0.1,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    r"""Copy of ``model`` with surgery masks, thresholds set from each layer's weights.

    .. math:: a = (1 - \epsilon)(\mu + c\,\sigma), \qquad b = (1 + \epsilon)(\mu + c\,\sigma)

    with mean :math:`\mu` and standard deviation :math:`\sigma` of :math:`|w|` in the layer, fixed here once.

    Args:
        model: a trained network. Masks it has are taken as zeros; its weights may come back.
        strictness: ``c``; larger prunes more.
        margin: :math:`\epsilon` in [0, 1], half the width of the gap; 0 is a plain threshold.
        only, skip: names of layers to operate on, or to leave dense.

    Returns:
        The patient, to be trained with :class:`NetworkSurgery` and discharged by :func:`finish_surgery`.

    Raises:
        ValueError: a margin outside [0, 1], an unknown layer name, no layer left.

    Source: Guo, Yao, Chen, NeurIPS 2016, section 3.2; the form of ``a`` and ``b`` is that of the authors'
    program.
    Differs: one ``c`` for all layers; the paper tunes one each.
    """
    check_fraction("margin", margin)
    model = bake(model)
    for layer in weight_layers(model, only, skip).values():
        size = layer.weight.detach().abs()
        threshold = max((size.mean() + strictness * size.std(correction=0)).item(), 0.0)
        mask = SurgeryMask(torch.ones_like(size), (1 - margin) * threshold, (1 + margin) * threshold)
        mask.update_(layer.weight)
        parametrize.register_parametrization(layer, "weight", mask)
    return model


@dataclass(frozen=True)
class NetworkSurgery:
    """Prune and splice during training, as an ``after_step`` callback of ``core.train.train``.

    Args:
        until: last optimizer step at which masks may change; training after it settles the survivors.
        every: operate every so many steps.

    Raises:
        ValueError: ``until`` below 0, ``every`` below 1; or, when called, a model that was not prepared.

    Source: Guo, Yao, Chen, NeurIPS 2016, algorithm 1.
    Differs: the paper operates at random steps with a falling probability; a fixed interval is easier to
    follow.
    """

    until: int
    every: int = 1

    def __post_init__(self):
        check_int("until", self.until, 0)
        check_int("every", self.every, 1)

    def __call__(self, model: nn.Module, step: int) -> None:
        """Update all surgery masks of ``model`` in place, if ``step`` is an operating step."""
        if step > self.until or step % self.every:
            return
        lists = [m for m in model.modules() if isinstance(m, parametrize.ParametrizationList)]
        found = [(p, chain.original) for chain in lists for p in chain if isinstance(p, SurgeryMask)]
        if not found:
            raise ValueError("the model has no surgery masks; call prepare_surgery first")
        for mask, weight in found:
            mask.update_(weight)


def finish_surgery(model: nn.Module) -> nn.Module:
    """Copy of ``model`` whose masks are final: ordinary ones, with nothing kept behind them."""
    return mask_layers(bake(model), masks_of(model))
