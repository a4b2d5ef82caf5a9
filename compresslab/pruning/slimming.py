r"""Network slimming: let training decide which channels are needed.

Each channel leaves its batch norm multiplied by a scale :math:`\gamma`. Charge for these scales while
training, and the channels that do not pay for themselves fade; then one threshold over the whole
network removes them: ``prune_channels(model, x, 0.5, importance="bn_scale", scope="global")``.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _scales(model: nn.Module) -> Iterator[nn.Parameter]:
    for layer in model.modules():
        if isinstance(layer, _NORMS) and layer.affine:
            yield layer.weight


def slimming_penalty(model: nn.Module, strength: float) -> Tensor:
    r"""The term that network slimming adds to the loss.

    .. math:: \lambda\sum_{\gamma}|\gamma|

    Its sub-gradient is :math:`\lambda\,\mathrm{sign}(\gamma)`, and 0 at 0. Descending it, scales become
    small and keep jumping across zero; they never stay there. :func:`shrink_scales_` is the step that
    does.

    Args:
        model: a network with batch norm.
        strength: :math:`\lambda`; 1e-5 to 1e-4 in the paper.

    Returns:
        A scalar with a gradient.

    Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017,
        section 3.

    Example:
        >>> norm = nn.BatchNorm1d(3)
        >>> slimming_penalty(norm, 0.5).item()                                     # three scales of 1
        1.5
    """
    scales = list(_scales(model))
    if not scales:
        raise ValueError(f"slimming needs batch norm with a scale, and {type(model).__name__} has none")
    return strength * sum(scale.abs().sum() for scale in scales)


def soft_threshold(values: Tensor, threshold: float) -> Tensor:
    r"""Pull values towards zero by ``threshold``; what is nearer than that becomes zero.

    .. math:: \mathrm{prox}(\gamma)=\mathrm{sign}(\gamma)\,(|\gamma|-t)_+
        =\arg\min_z\tfrac12(z-\gamma)^2+t|z|

    Args:
        values: any shape.
        threshold: ``t``, at least 0.

    Example:
        >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
        tensor([-2., 0., 1.])
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0, got {threshold}")
    return values.sign() * (values.abs() - threshold).clamp(min=0)


@torch.no_grad()
def shrink_scales_(model: nn.Module, threshold: float) -> None:
    r"""The proximal step on all batch-norm scales, in place: call it after every optimizer step.

    .. math:: \gamma\leftarrow\mathrm{sign}(\gamma)\,(|\gamma|-\eta\lambda)_+

    ``train(..., after_step=lambda model, step: shrink_scales_(model, lr * strength))``. Scales reach
    exactly zero.

    Args:
        model: a network with batch norm.
        threshold: :math:`\eta\lambda`, the learning rate times the strength of the penalty.

    Source: Z. Huang, N. Wang, "Data-Driven Sparse Structure Selection for Deep Neural Networks", ECCV
        2018, section 3.
    Differs: the paper scales channels, groups and blocks by factors of their own, and uses accelerated
        proximal gradient steps; here the factors are the batch-norm scales, the steps plain.
    """
    for scale in _scales(model):
        scale.copy_(soft_threshold(scale, threshold))


def absorb_constants(layer: nn.Linear | nn.Conv2d, constants: Tensor) -> Tensor:
    r"""The bias with which a layer does as well without input channels that are constant.

    A channel with :math:`\gamma=0` is not zero: batch norm still adds its shift, and
    :math:`\mathrm{ReLU}(\beta)` goes on to the next layer, the same at every position. That constant
    can move into the next bias,

    .. math:: b'_o=b_o+\sum_c a_c\sum_{u,v}W_{o,c,u,v},\qquad a_c=\mathrm{ReLU}(\beta_c)

    This is exact for a convolution without padding. With zero padding it is wrong along the border,
    where the kernel sees zeros instead of the constant: fine-tune, or keep the channel.

    Args:
        layer: the layer that reads the channels.
        constants: (I,) the constant of each input channel that goes, 0 for those that stay.

    Returns:
        The new bias, (O,).

    Raises:
        ValueError: not one constant per input channel, or a grouped convolution.
    """
    weight = layer.weight.detach()
    if getattr(layer, "groups", 1) != 1 or constants.shape != weight.shape[1:2]:
        shape = tuple(constants.shape)
        raise ValueError(f"constants must be one per input channel of an ungrouped layer, got shape {shape}")
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    return bias + weight.flatten(2).sum(2) @ constants if weight.dim() > 2 else bias + weight @ constants
