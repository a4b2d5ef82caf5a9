r"""Early exit: a classifier after every stage, and an image leaves as soon as one of them is sure.

A network of fixed cost spends as much on an easy image as on a hard one. Here the cost is a random variable,
and what counts is its mean over the images that really come. The price: every exit that an image passes
without leaving was computed for nothing.

    x --stage 1--+--stage 2--+--stage 3--+
                 |           |           |
               exit 1      exit 2      exit 3     the last one takes whoever is left
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.macs import count_macs
from compresslab.core.train import device_of, evaluating

if TYPE_CHECKING:
    from compresslab.data import Split


def exit_head(channels: int, num_classes: int) -> nn.Sequential:
    """The smallest classifier of feature maps: average over the image, one linear layer.

    Shape: (N, channels, H, W) -> (N, num_classes).

    Raises:
        TypeError, ValueError: an argument that is no whole number of at least 1.

    Example:
        >>> exit_head(4, 3)(torch.zeros(2, 4, 5, 5)).shape
        torch.Size([2, 3])
    """
    check_int("channels", channels, 1)
    check_int("num_classes", num_classes, 1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class EarlyExit(nn.Module):
    r"""Stages in a row, each with a classifier; at test an image takes the first exit that is confident.

    .. math:: \hat e = \min\{e : \max_k \mathrm{softmax}(z_e)_k > \tau\} \cup \{E\}

    In eval mode the later stages compute only the images that have not left. In training mode all images go
    through, and the output is that of the last exit; train with `early_exit_loss`, which sees all exits.

    Args:
        stages: modules in a row, at least one.
        exits: one classifier per stage, from its output to logits (N, K).
        threshold: :math:`\tau`, in [0, 1]: 0 lets everyone out at once, 1 nobody before the last exit.

    Shape: what the first stage takes -> (N, K).

    Raises:
        TypeError, ValueError: other numbers of stages and exits, or none; a threshold that is no fraction.

    Source: S. Teerapittayanon, B. McDanel, H. T. Kung, "BranchyNet: Fast Inference via Early Exiting from
        Deep Neural Networks", ICPR 2016.
    Differs: what counts is the probability of the likeliest class; in the paper, the entropy of the output.

    Example:
        >>> double, quadruple = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        >>> double.weight.data, quadruple.weight.data = 2 * torch.eye(2), 4 * torch.eye(2)
        >>> model = EarlyExit([nn.Identity(), nn.Identity()], [double, quadruple], threshold=0.9).eval()
        >>> logits, exits = model.route(torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
        >>> logits.tolist(), exits.tolist()  # 1 / (1 + e^-6) is more than 0.9, 1 / (1 + e^-2) is less
        ([[6.0, 0.0], [4.0, 0.0]], [0, 1])
    """

    def __init__(self, stages: Sequence[nn.Module], exits: Sequence[nn.Module], threshold: float = 0.9):
        super().__init__()
        if not len(stages) == len(exits) >= 1:
            raise ValueError(f"every stage needs one exit, got {len(stages)} stages and {len(exits)} exits")
        self.stages, self.exits = nn.ModuleList(stages), nn.ModuleList(exits)
        self.threshold = check_fraction("threshold", threshold)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_logits(x)[-1] if self.training else self.route(x)[0]

    def all_logits(self, x: Tensor) -> list[Tensor]:
        """The logits of every exit for every image, E tensors of shape (N, K)."""
        logits = []
        for stage, leave in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            logits.append(leave(x))
        return logits

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Send each image to its exit: logits (N, K), and the number of the exit from 0, int64 (N,).

        Meant for eval mode: in training mode the batch norms would see only the images that are left.
        """
        inside = torch.arange(len(x), device=x.device)  # rows of the batch that have not left
        taken = torch.full((len(x),), len(self.stages) - 1, device=x.device)
        answers = None
        for number, (stage, leave) in enumerate(zip(self.stages, self.exits, strict=True)):
            x = stage(x)
            logits = leave(x)
            answers = logits.clone() if answers is None else answers.index_put((inside,), logits)
            if number + 1 < len(self.stages):
                sure = F.softmax(logits, 1).amax(1) > self.threshold
                taken[inside[sure]] = number
                inside, x = inside[~sure], x[~sure]
                if not len(inside):
                    break
        return answers, taken


def early_exit_loss(model: EarlyExit, x: Tensor, y: Tensor) -> Tensor:
    r"""The mean cross-entropy of all exits, a scalar; a ``loss`` for `core.train.train`.

    .. math:: \mathcal L = \frac 1 E \sum_{e=1}^{E} \mathrm{CE}(z_e, y)

    Source: Teerapittayanon et al., ICPR 2016, where the exits have weights; here all weigh the same.

    Example:
        >>> model = EarlyExit([nn.Identity()], [nn.Identity()])
        >>> round(early_exit_loss(model, torch.zeros(1, 2), torch.tensor([0])).item(), 4)  # log 2
        0.6931
    """
    return torch.stack([F.cross_entropy(logits, y) for logits in model.all_logits(x)]).mean()


@dataclass(frozen=True)
class ExitReport:
    """What a network with early exits costs and does on a set of images, by exit.

    `fractions` of the images that leave there, `macs` of one image that leaves there, `accuracy` among those
    that leave there (nan where nobody does); `mean_macs` and `mean_accuracy` over all images.
    """

    fractions: tuple[float, ...]
    macs: tuple[int, ...]
    accuracy: tuple[float, ...]
    mean_macs: float
    mean_accuracy: float


def exit_macs(model: EarlyExit, example: Sequence[int]) -> tuple[int, ...]:
    r"""The multiply-accumulates of one image by the exit it takes: all stages and all exits up to there.

    Args:
        model: the network; not changed.
        example: the shape of one image, such as (3, 32, 32).

    Example:
        >>> model = EarlyExit([nn.Linear(4, 3), nn.Linear(3, 3)], [nn.Linear(3, 2), nn.Linear(3, 2)])
        >>> exit_macs(model, (4,))  # 12 + 6, and then 9 + 6 more
        (18, 33)
    """
    x = torch.zeros(1, *example, device=device_of(model))
    total, costs = 0, []
    for stage, leave in zip(model.stages, model.exits, strict=True):
        total += count_macs(stage, x).total
        with evaluating(stage):
            x = stage(x)
        total += count_macs(leave, x).total
        costs.append(total)
    return tuple(costs)


def exit_report(model: EarlyExit, split: Split, batch_size: int = 512) -> ExitReport:
    r"""Send a set of images through, and report where they leave, how often that is right, and the mean cost.

    .. math:: \overline{\mathrm{MACs}} = \sum_e \frac{n_e}{n} \mathrm{MACs}_e

    Args:
        model: the network; run in eval mode, and left in the mode it was in.
        split: labelled images, not empty.
        batch_size: images at once.

    Raises:
        ValueError: there are no images.
    """
    if len(split) == 0:
        raise ValueError("there is nothing to report: the split is empty")
    device, taken, right = device_of(model), [], []
    with evaluating(model):
        for x, y in split.batches(batch_size):
            logits, exits = model.route(x.to(device))
            taken.append(exits.cpu())
            right.append(logits.argmax(1).cpu() == y)
    taken, right = torch.cat(taken), torch.cat(right).double()
    macs = exit_macs(model, tuple(split.images.shape[1:]))
    left = [taken == number for number in range(len(macs))]
    return ExitReport(
        fractions=tuple(here.double().mean().item() for here in left),
        macs=macs,
        accuracy=tuple(right[here].mean().item() for here in left),
        mean_macs=torch.tensor(macs, dtype=torch.float64)[taken].mean().item(),
        mean_accuracy=right.mean().item(),
    )
