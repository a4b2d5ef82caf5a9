r"""One matrix into two: the truncated singular value decomposition, and what it does to a linear layer.

A matrix of rank k is a product of a tall and a wide one, :math:`W = BA`, which holds :math:`k(m + n)` numbers
instead of :math:`mn`. No matrix of rank k is nearer to :math:`W` than the one that keeps the k largest
singular values. Every method of this family rests on this file: a kernel is turned into a matrix first
(``convolution``), or the matrix is seen through the data first (``response``).
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from compresslab.core.errors import check_int

from .chain import chain, like_before
from .tucker import check_tensor


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    r"""The nearest matrix of a given rank, as a product of two.

    .. math:: W = U \Sigma V^\top \approx U_k \Sigma_k V_k^\top = BA, \qquad
              B = U_k \Sigma_k^{1/2}, \quad A = \Sigma_k^{1/2} V_k^\top

    The singular values are split evenly, so that both factors have the same norm: a gradient step then moves
    them alike.

    Args:
        matrix: :math:`W` (m, n), floating-point, finite.
        rank: k, 1 to min(m, n).

    Returns:
        :math:`B` (m, k) and :math:`A` (k, n), in the matrix's dtype; computed in float64.

    Raises:
        TypeError: the matrix is not floating-point, or the rank no whole number.
        ValueError: the matrix has not two axes or is not finite, or the rank is out of its range.

    Source:
        C. Eckart, G. Young, "The Approximation of One Matrix by Another of Lower Rank", 1936.

    Example:
        >>> B, A = truncated_svd(torch.diag(torch.tensor([9.0, 4.0])), 1)
        >>> B @ A
        tensor([[9., 0.],
                [0., 0.]])
        >>> B.norm(), A.norm()  # the square root of 9, twice
        (tensor(3.), tensor(3.))
    """
    check_matrix(matrix)
    check_int("rank", rank, 1, min(matrix.shape))
    u, s, vh = torch.linalg.svd(matrix.detach().double(), full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(matrix.dtype), (root[:, None] * vh[:rank]).to(matrix.dtype)


def truncation_error(singular_values: Tensor, rank: int) -> float:
    r"""How far the nearest matrix of a given rank is: what the singular values left out add up to.

    .. math:: \|W - W_k\|_F = \sqrt{\sum_{i > k} \sigma_i^2}

    Args:
        singular_values: :math:`\sigma` (r,), in descending order.
        rank: k, 0 to r.

    Returns:
        a distance of at least 0, in the unit of the weights.

    Raises:
        TypeError, ValueError: the rank is no whole number from 0 to r, or these are no singular values.

    Example:
        >>> truncation_error(torch.tensor([9.0, 4.0, 3.0]), 1)
        5.0
    """
    check_singular_values(singular_values)
    check_int("rank", rank, 0, len(singular_values))
    return singular_values[rank:].double().norm().item()


def break_even_rank(m: int, n: int) -> int:
    r"""The largest rank at which two factors hold fewer numbers than the matrix.

    .. math:: k(m + n) < mn \iff k < \frac{mn}{m + n}

    Args:
        m, n: rows and columns of the matrix, at least 1.

    Returns:
        k, or 0 if already rank 1 saves nothing. It is less than half of min(m, n) for a square matrix, and
        near min(m, n) for a long one.

    Raises:
        TypeError, ValueError: no whole numbers of at least 1.

    Example:
        >>> break_even_rank(100, 100), break_even_rank(10, 1000), break_even_rank(2, 2)
        (49, 9, 0)
    """
    check_int("m", m, 1)
    check_int("n", n, 1)
    return (m * n - 1) // (m + n)


def svd_linear(layer: nn.Linear, rank: int) -> nn.Sequential:
    r"""Two linear layers for one: down to ``rank`` features, and up again.

    .. math:: y = Wx + b \approx B(Ax) + b

    Args:
        layer: an ``nn.Linear``, with or without bias. Not changed.
        rank: k, 1 to min(in_features, out_features). At full rank nothing is lost, and nothing gained.

    Returns:
        ``reduce`` (in_features to k, no bias) and ``expand`` (k to out_features, with the bias), in a new
        ``nn.Sequential`` on the layer's device, in its dtype and mode; what is frozen stays frozen.

    Raises:
        TypeError: ``layer`` is no ``nn.Linear``.
        ValueError: the rank is out of its range.

    Source:
        T. N. Sainath et al., "Low-Rank Matrix Factorization for Deep Neural Network Training with
        High-Dimensional Output Targets", 2013; E. Denton et al., "Exploiting Linear Structure Within
        Convolutional Networks for Efficient Evaluation", 2014.

    Example:
        >>> svd_linear(nn.Linear(300, 100), 10)
        Sequential(
          (reduce): Linear(in_features=300, out_features=10, bias=False)
          (expand): Linear(in_features=10, out_features=100, bias=True)
        )
    """
    check_linear(layer)
    return linear_pair(layer, *truncated_svd(layer.weight, rank))


def linear_pair(layer: nn.Linear, B: Tensor, A: Tensor, bias: Tensor | None = None) -> nn.Sequential:
    """Two linear layers that hold given factors, whatever these come from.

    Args:
        layer: where the device, the dtype, the mode and what is frozen come from.
        B, A: (out_features, k) and (k, in_features).
        bias: (out_features,); None for the bias that is there, if any.
    """
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    bias = layer.bias if bias is None else bias
    reduce = skip_init(nn.Linear, layer.in_features, len(A), bias=False, **like)
    expand = skip_init(nn.Linear, len(A), layer.out_features, bias=bias is not None, **like)
    with torch.no_grad():
        reduce.weight.copy_(A)
        expand.weight.copy_(B)
        if bias is not None:
            expand.bias.copy_(bias)
    return like_before(chain(reduce=reduce, expand=expand), layer)


def check_linear(layer: nn.Linear) -> None:
    """Refuse what is no ``nn.Linear``."""
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"expected an nn.Linear, got {type(layer).__name__}")


def check_matrix(matrix: Tensor, name: str = "matrix") -> None:
    """Refuse what is no finite floating-point tensor of two axes, neither of them empty."""
    check_tensor(matrix, name)
    if matrix.ndim != 2:
        raise ValueError(f"{name} must be a matrix with rows and columns, got shape {tuple(matrix.shape)}")


def check_singular_values(values: Tensor) -> None:
    """Refuse what is no vector of finite numbers that go down and end at 0 or above."""
    if isinstance(values, Tensor) and (values.ndim != 1 or not len(values)):
        raise ValueError(f"singular_values must be (r,), r >= 1, got shape {tuple(values.shape)}")
    check_tensor(values, "singular_values")
    if values[-1] < 0 or (values.diff() > 0).any():
        raise ValueError("singular_values must be in descending order and at least 0")


def check_moments(moments: Tensor, inputs: int) -> None:
    r"""Refuse what cannot be the :math:`XX^\top` of this many inputs."""
    check_matrix(moments, "moments")
    if moments.shape != (inputs, inputs):
        raise ValueError(
            f"moments must be ({inputs}, {inputs}) for {inputs} inputs, got {tuple(moments.shape)}"
        )
