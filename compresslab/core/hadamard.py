"""The fast Walsh-Hadamard transform, which rotations before rounding and Fastfood layers are built on."""

import torch
from torch import Tensor


def hadamard_transform(x: Tensor) -> Tensor:
    r"""Multiply by Sylvester's Hadamard matrix, along the last axis, without ever building it.

    .. math:: y = H_n x, \qquad H_1 = 1, \quad H_{2n} = \begin{pmatrix} H_n & H_n \\ H_n & -H_n \end{pmatrix}

    Sums and differences of pairs that are 1, 2, 4, ... apart: :math:`n \log_2 n` additions for :math:`n^2`.

    Args:
        x: (..., n) with n a power of two.

    Returns:
        The shape of ``x``. Not scaled: applied twice it multiplies by n.

    Raises:
        ValueError: n is no power of two.

    Source: B. J. Fino, V. R. Algazi, "Unified Matrix Treatment of the Fast Walsh-Hadamard Transform", IEEE
    Transactions on Computers, 1976.

    Example:
        >>> hadamard_transform(torch.tensor([8.0, 0.0, 1.0, 0.0]))  # the 8 is in every coordinate
        tensor([9., 9., 7., 7.])
    """
    n = x.shape[-1] if x.ndim else 0
    if n == 0 or n & (n - 1):
        raise ValueError(f"the last axis must be a power of two long, got shape {tuple(x.shape)}")
    width = 1
    while width < n:
        pairs = x.reshape(*x.shape[:-1], n // (2 * width), 2, width)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([a + b, a - b], dim=-2).reshape(x.shape)
        width *= 2
    return x
