r"""Block term: a kernel as a sum of small Tucker-2 terms, which makes the middle convolution a grouped one.

.. math:: K \approx \sum_{b=1}^{B} \mathcal{C}_b \times_1 U_b \times_2 V_b

With one block it is Tucker-2. With ranks (1, 1) the middle convolution is depthwise, as in CP, but with a
whole kh x kw filter for each channel. In between lie the grouped convolutions: a core of B blocks on a
diagonal, as wide as a dense one that costs B times as much.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int
from compresslab.lowrank.chain import chain, check_conv, factor_layer, like_before
from compresslab.lowrank.tucker import Tucker, check_tensor, hooi


@dataclass(frozen=True)
class BlockTerm:
    r"""A sum of Tucker-2 terms.

    Attributes:
        terms: a ``Tucker`` of modes 0 and 1 for each block, float64.
        errors: :math:`\|K - \hat K\|_F / \|K\|_F` after every sweep; the first entry before any.
    """

    terms: tuple[Tucker, ...]
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """The relative error that is left."""
        return self.errors[-1]

    @property
    def parameters(self) -> int:
        """The numbers that all terms hold together."""
        return sum(term.parameters for term in self.terms)

    def to_tensor(self) -> Tensor:
        """The kernel that it stands for."""
        return torch.stack([term.to_tensor() for term in self.terms]).sum(0)


def block_term(
    kernel: Tensor,
    blocks: int,
    ranks: tuple[int, int],
    *,
    iterations: int = 30,
    tolerance: float = 1e-5,
) -> BlockTerm:
    r"""Fit the terms in turn, each to what all the others leave over.

    .. math:: (\mathcal{C}_b, U_b, V_b) \leftarrow \arg\min
              \Big\|\Big(K - \sum_{a \ne b} \mathcal{C}_a \times_1 U_a \times_2 V_a\Big)
              - \mathcal{C}_b \times_1 U_b \times_2 V_b\Big\|_F

    Each step goes on from the term as it is (one sweep of ``hooi``), so the error never rises. The start is
    greedy: the first term fits the kernel, the next one what is left.

    Args:
        kernel: K, of at least two modes: outputs, inputs, and any others; floating-point, finite.
        blocks: B, at least 1.
        ranks: (R_out, R_in) of every block, each at most the size of its mode.
        iterations: sweeps over the blocks at most; 0 is the greedy start.
        tolerance: stop when a sweep lowers the relative error by less.

    Returns:
        a ``BlockTerm``.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source:
        L. De Lathauwer, "Decompositions of a Higher-Order Tensor in Block Terms, Part II: Definitions and
        Uniqueness", 2008; L. De Lathauwer, D. Nion, Part III, 2008, for alternating least squares.
    Differs: a whole term is refitted at a time, with orthonormal factors, instead of one factor of all terms.

    Example:
        >>> k = torch.zeros(4, 4, 1)
        >>> k[:2, :2, 0], k[2:, 2:, 0] = torch.tensor([[3.0, 4.0], [1.0, 2.0]]), torch.eye(2)
        >>> fit = block_term(k, 2, (2, 2))
        >>> fit.error < 1e-6, fit.parameters  # two cores of 4, and 16 for each pair of factors
        (True, 40)
    """
    kernel = check_tensor(kernel)
    check_int("blocks", blocks, 1)
    check_int("iterations", iterations, 0)
    norm = kernel.norm().item() or 1.0
    terms: list[Tucker] = []
    rest = kernel
    for _ in range(blocks):
        terms.append(hooi(rest, ranks))
        rest = rest - terms[-1].to_tensor()
    errors = [rest.norm().item() / norm]
    for _ in range(iterations):
        for b, term in enumerate(terms):
            target = rest + term.to_tensor()
            terms[b] = hooi(target, ranks, iterations=1, start=term)
            rest = target - terms[b].to_tensor()
        errors.append(rest.norm().item() / norm)
        if errors[-2] - errors[-1] < tolerance:
            break
    return BlockTerm(tuple(terms), tuple(errors))


def block_term_conv(
    conv: nn.Conv2d,
    blocks: int,
    ranks: tuple[int, int],
    *,
    iterations: int = 30,
    tolerance: float = 1e-5,
) -> nn.Sequential:
    r"""The convolution as 1x1, a grouped kh x kw with a group for each block, 1x1.

    .. math:: C N k_h k_w \;\to\; B\,(C R_{in} + R_{in} R_{out} k_h k_w + R_{out} N) \quad\text{weights}

    Args:
        conv: one group; any kernel size, stride, padding, dilation, with or without bias. Not changed.
        blocks: B.
        ranks: (R_out, R_in) of every block.
        iterations, tolerance: of ``block_term``.

    Returns:
        ``reduce`` (C to B R_in), ``core`` (B groups, with the stride, the padding and the dilation) and
        ``expand`` (B R_out to N, with the bias), in the dtype of ``conv``.

    Raises:
        TypeError: ``conv`` is no ``nn.Conv2d``, or blocks or a rank is no whole number.
        ValueError: ``conv`` has groups, or an argument is out of its range.

    Source:
        L. De Lathauwer, Part II, 2008, for the decomposition; the three layers follow from it term by term.

    Example:
        >>> block_term_conv(nn.Conv2d(8, 16, 3, padding=1), 2, (4, 3)).core
        Conv2d(6, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=2, bias=False)
    """
    check_conv(conv)
    terms = block_term(conv.weight, blocks, ranks, iterations=iterations, tolerance=tolerance).terms
    reduce = torch.cat([term.factors[1] for term in terms], 1)  # (C, B R_in)
    expand = torch.cat([term.factors[0] for term in terms], 1)  # (N, B R_out)
    core = torch.cat([term.core for term in terms])  # (B R_out, R_in, kh, kw)
    layers = chain(
        reduce=factor_layer(conv, reduce.T[:, :, None, None]),
        core=factor_layer(conv, core, axes=(0, 1), groups=blocks),
        expand=factor_layer(conv, expand[:, :, None, None], bias=conv.bias),
    )
    return like_before(layers, conv)
