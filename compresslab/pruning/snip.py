r"""SNIP: prune before training, by what one batch says about every connection.

Give every weight a switch :math:`c_j \in \{0, 1\}`, all on. The derivative of the loss with respect to a
switch says how much the loss would feel it. No training is needed to ask, and no schedule.
"""

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compresslab.core.modules import bake
from compresslab.pruning.masks import prune_by_score, weight_layers

Loss = Callable[[Tensor, Tensor], Tensor]


def connection_sensitivity(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = F.cross_entropy,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> dict[str, Tensor]:
    r"""How strongly the loss reacts to switching each connection off, as a share of the total.

    .. math:: g_j = \left.\frac{\partial L(c \odot w)}{\partial c_j}\right|_{c = 1}
        = w_j \frac{\partial L}{\partial w_j}, \qquad s_j = \frac{|g_j|}{\sum_k |g_k|}

    Args:
        model: the network, in the mode (train or eval) in which the batch shall be seen; it is not changed.
        x: (N, ...) one batch, large enough to hold every class a few times.
        y: (N,) its targets.
        loss: (outputs, targets) -> scalar.
        only: names of the layers to score; None means all.
        skip: names of layers to leave out.

    Returns:
        layer name -> ``s`` in the weight's shape, non-negative; all of them together sum to 1 (all are 0 if
        every gradient vanishes).

    Raises:
        ValueError: an unknown layer name, no layer left, or a scored layer that the loss does not depend on.

    Source: N. Lee, T. Ajanthan, P. H. S. Torr, "SNIP: Single-shot Network Pruning based on Connection
    Sensitivity", ICLR 2019, section 4.
    Differs: the paper initializes with variance scaling first; bring the network as you want it.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
        >>> total = lambda output, target: output.sum()
        >>> connection_sensitivity(layer, torch.tensor([[1.0, 1.0]]), torch.zeros(1), loss=total)[""]
        tensor([[0.3333, 0.6667]])
    """
    probe = bake(model).requires_grad_(True)  # a copy: no statistics and no .grad of the model change
    weights = {name: layer.weight for name, layer in weight_layers(probe, only, skip).items()}
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(probe(x), y), list(weights.values()), allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is None:
            raise ValueError(f"the loss does not depend on layer '{name}'; leave it out with skip=['{name}']")
    scores = {name: (w * g).detach().abs() for (name, w), g in zip(weights.items(), gradients, strict=True)}
    total = sum(score.sum() for score in scores.values())
    return {name: score / total if total > 0 else score for name, score in scores.items()}


def prune_snip(
    model: nn.Module,
    sparsity: float,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = F.cross_entropy,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    """Copy of ``model`` with the connections of least sensitivity masked, compared across all layers.

    Args:
        model: an untrained network.
        sparsity: fraction in [0, 1] of the scored weights to mask.
        x, y, loss, only, skip: as in :func:`connection_sensitivity`.

    Returns:
        A masked copy, ready to be trained.

    Raises:
        ValueError: as :func:`connection_sensitivity`; ``sparsity`` outside [0, 1].

    Source: Lee, Ajanthan, Torr, ICLR 2019, algorithm 1.
    """
    scores = connection_sensitivity(model, x, y, loss=loss, only=only, skip=skip)
    return prune_by_score(model, scores, sparsity, scope="global")
