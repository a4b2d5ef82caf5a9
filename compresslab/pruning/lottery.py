r"""Lottery tickets: prune a trained network, then put the survivors back to where training started.

The claim: inside a randomly initialized network there is a sparse part, a *winning ticket*, that trains to
the full accuracy by itself, from its own initial weights. The mask is found by training, pruning and
rewinding, again and again.
"""

from collections.abc import Callable, Collection

from torch import nn

from compresslab.core.errors import check_fraction, check_int
from compresslab.pruning.magnitude import prune_magnitude
from compresslab.pruning.masks import mask_layers, masks_of

Train = Callable[[nn.Module], nn.Module]


def rewind(pruned: nn.Module, origin: nn.Module) -> nn.Module:
    r"""The masks of one network on the weights of another.

    .. math:: f(x;\; m \odot \theta_0)

    Args:
        pruned: gives the masks ``m``.
        origin: gives everything else, :math:`\theta_0`: weights, biases, normalization statistics.

    Returns:
        A copy of ``origin`` that holds the masks of ``pruned``.

    Raises:
        ValueError: a masked layer is missing in ``origin`` or has another shape.
    """
    return mask_layers(origin, masks_of(pruned))


def find_ticket(
    model: nn.Module,
    train: Train,
    *,
    sparsity: float,
    rounds: int = 3,
    rewind_to: nn.Module | None = None,
    scope: str = "global",
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    r"""Iterative magnitude pruning with rewinding.

    Each round trains the present ticket, drops the same share of the weights that are left, and rewinds.
    After round ``k`` of ``r`` the sparsity is

    .. math:: s_k = 1 - (1 - s)^{k/r}

    Args:
        model: the untrained network, :math:`\theta_0`.
        train: a step that returns a trained copy, such as ``partial(core.train.train, split=data.train,
            epochs=3)``.
        sparsity: ``s`` in [0, 1] at the end.
        rounds: ``r``, at least 1. One round is one-shot pruning; each round costs a full training.
        rewind_to: the network whose weights the ticket gets. None means ``model`` itself. A network trained
            for a few hundred steps (*late rewinding*) is what larger networks need.
        scope: ``"global"`` (the paper's choice for deep networks) or ``"layer"``.
        only: names of the layers to prune; None means all.
        skip: names of layers to leave dense.

    Returns:
        The ticket: a masked, *untrained* copy of ``rewind_to``. Train it, and compare with ``random_masks``.

    Raises:
        ValueError: a bad sparsity, scope, number of rounds or layer name.

    Source: J. Frankle, M. Carbin, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
    ICLR 2019, section 1; late rewinding: J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin, "Linear Mode
    Connectivity and the Lottery Ticket Hypothesis", ICML 2020.
    Differs: the paper prunes the output layer at half the rate of the others; pass it in ``skip`` instead.
    With late rewinding the first round trains from ``rewind_to``, too, where the paper goes on from its own
    run.
    """
    check_fraction("sparsity", sparsity)
    check_int("rounds", rounds, 1)
    origin = model if rewind_to is None else rewind_to
    ticket = origin
    for k in range(1, rounds + 1):
        trained = train(ticket)
        pruned = prune_magnitude(
            trained, 1 - (1 - sparsity) ** (k / rounds), scope=scope, only=only, skip=skip
        )
        ticket = rewind(pruned, origin)
    return ticket
