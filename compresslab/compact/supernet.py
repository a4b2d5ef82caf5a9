r"""One trained network that contains all of a search space: every subnetwork shares its weights.

Training each candidate of a search from scratch is hopeless. A supernet has the largest width and depth; a
candidate uses the first channels of its layers and the first blocks of its stages. The whole is trained by
running different parts of it in turn; then a candidate is scored by looking, not by training.

Two cautions. The shared weights are a compromise, so that the *order* of the candidates counts, not their
accuracy. And the batch statistics of a part are not those of the whole: `recalibrate` a part before scoring.
"""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.compact.blocks import ConvBN
from compresslab.compact.search import Architecture, SearchSpace
from compresslab.compact.slimmable import SlimmableConv2d, SlimmableLinear, SwitchableBatchNorm
from compresslab.core.errors import check_int


class SlimmableInvertedResidual(nn.Module):
    """The inverted residual of `inverted`, for several numbers of input and output channels.

    Args:
        inputs, outputs: the numbers of channels that may come and go.
        stride: 1 or 2.
        expansion: hidden channels per input channel, a whole number of at least 1.

    Shape: (N, active input, H, W) -> (N, active output, ceil(H / stride), ceil(W / stride)).

    Example:
        >>> block = SlimmableInvertedResidual((4, 8), (4, 8), stride=1, expansion=2)
        >>> block.resize_(4, 8)
        >>> block(torch.zeros(2, 4, 5, 5)).shape, block.residual
        (torch.Size([2, 8, 5, 5]), False)
    """

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], stride: int, expansion: int):
        super().__init__()
        self.stride, self.expansion = check_int("stride", stride, 1, 2), check_int("expansion", expansion, 1)
        hidden = [channels * expansion for channels in inputs]
        layers: list[nn.Module] = []
        if expansion > 1:
            layers = [SlimmableConv2d(max(inputs), max(hidden), 1), SwitchableBatchNorm(hidden), nn.ReLU6()]
        layers += [SlimmableConv2d(max(hidden), max(hidden), 3, stride, depthwise=True)]
        layers += [SwitchableBatchNorm(hidden), nn.ReLU6()]
        layers += [SlimmableConv2d(max(hidden), max(outputs), 1), SwitchableBatchNorm(outputs)]
        self.branch = nn.Sequential(*layers)
        self.resize_(max(inputs), max(outputs))

    def resize_(self, inputs: int, outputs: int) -> None:
        """Use so many input and output channels from now on."""
        hidden = inputs * self.expansion
        convs = [layer for layer in self.branch if isinstance(layer, SlimmableConv2d)]
        norms = [layer for layer in self.branch if isinstance(layer, SwitchableBatchNorm)]
        for conv in convs[:-1]:
            conv.resize_(hidden if conv.depthwise else inputs, hidden)
        convs[-1].resize_(hidden, outputs)
        for norm in norms[:-1]:
            norm.resize_(hidden)
        norms[-1].resize_(outputs)
        self.residual = self.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return x + y if self.residual else y


class Supernet(nn.Module):
    """All networks of a `SearchSpace` in one, with shared weights.

    Args:
        space: the space; the weights are those of its largest architecture.

    Attributes:
        architecture: what runs at present, set by `activate_`; the largest at first.

    Shape: (N, in_channels, H, W) -> (N, num_classes).

    Source: H. Cai, C. Gan, T. Wang, Z. Zhang, S. Han, "Once-for-All: Train One Network and Specialize it for
        Efficient Deployment", ICLR 2020, section 3.
    Differs: width and depth are elastic, kernel size and resolution are not; all sizes are trained from the
        start, without progressive shrinking; every width has a batch norm of its own.

    Example:
        >>> space = SearchSpace(((4, 8), (8, 16)), ((1, 2), (1,)))
        >>> net = Supernet(space).eval()
        >>> small = net.subnet(space.smallest())
        >>> x = torch.rand(2, 3, 8, 8)
        >>> net.activate_(space.smallest())
        >>> torch.allclose(net(x), small(x), atol=1e-6)
        True
    """

    def __init__(self, space: SearchSpace):
        super().__init__()
        self.space = space
        self.stem = ConvBN(space.in_channels, space.stem, activation=nn.ReLU6)
        self.stages = nn.ModuleList()
        inputs: tuple[int, ...] = (space.stem,)
        for stage, (widths, depths) in enumerate(zip(space.widths, space.depths, strict=True)):
            blocks = nn.ModuleList()
            for block in range(max(depths)):
                stride = 2 if stage and not block else 1
                comes = widths if block else inputs
                blocks.append(SlimmableInvertedResidual(comes, widths, stride, space.expansion))
            self.stages.append(blocks)
            inputs = widths
        self.classifier = SlimmableLinear(max(inputs), space.num_classes)
        self.activate_(space.largest())

    def activate_(self, architecture: Architecture) -> None:
        """Run this architecture from now on.

        Raises:
            ValueError: it does not lie in the space.
        """
        self.architecture = self.space.check(architecture)
        channels = self.space.stem
        for blocks, width in zip(self.stages, architecture.widths, strict=True):
            for number, block in enumerate(blocks):
                block.resize_(width if number else channels, width)
            channels = width
        self.classifier.resize_(channels)

    def active_blocks(self) -> list[SlimmableInvertedResidual]:
        """The blocks that the present architecture uses, in a row."""
        pairs = zip(self.stages, self.architecture.depths, strict=True)
        return [block for blocks, depth in pairs for block in blocks[:depth]]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.active_blocks():
            x = block(x)
        return self.classifier(x.mean((2, 3)))

    def subnet(self, architecture: Architecture) -> nn.Module:
        """The plain network of an architecture, as `SearchSpace.build` makes it, with copies of its weights.

        The supernet is not changed.

        Raises:
            ValueError: the architecture does not lie in the space.
        """
        whole = copy.deepcopy(self)
        whole.activate_(architecture)
        parts = [whole.stem, *whole.active_blocks(), whole.classifier]
        layers = [layer for part in parts for layer in _weight_layers(part)]
        plain = self.space.build(architecture)
        for target, source in zip(_weight_layers(plain), layers, strict=True):
            target.load_state_dict(source.state_dict())
        return plain.train(self.training)


def _weight_layers(part: nn.Module) -> list[nn.Module]:
    """Convolutions, batch norms and linear layers in their order, slimmable ones as plain ones."""
    if hasattr(part, "plain"):
        return [part.plain()]
    if isinstance(part, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)):
        return [part]
    return [layer for child in part.children() for layer in _weight_layers(child)]


def sandwich_loss(
    space: SearchSpace, samples: int = 1, seed: int = 0
) -> Callable[[Supernet, Tensor, Tensor], Tensor]:
    """A ``loss`` for `core.train.train`: the largest, the smallest and some random architectures per step.

    Args:
        space: of the supernet that is trained.
        samples: random architectures per step, at least 0.
        seed: of their choice; the loss counts on, so that make a new one for every training.

    Returns:
        a function of (supernet, images, labels): the mean cross-entropy, a scalar. It leaves the largest
        architecture active.

    Raises:
        TypeError, ValueError: ``samples`` is negative or no whole number.

    Source: J. Yu, T. Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, for
        the sandwich rule.
    Differs: all parts learn from the labels, none from the largest one.
    """
    check_int("samples", samples, 0)
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Architecture:
        drawn = [torch.randint(len(choices), (), generator=generator) for choices in space.genes]
        return space.decode(tuple(choices[int(i)] for choices, i in zip(space.genes, drawn, strict=True)))

    def loss(model: Supernet, x: Tensor, y: Tensor) -> Tensor:
        chosen = [space.smallest(), *(draw() for _ in range(samples)), space.largest()]
        total = x.new_zeros(())
        for architecture in chosen:
            model.activate_(architecture)
            total = total + F.cross_entropy(model(x), y)
        return total / len(chosen)

    return loss


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    r"""Return a copy in eval mode whose batch norms have the mean statistics of the given batches.

    .. math:: \mu = \frac 1 B \sum_{b=1}^{B} \mu_b, \qquad v = \frac 1 B \sum_{b=1}^{B} v_b

    Args:
        model: a network with batch norms, such as a subnet whose statistics were those of another network.
        batches: images, (N, C, H, W) each, at least one batch.

    Raises:
        ValueError: there is no batch.

    Source: Cai et al., ICLR 2020, and Yu, Huang, ICCV 2019, which both compute the statistics of a part anew.

    Example:
        >>> batches = [torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 5.0)]
        >>> recalibrate(nn.BatchNorm2d(1), batches).running_mean
        tensor([4.])
    """
    model = copy.deepcopy(model).eval()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages over all batches
        norm.train()
    count = 0
    with torch.no_grad():
        for x in batches:
            model(x)
            count += 1
    if not count:
        raise ValueError("recalibration needs at least one batch of images, got none")
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return model.eval()
