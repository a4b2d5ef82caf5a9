r"""How important is a filter? Criteria that look at data: what a channel does, and how often.

Each returns scores: layer -> (C,), for linear and convolutional layers and for batch norms. Where a group
has batch norms, ``choose_channels`` counts those: what leaves them is what the rest of the network sees.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compresslab.core.modules import bake
from compresslab.core.train import Loss, cross_entropy, evaluating

from .channel_tracing import NORMS, TRANSPOSED, WEIGHTED


def taylor_importance(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, loss: Loss = cross_entropy
) -> dict[str, Tensor]:
    r"""First-order estimate of the squared change of the loss if a channel is removed.

    .. math:: I_S=\Bigl(\sum_{s\in S}g_sw_s\Bigr)^2,\qquad g_s=\frac{\partial L}{\partial w_s}

    averaged over mini-batches. ``S`` is all that a channel's output is linear in: filter and bias of a
    layer, scale and shift of a batch norm. Then :math:`\sum_S g_sw_s` equals
    :math:`\partial L/\partial z` for a gate ``z = 1`` that multiplies the channel's output, so weight
    form and gate form agree.

    Args:
        model: the network; run in eval mode, so that the statistics of batch norm hold still.
        batches: pairs (x, y).
        loss: from (model, x, y) to a scalar.

    Returns:
        layer -> (C,); layers that the loss does not reach score 0.

    Raises:
        ValueError: no batch.

    Source: P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, "Importance Estimation for Neural
        Network Pruning", CVPR 2019, section 3; P. Molchanov et al., "Pruning Convolutional Neural
        Networks for Resource Efficient Inference", ICLR 2017.
    Differs: the estimate is taken once, not while training. For a convolution *before* batch norm in
        train mode the sum is zero whatever its importance, since rescaling its filter changes nothing:
        trust the batch norm's score.
    """
    model = bake(model).eval().requires_grad_()
    layers = _scored_layers(model)
    tensors = [p for layer in layers.values() for p in (layer.weight, layer.bias) if p is not None]
    scores = {name: torch.zeros(len_out(layer), dtype=torch.float64) for name, layer in layers.items()}
    count = 0
    for x, y in batches:
        gradients = torch.autograd.grad(loss(model, x, y), tensors, allow_unused=True)
        gradient_of = {id(p): g for p, g in zip(tensors, gradients, strict=True)}
        for name, layer in layers.items():
            scores[name] += _effect(layer, gradient_of).double().cpu().square()
        count += 1
    if not count:
        raise ValueError("no data: batches is empty")
    return {name: score / count for name, score in scores.items()}


def _effect(layer: nn.Module, gradient_of: dict[int, Tensor | None]) -> Tensor:
    """Sum of gradient times weight over each output channel, (C,)."""
    total = torch.zeros(len_out(layer), device=layer.weight.device)
    for parameter in (layer.weight, layer.bias):
        gradient = None if parameter is None else gradient_of[id(parameter)]
        if gradient is not None:
            product = (gradient * parameter).detach()
            if isinstance(layer, TRANSPOSED) and product.dim() > 1:  # (I, O / groups, ...)
                product = product.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
            total = total + product.flatten(1).sum(1) if product.dim() > 1 else total + product
    return total


def apoz_importance(model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    r"""How often a channel fires: one minus its average percentage of zeros after ReLU.

    .. math:: \mathrm{APoZ}_c=\frac{\sum_k\sum_j \mathbb 1[O_{c,j}(k)=0]}{NM},\qquad s_c=1-\mathrm{APoZ}_c

    over ``N`` images ``k`` and ``M`` positions ``j``.

    Args:
        model: the network; run in eval mode.
        batches: input tensors, or pairs whose first item is one.

    Returns:
        layer -> (C,) fractions in [0, 1].

    Raises:
        ValueError: no batch.

    Source: H. Hu, R. Peng, Y.-W. Tai, C.-K. Tang, "Network Trimming: A Data-Driven Neuron Pruning
        Approach towards Efficient Deep Architectures", arXiv 2016, section 3.1.
    Differs: counted on the sign of what enters the ReLU, in every layer, whether a ReLU follows or not.
    """
    layers = _scored_layers(model)
    fired: dict[str, Tensor] = {}
    seen: dict[str, int] = {}

    def count(name: str, layer: nn.Module, output: Tensor) -> None:
        positive = (output > 0).movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        fired[name] = fired.get(name, 0) + positive.sum(1).double().cpu()
        seen[name] = seen.get(name, 0) + positive.shape[1]

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: count(name, layer, output))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model):
            for batch in batches:
                model(batch if isinstance(batch, Tensor) else batch[0])
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError("no data: batches is empty")
    return {name: fired[name] / seen[name] for name in fired}


def len_out(layer: nn.Module) -> int:
    """Number of output channels."""
    return getattr(layer, "out_features", None) or getattr(layer, "out_channels", None) or len(layer.weight)


def _scored_layers(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (*WEIGHTED, *NORMS))
        and not isinstance(layer, nn.PReLU)
        and layer.weight is not None
    }
