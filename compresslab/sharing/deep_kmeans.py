r"""Deep k-means: train the filters until they fall into clusters, then let each cluster be one filter piece.

The pieces of the weights (rows of filters) are points, and their k-means cost is a penalty of the training
loss. Hard assignments have no useful gradient, so they are relaxed. With the normalised indicator matrix F,
whose column of cluster j holds :math:`1/\sqrt{n_j}` for its members, the k-means cost of the rows of W is
:math:`\|W\|_F^2 - \|F^\top W\|_F^2`. Let F be any matrix with orthonormal columns, and the best one is known:
the leading left singular vectors of W. What remains is the sum of the squared tail of the spectrum, a lower
bound of every k-means cost, whose gradient pulls the pieces towards k directions.
"""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.core.errors import check_int, where
from compresslab.core.layers import encode
from compresslab.core.modules import named_layers
from compresslab.sharing.product import ProductCode
from compresslab.sharing.tables import matrix_shape
from compresslab.sharing.vector_kmeans import kmeans


def filter_rows(weight: Tensor, length: int | None = None) -> Tensor:
    """A weight as points, (numel / length, length): consecutive numbers of a filter form one.

    Args:
        weight: (out, ...), at least two axes.
        length: of a point, a divisor of the numbers in a filter; None takes the last axis: a row of the
            kernel of a convolution, all of a row of a linear layer.

    Raises:
        ValueError: another shape, or a length that does not divide.

    Example:
        >>> filter_rows(torch.zeros(8, 4, 3, 3)).shape, filter_rows(torch.zeros(8, 4, 3, 3), 9).shape
        (torch.Size([96, 3]), torch.Size([32, 9]))
    """
    _, numbers = matrix_shape(tuple(weight.shape), axes=2)
    length = weight.shape[-1] if length is None else check_int("length", length, 1)
    if numbers % length:
        raise ValueError(f"length must divide the {numbers} numbers of a filter, got {length}")
    return weight.reshape(-1, length)


def relaxed_indicator(rows: Tensor, k: int) -> Tensor:
    r"""The matrix F with k orthonormal columns that leaves least of W: its leading left singular vectors.

    Args:
        rows: :math:`W`, (N, s). k: 1 to min(N, s).

    Returns:
        :math:`F`, (N, k), of the dtype of the rows, without a gradient.

    Raises:
        ValueError: k out of range. With :math:`k \ge s` nothing would remain to be penalised.

    Source: H. Zha, X. He, C. Ding, H. Simon, M. Gu, "Spectral Relaxation for K-means Clustering", NIPS 2001.
    """
    check_int("k", k, 1, min(rows.shape))
    values, vectors = torch.linalg.eigh(rows.detach().double().T @ rows.detach().double())  # of W, s is small
    top, directions = values[-k:].clamp(min=0).sqrt(), vectors[:, -k:]
    if top[0] > 1e-7 * top[-1]:
        return (rows.detach().double() @ directions / top).to(rows.dtype)
    U = torch.linalg.svd(rows.detach().double(), full_matrices=False)[0]  # W has not rank k: any completion
    return U[:, :k].to(rows.dtype)


def hard_indicator(indices: Tensor, k: int) -> Tensor:
    r"""The matrix F of an assignment: 0, but :math:`1/\sqrt{n_j}` for the :math:`n_j` members of cluster j.

    Its columns are orthonormal (zero for an empty cluster), and with it the penalty *is* the k-means cost.

    Args:
        indices: (N,), 0 to k - 1. k: number of clusters.

    Returns:
        :math:`F`, (N, k), float32.

    Example:
        >>> hard_indicator(torch.tensor([0, 1, 0, 0, 0]), 2)[:, 0]
        tensor([0.5000, 0.0000, 0.5000, 0.5000, 0.5000])
    """
    check_int("k", k, 1)
    members = F.one_hot(indices, k).double()
    return (members / members.sum(0).clamp(min=1).sqrt()).float()


def clustering_penalty(rows: Tensor, indicator: Tensor) -> Tensor:
    r"""What an indicator leaves of the rows, squared.

    .. math:: \operatorname{tr} W^\top W - \operatorname{tr} F^\top W W^\top F = \|W - F F^\top W\|_F^2

    Args:
        rows: :math:`W`, (N, s). indicator: :math:`F`, (N, k), orthonormal columns; it is not differentiated.

    Returns:
        a scalar with a gradient: :math:`2\,(W - F F^\top W)`.
    """
    indicator = indicator.detach()
    return (rows - indicator @ (indicator.T @ rows)).square().sum()


def relaxation_bound(rows: Tensor, k: int) -> float:
    r"""The spectral lower bound of the k-means cost: :math:`\sum_{i > k} \sigma_i^2(W)`.

    Zero for k at or above the length s of a row; then it says nothing, and k-means can still cost a lot.

    Args:
        rows: (N, s). k: at least 1.

    Example:
        >>> relaxation_bound(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 1)
        5.0
    """
    check_int("k", k, 1)
    return float(torch.linalg.svdvals(rows.detach().double())[k:].square().sum())


class DeepKMeans:
    r"""A loss for ``core.train``: cross-entropy, and the k-means cost of the layers' pieces, relaxed or hard.

    .. math:: \mathrm{CE} + \frac{\lambda}{2} \sum_l \left(\|W_l\|_F^2 - \|F_l^\top W_l\|_F^2\right)

    The indicators are computed from the weights at the first call and again every so many calls; in between
    they stay. One object serves one training.

    Args:
        layers: names of linear layers and convolutions.
        k: clusters of each layer.
        strength: :math:`\lambda`, at least 0.
        every: calls between two updates of F, at least 1 (an epoch's number of batches in the paper).
        length: of a point, as in ``filter_rows``.
        hard: take F from k-means in the place of the relaxation; the only choice for :math:`k \ge s`.

    Raises:
        TypeError, ValueError: an argument out of range; when called: an unknown layer, or a k that is too
            large for the relaxation. The message names the layer.

    Source:
        J. Wu, Y. Wang, Z. Wu, Z. Wang, A. Veeraraghavan, Y. Lin, "Deep k-Means: Re-Training and Parameter
        Sharing with Harder Cluster Assignments for Compressing Deep Convolutions", ICML 2018.
    Differs: the hard indicator as an alternative, for short rows.
    """

    def __init__(
        self,
        layers: Collection[str],
        k: int,
        strength: float,
        *,
        every: int = 50,
        length: int | None = None,
        hard: bool = False,
    ):
        self.layers, self.k, self.every = list(layers), check_int("k", k, 1), check_int("every", every, 1)
        if not 0 <= strength < math.inf:
            raise ValueError(f"strength must be finite and at least 0, got {strength}")
        self.strength, self.length, self.hard = strength, length, hard
        self.calls = 0
        self.indicators: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y) + self.strength / 2 * self.penalty(model)

    def penalty(self, model: nn.Module) -> Tensor:
        """The sum of the layers' penalties, with a gradient."""
        total = torch.zeros(())
        for name, layer in named_layers(model, only=self.layers).items():
            rows = filter_rows(layer.weight, self.length)
            if self.calls % self.every == 0:
                self.indicators[name] = self._indicator(rows, name)
            total = total + clustering_penalty(rows, self.indicators[name])
        self.calls += 1
        return total

    def _indicator(self, rows: Tensor, name: str) -> Tensor:
        if self.hard:
            return hard_indicator(kmeans(rows, self.k, iterations=25)[1], self.k)
        if self.k >= min(rows.shape):
            raise ValueError(
                f"{self.k} clusters leave nothing of rows of {rows.shape[1]} numbers to penalise; "
                f"take hard=True, a longer length or a smaller k{where(name)}"
            )
        return relaxed_indicator(rows, self.k)


def encode_rows(
    model: nn.Module, layers: Collection[str], k: int, *, length: int | None = None, seed: int = 0
) -> nn.Module:
    """Return a copy of the model in which each layer's pieces are replaced by k of them, as codes.

    Args:
        model: the network, trained with the penalty or not.
        layers: names of linear layers and convolutions.
        k: pieces that a layer keeps, 1 to 256.
        length: as in ``filter_rows``.
        seed: of k-means.

    Returns:
        the network with a ``ProductCode`` of one shared code book in each layer, which can be trained on.

    Raises:
        ValueError: an unknown name, k out of range, or a length that does not divide; names the layer.
    """

    def make_code(weight: Tensor) -> ProductCode:
        width = filter_rows(weight, length).shape[1]
        return ProductCode.from_dense(weight, weight[0].numel() // width, k, shared=True, seed=seed)

    return encode(model, make_code, only=layers)
