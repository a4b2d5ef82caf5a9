r"""Tucker: a kernel as a small core kernel between a matrix that mixes inputs and one that mixes outputs.

A tensor unfolded along a mode is a matrix, and its leading left singular vectors span what the tensor does
in that mode. Tucker-2 leaves the small spatial modes of a kernel :math:`K` (N, C, kh, kw) alone:

.. math:: K \approx \mathcal{C} \times_1 U^{(out)} \times_2 U^{(in)}, \qquad
          \mathcal{C} = K \times_1 U^{(out)\top} \times_2 U^{(in)\top}

so the convolution becomes 1x1 (:math:`U^{(in)\top}`), kh x kw (the core), 1x1 (:math:`U^{(out)}`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int
from compresslab.lowrank.chain import chain, check_conv, factor_layer, like_before


def unfold(tensor: Tensor, mode: int) -> Tensor:
    """Lay the fibres of a mode side by side: (n_0, ..., n_d) -> (n_mode, product of the others).

    The other modes keep their order, the last one running fastest.

    Args:
        tensor: of any number of modes, at least one.
        mode: counted from 0.

    Raises:
        TypeError, ValueError: there is no such mode.

    Example:
        >>> unfold(torch.arange(8).view(2, 2, 2), 1)
        tensor([[0, 1, 4, 5],
                [2, 3, 6, 7]])
    """
    check_int("mode", mode, 0, tensor.ndim - 1)
    return tensor.movedim(mode, 0).reshape(tensor.shape[mode], -1)


def fold(matrix: Tensor, mode: int, shape: Sequence[int]) -> Tensor:
    """Undo ``unfold``.

    Args:
        matrix: (n_mode, product of the others).
        mode: counted from 0.
        shape: of the tensor.

    Raises:
        TypeError, ValueError: there is no such mode, or the matrix has not the shape of the unfolding.

    Example:
        >>> fold(torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7]]), 1, (2, 2, 2)).flatten()
        tensor([0, 1, 2, 3, 4, 5, 6, 7])
    """
    check_int("mode", mode, 0, len(shape) - 1)
    others = [size for n, size in enumerate(shape) if n != mode]
    if matrix.ndim != 2 or len(matrix) != shape[mode] or matrix.numel() != torch.Size(shape).numel():
        raise ValueError(
            f"a matrix of shape {tuple(matrix.shape)} is not mode {mode} of a tensor of {tuple(shape)}"
        )
    return matrix.reshape(shape[mode], *others).movedim(0, mode)


def mode_product(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    r"""Multiply every fibre of a mode by a matrix: :math:`(X \times_n M)_{(n)} = M X_{(n)}`.

    Args:
        tensor: :math:`X`, with ``shape[mode]`` equal to n.
        matrix: :math:`M`, (m, n).
        mode: counted from 0.

    Returns:
        the tensor with m in the place of n.

    Raises:
        TypeError, ValueError: there is no such mode, or the sizes do not meet.

    Example:
        >>> mode_product(torch.ones(2, 3), torch.tensor([[1.0, 2.0, 3.0]]), 1)  # ones times (1 2 3)^T
        tensor([[6.],
                [6.]])
    """
    check_int("mode", mode, 0, tensor.ndim - 1)
    if matrix.ndim != 2 or matrix.shape[1] != tensor.shape[mode]:
        raise ValueError(
            f"mode {mode} has {tensor.shape[mode]} entries, "
            f"a matrix of shape {tuple(matrix.shape)} does not fit"
        )
    shape = [*tensor.shape]
    shape[mode] = len(matrix)
    return fold(matrix @ unfold(tensor, mode), mode, shape)


@dataclass(frozen=True)
class Tucker:
    r"""A core and a matrix with orthonormal columns for each of some modes.

    ``core`` has ``ranks[i]`` entries in mode ``modes[i]``; ``factors[i]`` is (n_i, ranks[i]).
    """

    core: Tensor
    factors: tuple[Tensor, ...]
    modes: tuple[int, ...]

    def to_tensor(self) -> Tensor:
        """The tensor that it stands for: the core times every factor in its mode."""
        tensor = self.core
        for factor, mode in zip(self.factors, self.modes, strict=True):
            tensor = mode_product(tensor, factor, mode)
        return tensor

    @property
    def parameters(self) -> int:
        """The numbers it holds, core and factors."""
        return self.core.numel() + sum(factor.numel() for factor in self.factors)


def hosvd(tensor: Tensor, ranks: Sequence[int], modes: Sequence[int] = (0, 1)) -> Tucker:
    r"""Project every mode on its leading singular vectors, each found without regard to the others.

    .. math:: U^{(n)} = \text{the } R_n \text{ leading left singular vectors of } X_{(n)}, \qquad
              \|X - \hat X\|_F^2 \le \sum_n \sum_{i > R_n} \sigma_i^2(X_{(n)})

    Args:
        tensor: :math:`X`, floating-point, finite.
        ranks: :math:`R_n`, 1 to the size of the mode (or to the product of the others, where less).
        modes: n; by default the output and input channels of a kernel.

    Returns:
        a ``Tucker`` in float64. Within a factor sqrt(number of modes) of the best possible error.

    Raises:
        TypeError, ValueError: a rank out of its range, modes that are not there or repeated, or a tensor that
            is not floating-point, finite and of all these modes.

    Source:
        L. De Lathauwer, B. De Moor, J. Vandewalle, "A Multilinear Singular Value Decomposition", 2000 (also
        the bound on the error).
    Differs: the singular vectors are eigenvectors of :math:`X_{(n)} X_{(n)}^\top`, which is quick, and blind
        to singular values below about 1e-8 of the largest.

    Example:
        >>> x = torch.diag(torch.tensor([3.0, 4.0]))
        >>> hosvd(x, (1, 1)).to_tensor().abs()  # what is lost is the 3
        tensor([[0., 0.],
                [0., 4.]], dtype=torch.float64)
    """
    tensor, ranks, modes = _check(tensor, ranks, modes)
    factors = tuple(
        leading_vectors(unfold(tensor, mode), rank) for rank, mode in zip(ranks, modes, strict=True)
    )
    return Tucker(_project(tensor, factors, modes), factors, modes)


def hooi(
    tensor: Tensor,
    ranks: Sequence[int],
    modes: Sequence[int] = (0, 1),
    *,
    iterations: int = 20,
    tolerance: float = 1e-6,
    start: Tucker | None = None,
) -> Tucker:
    r"""Refine the HOSVD: choose each mode's vectors for the tensor that the other modes have projected.

    .. math:: U^{(n)} \leftarrow \text{leading left singular vectors of }
              \big(X \times_{m \ne n} U^{(m)\top}\big)_{(n)}

    Every step maximises :math:`\|\mathcal{C}\|_F` over one factor, and
    :math:`\|X - \hat X\|_F^2 = \|X\|_F^2 - \|\mathcal{C}\|_F^2`: the error never rises above the HOSVD's.

    Args:
        tensor, ranks, modes: as for ``hosvd``.
        iterations: sweeps over the modes at most; 0 is the HOSVD.
        tolerance: stop when a sweep lowers the squared relative error by less.
        start: a ``Tucker`` of these ranks and modes whose factors to begin with, instead of the HOSVD's.

    Returns:
        a ``Tucker`` in float64.

    Raises:
        TypeError, ValueError: as ``hosvd``, or a number of iterations below 0.

    Source:
        L. De Lathauwer, B. De Moor, J. Vandewalle, "On the Best Rank-1 and Rank-(R1, R2, ..., RN)
        Approximation of Higher-Order Tensors", 2000.

    Example:
        >>> x = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
        >>> errors = [(t(x, (2, 2)).to_tensor() - x).norm() for t in (hosvd, hooi)]
        >>> bool(errors[1] < errors[0])
        True
    """
    check_int("iterations", iterations, 0)
    factors = list((start or hosvd(tensor, ranks, modes)).factors)
    tensor, _, modes = _check(tensor, ranks, modes)
    core, total = _project(tensor, factors, modes), tensor.square().sum()
    for _ in range(iterations):
        before = core.square().sum()
        for n, mode in enumerate(modes):
            others = [i for i in range(len(modes)) if i != n]
            projected = _project(tensor, [factors[i] for i in others], [modes[i] for i in others])
            factors[n] = leading_vectors(unfold(projected, mode), factors[n].shape[1])
        core = _project(projected, factors[-1:], modes[-1:])
        if core.square().sum() - before <= tolerance * total:
            break
    return Tucker(core, tuple(factors), modes)


def tucker_conv(conv: nn.Conv2d, ranks: tuple[int, int], iterations: int = 0) -> nn.Sequential:
    r"""The convolution as 1x1 to few channels, the core kernel there, and 1x1 back to all outputs.

    .. math:: CN k_h k_w \;\to\; C R_{in} + R_{in} R_{out} k_h k_w + R_{out} N \quad\text{weights}

    Args:
        conv: one group; any kernel size, stride, padding, dilation, with or without bias. Not changed.
        ranks: (R_out, R_in): at most the output and the input channels.
        iterations: of ``hooi``; 0 is the HOSVD.

    Returns:
        ``reduce`` (C to R_in), ``core`` (R_in to R_out, with the stride, the padding and the dilation) and
        ``expand`` (R_out to N, with the bias), in the dtype of ``conv``. At full ranks it computes the same.

    Raises:
        TypeError: ``conv`` is no ``nn.Conv2d``, a rank no whole number.
        ValueError: ``conv`` has groups, or a rank is out of its range.

    Source:
        Y.-D. Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
        Applications", ICLR 2016, section 3.

    Example:
        >>> tucker_conv(nn.Conv2d(8, 16, 3, stride=2, padding=1), (4, 3))
        Sequential(
          (reduce): Conv2d(8, 3, kernel_size=(1, 1), stride=(1, 1), bias=False)
          (core): Conv2d(3, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
          (expand): Conv2d(4, 16, kernel_size=(1, 1), stride=(1, 1))
        )
    """
    check_conv(conv)
    found = hooi(conv.weight, ranks, iterations=iterations)
    u_out, u_in = found.factors  # (N, R_out), (C, R_in)
    layers = chain(
        reduce=factor_layer(conv, u_in.T[:, :, None, None]),
        core=factor_layer(conv, found.core, axes=(0, 1)),
        expand=factor_layer(conv, u_out[:, :, None, None], bias=conv.bias),
    )
    return like_before(layers, conv)


def check_tensor(tensor: Tensor, name: str = "the tensor") -> Tensor:
    """The tensor in float64, detached; ``name`` is for the messages.

    Raises:
        TypeError: it is not a floating-point tensor.
        ValueError: it has no mode or no entry, or holds nan or inf.
    """
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = getattr(tensor, "dtype", type(tensor).__name__)
        raise TypeError(f"{name} must be floating-point, got {got}")
    if tensor.ndim == 0 or tensor.numel() == 0:
        raise ValueError(f"{name} must have modes and entries, got shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must be finite, got nan or inf in it")
    return tensor.detach().double()


def leading_vectors(matrix: Tensor, count: int) -> Tensor:
    """The ``count`` leading left singular vectors of ``matrix`` (m, n), as columns (m, count).

    Where there are more columns than rows, they are eigenvectors of the m x m matrix of inner products.
    """
    if len(matrix) > matrix.shape[1] >= count:
        return torch.linalg.svd(matrix, full_matrices=False)[0][:, :count]
    return torch.linalg.eigh(matrix @ matrix.T)[1][:, -count:].flip(1)  # eigenvalues come in rising order


def _project(tensor: Tensor, factors: Sequence[Tensor], modes: Sequence[int]) -> Tensor:
    for factor, mode in zip(factors, modes, strict=True):
        tensor = mode_product(tensor, factor.T, mode)
    return tensor


def _check(
    tensor: Tensor, ranks: Sequence[int], modes: Sequence[int]
) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """The arguments of ``hosvd`` in float64 and as tuples, if they make sense."""
    tensor = check_tensor(tensor)
    if not modes or len(ranks) != len(modes) or len(set(modes)) != len(modes):
        raise ValueError(
            f"ranks must have one entry for each of at least one distinct mode, "
            f"got ranks {tuple(ranks)} and modes {tuple(modes)}"
        )
    for rank, mode in zip(ranks, modes, strict=True):
        check_int("a mode", mode, 0, tensor.ndim - 1)
        size = tensor.shape[mode]
        check_int(f"the rank of mode {mode}", rank, 1, min(size, tensor.numel() // size))
    return tensor, tuple(ranks), tuple(modes)
