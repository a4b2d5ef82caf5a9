r"""Soft weight sharing: a mixture of Gaussians as the prior of the weights, learned together with them.

Clustering after training takes the weights as they are. Here they are told beforehand: the loss gets the
negative logarithm of a mixture's density, so each weight is pulled towards the centres that explain it, while
the centres move to where the weights want to be and narrow. A component fixed at zero with a large proportion
prunes on the way. At the end every weight takes the value of its component: a codebook.
"""

import math
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.bits import pack_bits
from compresslab.core.errors import check_int
from compresslab.core.layers import encode
from compresslab.core.modules import named_layers
from compresslab.core.train import Loss
from compresslab.sharing.clusters import ClusterCode


class MixturePrior(nn.Module):
    r"""The negative log density of weights under a mixture of Gaussians.

    .. math:: -\log p(w) = -\sum_i \log \sum_{j=0}^{J} \pi_j\, \mathcal N(w_i \mid \mu_j, \sigma_j^2),
              \qquad \frac{\partial(-\log p)}{\partial w_i} = \sum_j r_{ij}\, \frac{w_i - \mu_j}{\sigma_j^2}

    with the responsibilities :math:`r_{ij} \propto \pi_j \mathcal N(w_i \mid \mu_j, \sigma_j^2)`. Component 0
    has :math:`\mu_0 = 0` and a fixed :math:`\pi_0`; the other means, all deviations and the other proportions
    are parameters. A centre that narrows onto one weight would have infinite density, so no deviation falls
    below a floor.

    Args:
        components: J, the components beside the fixed one, 1 to 255.
        low, high: the means start evenly spaced between them (the range of the weights).
        zero_proportion: :math:`\pi_0`, in (0, 1).
        deviation: all :math:`\sigma_j` at the start, positive; None takes half the distance of two means.
        floor: the least :math:`\sigma_j`, positive; None takes a hundredth of ``deviation``.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        S. Nowlan, G. Hinton, "Simplifying Neural Networks by Soft Weight-Sharing", Neural Computation, 1992;
        K. Ullrich, E. Meeds, M. Welling, "Soft Weight-Sharing for Neural Network Compression", ICLR 2017.
    Differs: a floor under the deviations in the place of the second paper's hyper-priors; components are
        not merged at the end.

    Example:
        >>> prior = MixturePrior(2, -1.0, 1.0, zero_proportion=0.5, deviation=0.1)
        >>> prior.means.detach(), prior.proportions.detach()
        (tensor([ 0., -1.,  1.]), tensor([0.5000, 0.2500, 0.2500]))
    """

    def __init__(
        self,
        components: int,
        low: float,
        high: float,
        *,
        zero_proportion: float = 0.9,
        deviation: float | None = None,
        floor: float | None = None,
    ):
        super().__init__()
        check_int("components", components, 1, 255)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"low must be below high, both finite, got {low} and {high}")
        if not 0 < zero_proportion < 1:
            raise ValueError(f"zero_proportion must be between 0 and 1, got {zero_proportion}")
        deviation = (high - low) / max(1, components - 1) / 2 if deviation is None else deviation
        floor = deviation / 100 if floor is None else floor
        if not 0 < floor < deviation < math.inf:
            raise ValueError(
                f"floor and deviation must be positive, the floor below, got {floor} and {deviation}"
            )
        self.zero_proportion, self.floor = float(zero_proportion), float(floor)
        single = components == 1
        ends = ((low + high) / 2,) * 2 if single else (low, high)
        self.free_means = nn.Parameter(torch.linspace(*ends, components))
        self.logits = nn.Parameter(torch.zeros(components))
        start = math.log(deviation**2 - floor**2)
        self.log_excess = nn.Parameter(torch.full((components + 1,), start))

    @classmethod
    def from_weights(cls, weights: Iterable[Tensor], components: int, **options: Any) -> "MixturePrior":
        """The means spread over the range of these weights; the other arguments as in the constructor."""
        tensors = [weight.detach() for weight in weights]
        if not any(weight.numel() for weight in tensors):
            raise ValueError("weights must hold at least one number, got none")
        values = torch.cat([weight.flatten().float() for weight in tensors])
        low, high = (float(extreme) for extreme in values.aminmax())
        return cls(components, low, high, **options)

    @property
    def means(self) -> Tensor:
        r""":math:`\mu`, (J + 1,); the first is 0."""
        return F.pad(self.free_means, (1, 0))

    @property
    def variances(self) -> Tensor:
        r""":math:`\sigma^2`, (J + 1,), at least ``floor`` squared."""
        return self.floor**2 + self.log_excess.exp()

    @property
    def proportions(self) -> Tensor:
        r""":math:`\pi`, (J + 1,), sum 1; the first is fixed."""
        return F.pad((1 - self.zero_proportion) * self.logits.softmax(0), (1, 0), value=self.zero_proportion)

    def joint(self, weight: Tensor) -> Tensor:
        r""":math:`\log(\pi_j\, \mathcal N(w_i \mid \mu_j, \sigma_j^2))`, (n, J + 1)."""
        variances = self.variances
        constant = self.proportions.log() - 0.5 * (2 * math.pi * variances).log()
        return constant - (weight.reshape(-1, 1) - self.means).square() / (2 * variances)

    def forward(self, *weights: Tensor) -> Tensor:
        """The negative log density of all numbers in these tensors: a scalar."""
        return -sum(self.joint(weight).logsumexp(1).sum() for weight in weights)

    def responsibilities(self, weight: Tensor) -> Tensor:
        """:math:`r`, (n, J + 1): how far each component explains each weight; rows sum to 1."""
        return self.joint(weight).softmax(1)

    def collapse(self, weight: Tensor) -> ClusterCode:
        """Give every weight the mean of the component that is most responsible for it, as a code.

        Components that no weight of this tensor needs are not stored.
        """
        with torch.no_grad():
            chosen = self.joint(weight.detach().float()).argmax(1)
            used, indices = chosen.unique(return_inverse=True)
            bits = max(1, (len(used) - 1).bit_length())
            return ClusterCode(pack_bits(indices, bits), self.means[used].clone(), tuple(weight.shape), bits)


class SoftSharing(nn.Module):
    """A network and the prior of its weights, so that both are trained together.

    ``core.train(SoftSharing(model, prior), split, loss=soft_sharing_loss(tau, images))`` moves the
    parameters of both; ``collapse`` ends it.

    Args:
        model: any network.
        prior: of all the weights of the layers ``only``.
        only: names of linear layers and convolutions; None means all.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, model: nn.Module, prior: MixturePrior, only: Collection[str] | None = None):
        super().__init__()
        self.model, self.prior = model, prior
        self.layers = list(named_layers(model, only=only))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def weights(self) -> list[Tensor]:
        """The weights that share, in the order of the layers."""
        return [self.model.get_submodule(name).weight for name in self.layers]

    def collapse(self) -> nn.Module:
        """A copy of the network with the weights of these layers as codes."""
        return encode(self.model, self.prior.collapse, only=self.layers)


def soft_sharing_loss(tau: float, images: int) -> Loss:
    r"""The loss of training with the prior: :math:`\mathrm{CE} + \tau\, (-\log p(w)) / N`.

    Args:
        tau: weight of the prior, at least 0; 1 is Bayes' rule for cross-entropy per image.
        images: N, the number of training images, at least 1: the prior speaks once, each image once.

    Returns:
        ``loss(model, x, y)`` for ``core.train``, model a ``SoftSharing``.

    Raises:
        TypeError, ValueError: an argument out of range.
    """
    check_int("images", images, 1)
    if not 0 <= tau < math.inf:
        raise ValueError(f"tau must be finite and at least 0, got {tau}")

    def loss(model: SoftSharing, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y) + tau / images * model.prior(*model.weights())

    return loss
