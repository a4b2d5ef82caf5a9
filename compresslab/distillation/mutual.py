r"""Deep mutual learning: no teacher, only students that correct each other while they learn.

Each network of a cohort learns from the labels and from what the others say at this moment. None of them is
better to begin with; what they have to offer is that they are wrong about different things.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.train import MakeOptimizer, train
from compresslab.data import Split
from compresslab.distillation.distill import adamw
from compresslab.distillation.soft_targets import check_labels, check_logits, soft_target_loss


def mutual_losses(logits: Sequence[Tensor], labels: Tensor) -> list[Tensor]:
    r"""The loss of every peer: its labels, and the mean divergence from the other peers.

    .. math:: L_i = \mathrm{CE}(y, p_i) + \frac{1}{K - 1} \sum_{j \ne i} \mathrm{KL}(p_j \,\|\, p_i)

    A peer is a teacher to the others and gets no gradient from them: :math:`L_i` moves network i alone. So
    the sum of all losses can be minimised at once.

    Args:
        logits: of each of the K peers, (N, classes), for the same images; K at least 2.
        labels: int64 (N,).

    Returns:
        K scalars, each averaged over the batch.

    Raises:
        TypeError, ValueError: fewer than two peers, logits whose shapes differ, labels that are no class
            numbers.

    Source:
        Y. Zhang, T. Xiang, T. M. Hospedales, H. Lu, "Deep Mutual Learning", CVPR 2018, section 3.

    Example:
        >>> z = torch.tensor([[0.0, 1.0]])
        >>> mutual_losses([z, z], torch.tensor([1]))  # equal peers have nothing to tell each other
        [tensor(0.3133), tensor(0.3133)]
    """
    if len(logits) < 2:
        raise ValueError(f"mutual learning takes two networks or more, got {len(logits)}")
    for other in logits[1:]:
        check_logits(logits[0], other)
    check_labels(labels, logits[0])
    return [_peer_loss(i, logits, labels) for i in range(len(logits))]


def _peer_loss(i: int, logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """To each peer the others are teachers, with soft targets at T = 1."""
    taught = [soft_target_loss(logits[i], other, temperature=1.0) for j, other in enumerate(logits) if j != i]
    return F.cross_entropy(logits[i], labels) + sum(taught) / len(taught)


class _Cohort(nn.Module):
    """All peers in one module, so that one loop trains them."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(copy.deepcopy(model) for model in models)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [model(x) for model in self.models]


def train_mutually(
    models: Sequence[nn.Module],
    split: Split,
    *,
    epochs: int,
    lr: float = 0.002,
    batch_size: int = 128,
    optimizer: MakeOptimizer = adamw,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    seed: int = 0,
    progress: bool = True,
    history: list[dict] | None = None,
) -> list[nn.Module]:
    """Train copies of two or more networks together; every one of them can be used alone afterwards.

    They need not be alike, but should not begin equal: peers with the same weights say the same, and without
    dropout they do so for ever, so that each of them is trained on the labels alone.

    Args:
        models: the peers, with the same classes; the ones given are left as they were.
        split: the training images; all peers see the same batches.
        epochs, lr, batch_size, optimizer, augment, seed, progress: as in `core.train.train`. One optimizer
            holds the parameters of all peers; those here update each parameter by its own gradient alone.
        history: a list that receives one row per epoch; its "loss" is the sum over the peers.

    Returns:
        the trained copies in eval mode, in the order of ``models``.

    Raises:
        TypeError: a peer that is no network.
        ValueError: fewer than two of them, or with different numbers of classes; and as `core.train.train`.

    Source: Zhang et al., CVPR 2018, section 3.
    Differs: the paper updates the peers in turn, each seeing what the others say after their update; here all
        learn from what was said before it.

    Example:
        >>> images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
        >>> split = Split(images, torch.tensor([0, 1, 0, 1]), (0.0,), (1.0,))
        >>> peers = [nn.Sequential(nn.Flatten(), nn.Linear(1, 2)) for _ in range(2)]
        >>> len(train_mutually(peers, split, epochs=1, progress=False))
        2
    """
    models = list(models)
    if len(models) < 2:
        raise ValueError(f"mutual learning takes two networks or more, got {len(models)}")
    for model in models:
        if not isinstance(model, nn.Module):
            raise TypeError(f"a peer is a network, got {type(model).__name__}")

    def loss(cohort: _Cohort, x: Tensor, y: Tensor) -> Tensor:
        return sum(mutual_losses(cohort(x), y))

    cohort = train(_Cohort(models), split, epochs=epochs, lr=lr, batch_size=batch_size, optimizer=optimizer,
                   loss=loss, augment=augment, seed=seed, progress=progress, history=history)  # fmt: skip
    return list(cohort.models)
