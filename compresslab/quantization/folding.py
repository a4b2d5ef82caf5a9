r"""Batch norm folded into the layer before it: at inference both are linear, and one linear map will do.

A batch norm that follows a convolution costs memory, time and, worst, a second rounding: a network that is to
compute with integers should have one scale per channel, not two. In eval mode the batch norm multiplies and
shifts each channel by constants, and so its constants fit into the weight and bias of the layer before.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compresslab.quantization.graph import WEIGHTED, called_once, module_of, node_before, stored_weight, trace


def fold(
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Weight and bias of the one layer that does what a layer and its batch norm did.

    .. math:: W_{fold} = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}\,W, \qquad
              b_{fold} = \beta + \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}\,(b - \mu)

    Args:
        weight: :math:`W`, (O, ...), one row per output channel.
        bias: :math:`b`, (O,); None is 0.
        gamma: :math:`\gamma`, (O,); None is 1.
        beta: :math:`\beta`, (O,); None is 0.
        mean: :math:`\mu`, (O,), the running mean.
        var: :math:`\sigma^2`, (O,), the running variance, >= 0.
        eps: :math:`\epsilon`, added to the variance.

    Returns:
        the folded weight, of the weight's shape, and bias, (O,); computed in float64, in the weight's dtype.

    Raises:
        ValueError: a vector that has not one entry per output channel.

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.

    Example:
        >>> W, mean, var = torch.tensor([[3.0], [1.0]]), torch.tensor([1.0, 0.0]), torch.tensor([4.0, 1.0])
        >>> fold(W, None, None, None, mean, var, eps=0.0)
        (tensor([[1.5000], [1.0000]]), tensor([-0.5000, 0.0000]))
    """
    outputs = len(weight)
    vectors = {"bias": bias, "gamma": gamma, "beta": beta, "mean": mean, "var": var}
    for name, vector in vectors.items():
        if vector is not None and vector.shape != (outputs,):
            shape = tuple(vector.shape)
            raise ValueError(f"{name} must have shape ({outputs},), one per output channel, got {shape}")
    factor = torch.rsqrt(var.double() + eps) * (1.0 if gamma is None else gamma.double())
    shifted = (0.0 if bias is None else bias.double()) - mean.double()
    folded_bias = factor * shifted + (0.0 if beta is None else beta.double())
    folded_weight = weight.double() * factor.view(-1, *[1] * (weight.ndim - 1))
    return folded_weight.to(weight.dtype), folded_bias.to(weight.dtype)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Copy of ``model`` whose batch norms went into the layers before them, ``nn.Identity`` in their place.

    The pairs are found in the graph of the network, so it does not matter how its modules nest. A batch norm
    stays where folding would change the function: the layer's output goes elsewhere too, the layer or the
    batch norm is called more than once or shares its weight, or there is no plain layer before it.

    Args:
        model: any network that ``torch.fx`` can trace. The copy computes what it computes in eval mode, to
            rounding, in both modes. Fold before weights are coded; masks stay.

    Raises:
        ValueError: the network cannot be traced; a batch norm to fold keeps no running statistics; a weight
            has a parametrization that is no mask.

    Source: Jacob et al., CVPR 2018, section 3.2.
    Differs: the paper simulates folding while training too; here it is done once, after training. A linear
        layer is taken to have inputs (N, features), where batch norm and layer agree on the channel axis.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
        >>> fold_batch_norm(model)
        Sequential(
          (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
        )
    """
    model = copy.deepcopy(model)
    graph = trace(model)
    alone = called_once(model, graph)
    for node in graph.nodes:
        norm, before = module_of(model, node), node_before(node)
        if not isinstance(norm, _BatchNorm) or not isinstance(module_of(model, before), WEIGHTED):
            continue
        if len(before.users) > 1 or node.target not in alone or before.target not in alone:
            continue
        layer = module_of(model, before)
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError(f"batch norm '{node.target}' keeps no running statistics, it cannot be folded")
        _fold_(before.target, layer, norm)
        model.set_submodule(node.target, nn.Identity().train(norm.training))
    return model


def _fold_(name: str, layer: nn.Module, norm: _BatchNorm) -> None:
    """Change the layer in place so that it does the batch norm's work too."""
    weight = stored_weight(layer, name)
    statistics = (norm.running_mean, norm.running_var, norm.eps)
    with torch.no_grad():
        new_weight, new_bias = fold(weight, layer.bias, norm.weight, norm.bias, *statistics)
        weight.copy_(new_weight)
    layer.bias = nn.Parameter(new_bias, requires_grad=weight.requires_grad)
