r"""CP: a kernel as a sum of R outer products, which makes four convolutions, two of them depthwise.

.. math:: K_{n,c,i,j} \approx \sum_{r=1}^{R} a_{n,r}\, b_{c,r}\, c_{i,r}\, d_{j,r}

No formula gives the best factors; alternating least squares solves for one factor at a time. And a best
approximation need not exist: components may grow without end while they cancel each other, and the error
creeps towards a limit that no finite factors reach. ``CPResult.cancellation`` shows it, ``ridge`` prevents
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int
from compresslab.lowrank.chain import chain, check_conv, factor_layer, like_before
from compresslab.lowrank.tucker import check_tensor, leading_vectors, unfold

STABILISER = 1e-12  # the ridge that is always there, so that collinear columns do no harm
FIRST_MOMENTUM = 0.5  # how far a sweep starts beyond the last step, in units of that step
NEARLY_EXACT = 1e-8  # squared relative error, below which the difference of squares has no digits left


@dataclass(frozen=True)
class CPResult:
    r"""What ``cp_als`` found.

    Attributes:
        factors: one (n, R) per mode, float64; the columns of a component have equal norms in all modes.
        error: :math:`\|X - \hat X\|_F / \|X\|_F`.
        errors: the same after every sweep; twice the same where a sweep was thrown away.
        converged: whether the last sweep lowered the error (with a ridge: the root of the sum that is
            minimised) by less than the tolerance. A swamp, where it falls too slowly, looks the same.
        cancellation: :math:`\sqrt{\sum_r \|x_r\|^2} / \|\hat X\|`, for the components :math:`x_r`: 1 for
            orthogonal ones; less, down to :math:`1 / \sqrt R`, where they point the same way; large where
            they cancel each other.
    """

    factors: tuple[Tensor, ...]
    error: float
    errors: tuple[float, ...]
    converged: bool
    cancellation: float


def cp_to_tensor(factors: Sequence[Tensor]) -> Tensor:
    r"""The sum of the outer products of the factors' columns.

    Args:
        factors: one (n, R) per mode, all of the same R.

    Returns:
        the tensor, one mode for each factor.

    Raises:
        ValueError: there is no factor, or they are no matrices of equally many columns.

    Example:
        >>> cp_to_tensor([torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])])
        tensor([[ 3.,  5.],
                [ 6., 10.]])
    """
    shapes = [tuple(factor.shape) for factor in factors]
    if not shapes or any(len(shape) != 2 or shape[1] != shapes[0][-1] for shape in shapes):
        raise ValueError(f"factors must be matrices with as many columns each, got shapes {shapes}")
    if len(factors) == 1:
        return factors[0].sum(1)
    return (factors[0] @ khatri_rao(factors[1:]).T).reshape([shape[0] for shape in shapes])


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Column by column the Kronecker product: (n_1, R), (n_2, R), ... -> (n_1 n_2 ..., R).

    Example:
        >>> khatri_rao([torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])]).flatten()
        tensor([ 3.,  5.,  6., 10.])
    """
    return reduce(lambda left, right: (left[:, None] * right).flatten(0, 1), factors)


def cp_als(
    tensor: Tensor,
    rank: int,
    *,
    iterations: int = 100,
    tolerance: float = 1e-6,
    ridge: float = 0.0,
    seed: int = 0,
) -> CPResult:
    r"""Fit a CP decomposition by alternating least squares.

    With the columns of the other factors scaled to length 1, the factor of mode n is updated by

    .. math:: A^{(n)} \leftarrow X_{(n)} Z\, (Z^\top Z + \rho I)^{-1}, \qquad
              Z^\top Z = \ast_{m \ne n} A^{(m)\top} A^{(m)}

    (Z: the Khatri-Rao product of the others), which minimises
    :math:`\|X - \hat X\|^2 + \rho \sum_r \|x_r\|^2` over this factor: that sum never rises, and with
    :math:`\rho > 0` no component can grow without end. The start is the leading singular vectors of each
    unfolding, and random columns where a mode has fewer than R.

    Args:
        tensor: :math:`X`, floating-point, finite, of at least two modes.
        rank: R, at most the product of all modes but the largest: every tensor has that rank or less.
        iterations: sweeps over all modes at most, at least 1.
        tolerance: stop when a sweep lowers the relative error by less.
        ridge: :math:`\rho \ge 0`; compare it with 1. 1e-3 or so calms components that cancel.
        seed: of the random columns.

    Returns:
        a ``CPResult``. It does not warn: ask it for ``converged`` and ``cancellation``.

    Raises:
        TypeError, ValueError: an argument out of its range, or a tensor that is not as said.

    Source:
        T. G. Kolda, B. W. Bader, "Tensor Decompositions and Applications", SIAM Review 2009, section 3.4;
        V. de Silva, L.-H. Lim, "Tensor Rank and the Ill-Posedness of the Best Low-Rank Approximation
        Problem", 2008, for tensors without a best approximation.
    Differs: the products with X are shared between the modes of a sweep; a sweep starts a little beyond the
        last factors, in the direction in which they moved; :math:`\rho` is never below 1e-12.

    Example:
        >>> x = torch.zeros(2, 2, 2)
        >>> x[0, 0, 0], x[1, 1, 1] = 3.0, 4.0
        >>> result = cp_als(x, 2)
        >>> result.error < 1e-6, result.converged, round(result.cancellation, 3)
        (True, True, 1.0)
    """
    tensor = check_tensor(tensor)
    _check(tensor, rank, iterations, tolerance, ridge)
    norm = tensor.norm()
    if norm == 0:
        return CPResult(tuple(tensor.new_zeros(n, rank) for n in tensor.shape), 0.0, (0.0,), True, 1.0)
    ridge += STABILISER
    factors, scales, errors, converged = _iterate(tensor / norm, rank, iterations, tolerance, ridge, seed)
    error, fitted = _measure(tensor / norm, factors, scales)
    share = (scales * norm) ** (1 / tensor.ndim)
    return CPResult(
        tuple(factor * share for factor in factors),
        error,
        (*errors[:-1], error),
        converged,
        (scales.norm() / fitted).item() if fitted > 0 else float("inf"),
    )


def _iterate(
    tensor: Tensor, rank: int, iterations: int, tolerance: float, ridge: float, seed: int
) -> tuple[list[Tensor], Tensor, list[float], bool]:
    """Sweep until the error stands still: the factors, the components' sizes, the errors, whether it did.

    A sweep starts beyond the last factors, in the direction in which they moved. If that makes things worse,
    the sweep is thrown away and the next one starts from the factors themselves.
    """
    factors = before = _start(tensor, rank, seed)
    momentum, least, errors = FIRST_MOMENTUM, float("inf"), []
    scales = tensor.new_zeros(rank)
    damping = ridge * torch.eye(rank, dtype=tensor.dtype, device=tensor.device)
    for _ in range(iterations):
        beyond = [then.lerp(now, 1 + momentum) for then, now in zip(before[1:], factors[1:], strict=True)]
        moved, sizes, gram, overlap = _sweep(tensor, [factors[0], *map(_unit, beyond)], damping)
        error = _error(tensor, moved, sizes, gram, overlap)
        objective = (error**2 + ridge * sizes.square().sum().item()) ** 0.5
        if objective > least and before is not factors:
            momentum, before = momentum / 2, factors
            errors.append(errors[-1])
            continue
        momentum = min(1.0, momentum * 1.1)
        gain, least = least - objective, objective
        factors, before, scales = moved, factors, sizes
        errors.append(error)
        if gain < tolerance:
            return factors, scales, errors, True
    return factors, scales, errors, False


def _unit(columns: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The columns scaled to length 1; those of zeros stay."""
    lengths = columns.norm(dim=0) if lengths is None else lengths
    return columns / lengths.clamp_min(torch.finfo(columns.dtype).tiny)


def _sweep(
    tensor: Tensor, factors: list[Tensor], damping: Tensor
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Update every factor once; their columns have length 1 before and after (the first factor may be any).

    Only two products with the whole tensor are needed: one for the first mode, and one with the new first
    factor, from which the products of all other modes follow.

    Returns:
        the factors, the components' sizes (R,), the product of the Gram matrices of all factors (R, R), and
        the inner product of X with the new approximation.
    """
    factors, grams = list(factors), [factor.T @ factor for factor in factors]
    for n in range(tensor.ndim):
        if n == 0:
            product = unfold(tensor, 0) @ khatri_rao(factors[1:])
        elif n == 1:  # (R, n_1, n_2, ...): the tensor times the columns of the updated factors
            rest = (factors[0].T @ tensor.flatten(1)).view(-1, *tensor.shape[1:])
            product = _close(rest, factors[2:])
        else:
            rest = (factors[n - 1].T[:, None] @ rest.flatten(2)).view(-1, *rest.shape[2:])
            product = _close(rest, factors[n + 1 :])
        normal = reduce(torch.mul, [gram for m, gram in enumerate(grams) if m != n])
        solved = torch.linalg.solve_ex(normal + damping, product, left=False)[0]  # solved @ (...) = product
        scales = solved.norm(dim=0)
        factors[n] = _unit(solved, scales)
        grams[n] = factors[n].T @ factors[n]
    return factors, scales, normal * grams[-1], (product * solved).sum()


def _close(rest: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Sum (R, n, n_1, n_2, ...) over all but n with the columns of the factors of the other modes: (n, R)."""
    if not factors:
        return rest.T
    return (rest.flatten(2) @ khatri_rao(factors).T[:, :, None])[:, :, 0].T


def _error(tensor: Tensor, factors: list[Tensor], scales: Tensor, gram: Tensor, overlap: Tensor) -> float:
    r"""The relative error by :math:`\|X\|^2 - 2 \langle X, \hat X \rangle + \|\hat X\|^2`, X of norm 1.

    The difference loses its digits near an exact fit and where large components cancel; there the tensors
    themselves are subtracted.
    """
    squared = (1 - 2 * overlap + scales @ gram @ scales).item()
    if squared > NEARLY_EXACT * (1 + scales.square().sum().item()):
        return squared**0.5
    return _measure(tensor, factors, scales)[0]


def _measure(tensor: Tensor, factors: list[Tensor], scales: Tensor) -> tuple[float, float]:
    """The error and the norm of the approximation, by building it."""
    fitted = cp_to_tensor([factors[0] * scales, *factors[1:]])
    return (tensor - fitted).norm().item(), fitted.norm().item()


def _start(tensor: Tensor, rank: int, seed: int) -> list[Tensor]:
    """Leading singular vectors of each unfolding, filled up with random columns of length 1."""
    generator = torch.Generator().manual_seed(seed)
    factors = []
    for mode, size in enumerate(tensor.shape):
        known = min(rank, size, tensor.numel() // size)
        more = torch.randn(size, rank - known, generator=generator, dtype=tensor.dtype).to(tensor.device)
        columns = torch.cat([leading_vectors(unfold(tensor, mode), known), more], 1)
        factors.append(_unit(columns))
    return factors


def _check(tensor: Tensor, rank: int, iterations: int, tolerance: float, ridge: float) -> None:
    if tensor.ndim < 2:
        raise ValueError(f"the tensor must have at least two modes, got shape {tuple(tensor.shape)}")
    check_int("rank", rank, 1, tensor.numel() // max(tensor.shape))
    check_int("iterations", iterations, 1)
    for name, value in (("tolerance", tolerance), ("ridge", ridge)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a finite number of at least 0, got {value!r}")
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")


def cp_conv(
    conv: nn.Conv2d,
    rank: int,
    *,
    iterations: int = 200,
    tolerance: float = 1e-4,
    ridge: float = 1e-3,
    seed: int = 0,
) -> nn.Sequential:
    r"""The convolution as 1x1, kh x 1 depthwise, 1 x kw depthwise, 1x1.

    .. math:: C N k_h k_w \;\to\; R\,(C + k_h + k_w + N) \quad\text{weights}

    Args:
        conv: one group; any kernel size, stride, padding, dilation, with or without bias. Not changed.
        rank: R, the channels in between.
        iterations, tolerance, ridge, seed: of ``cp_als``.

    Returns:
        ``reduce`` (C to R), ``vertical`` and ``horizontal`` (R groups; each with the stride, the padding and
        the dilation of its axis) and ``expand`` (R to N, with the bias), in the dtype of ``conv``.

    Raises:
        TypeError: ``conv`` is no ``nn.Conv2d``, the rank no whole number.
        ValueError: ``conv`` has groups, an argument is out of its range, or the iterations did not converge.

    Source:
        V. Lebedev et al., "Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition",
        ICLR 2015, section 3.
    Differs: alternating least squares with a ridge, where the paper fits by non-linear least squares.

    Example:
        >>> cp_conv(nn.Conv2d(8, 16, 3, stride=2, padding=1), 5)
        Sequential(
          (reduce): Conv2d(8, 5, kernel_size=(1, 1), stride=(1, 1), bias=False)
          (vertical): Conv2d(5, 5, kernel_size=(3, 1), stride=(2, 1), padding=(1, 0), groups=5, bias=False)
          (horizontal): Conv2d(5, 5, kernel_size=(1, 3), stride=(1, 2), padding=(0, 1), groups=5, bias=False)
          (expand): Conv2d(5, 16, kernel_size=(1, 1), stride=(1, 1))
        )
    """
    check_conv(conv)
    found = cp_als(conv.weight, rank, iterations=iterations, tolerance=tolerance, ridge=ridge, seed=seed)
    if not found.converged:
        steps = [abs(a - b) for a, b in pairwise(found.errors) if a != b]  # equal: a sweep thrown away
        step = steps[-1] if steps else float("inf")
        raise ValueError(
            f"CP of rank {rank} did not converge in {iterations} iterations: "
            f"relative error {found.error:.3g}, last change {step:.2g} where tolerance is {tolerance:g}, "
            f"cancellation {found.cancellation:.3g}; allow more iterations, a larger tolerance "
            f"or a larger ridge (got {ridge:g})"
        )
    a, b, c, d = found.factors  # (N, R), (C, R), (kh, R), (kw, R)
    layers = chain(
        reduce=factor_layer(conv, b.T[:, :, None, None]),
        vertical=factor_layer(conv, c.T[:, None, :, None], axes=(0,), groups=rank),
        horizontal=factor_layer(conv, d.T[:, None, None, :], axes=(1,), groups=rank),
        expand=factor_layer(conv, a[:, :, None, None], bias=conv.bias),
    )
    return like_before(layers, conv)
