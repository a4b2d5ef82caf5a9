r"""Searching for the best network under a budget: a space of networks, its cost by formula, and two searches.

A network of the space is a width and a depth for every stage. The number of networks is the product of all
choices, so that it soon cannot be listed; but the cost of one is a short sum, known before it is built, and
a search needs to *score* only what fits into the budget. The expensive part, the score, is the caller's: a
short training, or a `supernet.Supernet` whose subnetworks share trained weights.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from compresslab.compact.blocks import ConvBN
from compresslab.compact.inverted import InvertedResidual
from compresslab.core.errors import check_int
from compresslab.core.evolution import SearchResult, evolve_genes


@dataclass(frozen=True)
class Architecture:
    """One network of a space: the channels and the number of blocks of every stage."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True)
class SearchSpace:
    r"""Stages of inverted residuals, with choices for the width and the depth of each.

    Args:
        widths: the numbers of channels that a stage may have, ascending; one tuple per stage.
        depths: the numbers of blocks that a stage may have, ascending; one tuple per stage.
        stem: channels of the first convolution, which has stride 1.
        expansion: hidden channels per input channel of a block, a whole number of at least 1.
        num_classes, in_channels: outputs, and channels of the image.
        image: the side of the square image, for the multiply-accumulates.

    The first stage keeps the size of the image; every later one halves it in its first block.

    Raises:
        TypeError, ValueError: no stages, unequal numbers of stages, choices that are not ascending, or a
            number out of range.

    Example:
        >>> space = SearchSpace(widths=((8, 16), (16, 32)), depths=((1, 2), (1, 2, 3)))
        >>> len(space), space.smallest()
        (24, Architecture(widths=(8, 16), depths=(1, 1)))
    """

    widths: tuple[tuple[int, ...], ...] = ((8, 12, 16), (16, 24, 32), (32, 48, 64))
    depths: tuple[tuple[int, ...], ...] = ((1, 2, 3), (1, 2, 3), (1, 2, 3))
    stem: int = 8
    expansion: int = 3
    num_classes: int = 10
    in_channels: int = 3
    image: int = 32

    def __post_init__(self) -> None:
        for name in ("stem", "expansion", "num_classes", "in_channels", "image"):
            check_int(name, getattr(self, name), 1)
        if not len(self.widths) == len(self.depths) >= 1:
            raise ValueError(
                f"widths and depths need one tuple per stage, got {len(self.widths)} and {len(self.depths)}"
            )
        for name in ("widths", "depths"):
            for stage, choices in enumerate(getattr(self, name)):
                for choice in choices:
                    check_int(f"{name}[{stage}]", choice, 1)
                if not choices or list(choices) != sorted(set(choices)):
                    raise ValueError(f"{name}[{stage}] must list different numbers, ascending, got {choices}")

    @property
    def genes(self) -> tuple[tuple[int, ...], ...]:
        """All choices in a row: the widths of the stages, then the depths."""
        return (*self.widths, *self.depths)

    def __len__(self) -> int:
        return math.prod(len(choices) for choices in self.genes)

    def decode(self, values: tuple[int, ...]) -> Architecture:
        """The architecture of one value for each gene."""
        return Architecture(tuple(values[: len(self.widths)]), tuple(values[len(self.widths) :]))

    def smallest(self) -> Architecture:
        """The architecture that takes the first of every choice: the cheapest one."""
        return self.decode(tuple(choices[0] for choices in self.genes))

    def largest(self) -> Architecture:
        """The architecture that takes the last of every choice."""
        return self.decode(tuple(choices[-1] for choices in self.genes))

    def check(self, architecture: Architecture) -> Architecture:
        """Return the architecture if it lies in the space.

        Raises:
            ValueError: a width or a depth that is no choice of its stage; the message lists the choices.
        """
        for name in ("widths", "depths"):
            values, choices = getattr(architecture, name), getattr(self, name)
            if len(values) != len(choices):
                raise ValueError(f"{name} must name {len(choices)} stages, got {values}")
            for stage, (value, allowed) in enumerate(zip(values, choices, strict=True)):
                if value not in allowed:
                    raise ValueError(f"{name}[{stage}] must be one of {allowed}, got {value}")
        return architecture

    def blocks(self, architecture: Architecture) -> list[tuple[int, int, int]]:
        """(input channels, output channels, stride) of every block, in a row.

        Example:
            >>> SearchSpace().blocks(Architecture((8, 16, 32), (1, 2, 1)))
            [(8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2)]
        """
        self.check(architecture)
        channels, rows = self.stem, []
        for stage, (width, depth) in enumerate(zip(architecture.widths, architecture.depths, strict=True)):
            for block in range(depth):
                rows.append((channels, width, 2 if stage and not block else 1))
                channels = width
        return rows

    def macs(self, architecture: Architecture) -> int:
        r"""The multiply-accumulates of one image, from the table of the blocks alone.

        A block with :math:`M` input, :math:`N` output and :math:`h = tM` hidden channels costs

        .. math:: M h\,D^2 + 9 h\,D'^2 + h N D'^2 \qquad (\text{without the first term if } t = 1)

        where :math:`D` and :math:`D' = \lceil D / s \rceil` are the sides of its input and output maps.

        Raises:
            ValueError: the architecture does not lie in the space.

        Example:
            >>> space = SearchSpace(((4,),), ((1,),), stem=4, expansion=2, in_channels=1, image=2)
            >>> space.macs(space.smallest())  # 4 pixels * (36 + 32 + 72 + 32) + 40
            728
        """
        side = self.image
        total = 9 * self.in_channels * self.stem * side**2
        for inputs, outputs, stride in self.blocks(architecture):
            hidden, before = inputs * self.expansion, side
            side = -(-side // stride)
            total += inputs * hidden * before**2 if self.expansion > 1 else 0
            total += (9 * hidden + hidden * outputs) * side**2
        return total + architecture.widths[-1] * self.num_classes

    def build(self, architecture: Architecture) -> nn.Module:
        """The network itself, with random weights: (N, in_channels, H, W) -> (N, num_classes).

        Raises:
            ValueError: the architecture does not lie in the space.

        Example:
            >>> import torch
            >>> space = SearchSpace()
            >>> space.build(space.smallest())(torch.zeros(1, 3, 32, 32)).shape
            torch.Size([1, 10])
        """
        return StagedNet(self, architecture)


class StagedNet(nn.Module):
    """A network of a `SearchSpace`: stem, inverted residuals, average over the image, linear layer."""

    def __init__(self, space: SearchSpace, architecture: Architecture):
        super().__init__()
        self.stem = ConvBN(space.in_channels, space.stem, activation=nn.ReLU6)
        rows = space.blocks(architecture)
        self.blocks = nn.Sequential(*(InvertedResidual(*row, expansion=space.expansion) for row in rows))
        self.classifier = nn.Linear(architecture.widths[-1], space.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


def enumerate_space(space: SearchSpace, max_macs: float = math.inf) -> list[Architecture]:
    """All architectures within the budget, in the order of their genes; only for small spaces.

    Args:
        space: of at most a million architectures.
        max_macs: the most multiply-accumulates that a network may have.

    Raises:
        ValueError: the space is too large to list.

    Example:
        >>> space = SearchSpace(((8, 16),), ((1, 2),))
        >>> len(enumerate_space(space)), len(enumerate_space(space, max_macs=space.macs(space.smallest())))
        (4, 1)
    """
    if len(space) > 1_000_000:
        raise ValueError(f"a space of {len(space)} architectures is too large to list; use evolve")
    everything = (space.decode(values) for values in itertools.product(*space.genes))
    return [architecture for architecture in everything if space.macs(architecture) <= max_macs]


def evolve(
    space: SearchSpace,
    score: Callable[[Architecture], float],
    max_macs: float,
    *,
    population: int = 24,
    parents: int = 8,
    generations: int = 12,
    mutation: float = 0.2,
    seed: int = 0,
) -> SearchResult:
    """Look for the highest score within a budget by evolution: the best survive, cross and mutate.

    How the candidates of a generation come about is told by ``core.evolution.evolve_genes``.

    Args:
        space: where to look.
        score: higher is better; called once for each architecture that comes up.
        max_macs: the most multiply-accumulates that a network may have.
        population: candidates per generation, at least 2.
        parents: how many of them survive, 1 to ``population``.
        generations: how often, at least 1.
        mutation: fraction of the genes of a mutant that are drawn anew, in [0, 1].
        seed: of all random choices; the global generator is not used.

    Returns:
        a `SearchResult`; of equal scores the architecture found first.

    Raises:
        TypeError, ValueError: an argument out of range, a score that is nan, or a budget below the cheapest
            architecture.

    Source: E. Real, A. Aggarwal, Y. Huang, Q. V. Le, "Regularized Evolution for Image Classifier
        Architecture Search", AAAI 2019, for evolution as a search; H. Cai, C. Gan, T. Wang, Z. Zhang, S. Han,
        "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020, for a search
        under a budget.
    Differs: the best survive, not the youngest, and the score is the caller's, not a learned predictor.

    Example:
        >>> space = SearchSpace(((8, 16),), ((1, 2, 3),))
        >>> evolve(space, lambda a: a.depths[0], max_macs=space.macs(space.largest())).best.depths
        (3,)
    """
    cheapest = space.macs(space.smallest())
    if not max_macs >= cheapest:
        raise ValueError(f"max_macs must be at least {cheapest}, the cheapest of the space, got {max_macs}")
    return evolve_genes(
        space.genes,
        space.decode,
        score,
        space.macs,
        max_macs,
        population=population,
        parents=parents,
        generations=generations,
        mutation=mutation,
        seed=seed,
    )
