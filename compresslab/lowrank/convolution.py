r"""One convolution into two: a kernel has no rank of its own, the matrix that it is laid out as has one.

A kernel :math:`K` (N, C, kh, kw) becomes a matrix by sending some of its axes to the rows and the others to
the columns. A rank-k factorization of that matrix is a pair of convolutions with k channels in between:

| scheme    | rows x columns  | the pair                                    | numbers for rank k     |
|-----------|-----------------|---------------------------------------------|------------------------|
| "channel" | N x C kh kw     | kh x kw to k channels, then 1x1             | k (N + C kh kw)        |
| "input"   | C x N kh kw     | 1x1 to k channels, then kh x kw             | k (C + N kh kw)        |
| "spatial" | C kh x N kw     | kh x 1 to k channels, then 1 x kw           | k (C kh + N kw)        |
| "pixel"   | kh kw x N C     | no pair of convolutions: only to look at    |                        |

The stride, the padding and the dilation of an axis go to the factor that has that axis; the bias is added
once, at the end.
"""

import math
from typing import NamedTuple

from torch import Tensor, nn

from compresslab.core.errors import check_int

from .chain import chain, check_conv, factor_layer, like_before
from .svd import truncated_svd

# The axes of a kernel (N, C, kh, kw) = (0, 1, 2, 3) that make the rows, and those that make the columns.
SCHEMES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "channel": ((0,), (1, 2, 3)),
    "input": ((1,), (0, 2, 3)),
    "spatial": ((1, 2), (0, 3)),
    "pixel": ((2, 3), (0, 1)),
}


def kernel_matrix(weight: Tensor, scheme: str = "channel") -> Tensor:
    """Lay a kernel out as the matrix that a scheme factors.

    Args:
        weight: (N, C, kh, kw).
        scheme: one of ``SCHEMES``.

    Returns:
        the matrix, with the same entries; see the table above.

    Raises:
        ValueError: an unknown scheme, or a weight without four axes.

    Example:
        >>> weight = nn.Conv2d(8, 16, (3, 5)).weight
        >>> [tuple(kernel_matrix(weight, scheme).shape) for scheme in SCHEMES]
        [(16, 120), (8, 240), (24, 80), (15, 128)]
    """
    rows, columns = _axes(scheme)
    if weight.ndim != 4:
        raise ValueError(f"weight must be a kernel (N, C, kh, kw), got shape {tuple(weight.shape)}")
    return weight.permute(*rows, *columns).reshape(math.prod(weight.shape[axis] for axis in rows), -1)


def kernel_from_matrix(matrix: Tensor, shape: tuple[int, ...], scheme: str = "channel") -> Tensor:
    """Undo ``kernel_matrix``.

    Args:
        matrix: as ``kernel_matrix`` makes it.
        shape: (N, C, kh, kw) of the kernel.
        scheme: one of ``SCHEMES``.

    Raises:
        ValueError: an unknown scheme, or a matrix of another shape.

    Example:
        >>> weight = nn.Conv2d(2, 3, (3, 2)).weight
        >>> again = kernel_from_matrix(kernel_matrix(weight, "spatial"), weight.shape, "spatial")
        >>> bool((again == weight).all())
        True
    """
    rows, columns = _axes(scheme)
    order = (*rows, *columns)
    expected = tuple(math.prod(shape[axis] for axis in axes) for axes in (rows, columns))
    if tuple(matrix.shape) != expected:
        raise ValueError(
            f"the '{scheme}' matrix of a kernel {tuple(shape)} has shape {expected}, "
            f"got {tuple(matrix.shape)}"
        )
    return matrix.reshape([shape[axis] for axis in order]).permute([order.index(axis) for axis in range(4)])


def full_rank(layer: nn.Linear | nn.Conv2d, scheme: str = "channel") -> int:
    """The largest rank that a layer can have, at which its factors lose nothing: the matrix's shorter side.

    Args:
        layer: a linear layer (the scheme does not matter then) or an ungrouped convolution.
        scheme: one of ``SCHEMES``.

    Raises:
        TypeError, ValueError: another layer, groups, or an unknown scheme.

    Example:
        >>> conv = nn.Conv2d(8, 16, 3)
        >>> [full_rank(conv, scheme) for scheme in SCHEMES]
        [16, 8, 24, 9]
    """
    return min(_sides(layer, scheme))


def factored_parameters(layer: nn.Linear | nn.Conv2d, rank: int, scheme: str = "channel") -> int:
    r"""The weights of the two factors, :math:`k(m + n)`, without the bias.

    Args:
        layer, scheme: as for ``full_rank``.
        rank: k, at least 1.

    Raises:
        TypeError, ValueError: as ``full_rank``, or the rank is no whole number of at least 1.

    Example:
        >>> conv = nn.Conv2d(8, 16, 3)  # 1152 weights
        >>> factored_parameters(conv, 4, "channel"), factored_parameters(conv, 4, "spatial")
        (352, 288)
    """
    return check_int("rank", rank, 1) * sum(_sides(layer, scheme))


class Pixels(NamedTuple):
    """How often a factor's weights are used: at every pixel of its output.

    ``inputs`` is of the layer's input, ``outputs`` of its output; ``between`` has the height of the output
    and the width of the input. For a linear layer all three are the number of rows. One each counts
    parameters.
    """

    inputs: int = 1
    between: int = 1
    outputs: int = 1


def factored_macs(
    layer: nn.Linear | nn.Conv2d, rank: int, scheme: str = "channel", pixels: Pixels = Pixels()
) -> int:
    r"""The multiply-accumulates of the two factors, proportional to the rank.

    A factor costs its weights once for each pixel of *its* output. With a stride the two differ: "input"
    has its 1x1 at the full size of the image, and "spatial" has its first factor at full width.

    Args:
        layer, scheme: as for ``full_rank``; "pixel" has no factors.
        rank: k, at least 1.
        pixels: from ``count_pixels``.

    Raises:
        TypeError, ValueError: as ``full_rank``, or the rank is no whole number of at least 1.

    Example:
        >>> conv = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        >>> factored_macs(conv, 4, "spatial", count_pixels(conv, (10, 10)))  # 4 (8 3 (5 10) + 16 3 (5 5))
        9600
    """
    m, n = _sides(layer, pair_scheme(scheme))
    first = {"channel": pixels.outputs, "input": pixels.inputs, "spatial": pixels.between}[scheme]
    one, other = (n, m) if scheme == "channel" else (m, n)  # the sides that the two factors have
    return check_int("rank", rank, 1) * (one * first + other * pixels.outputs)


def count_pixels(conv: nn.Conv2d, size: tuple[int, int]) -> Pixels:
    """The pixels that a convolution and its factors see, for an input of this height and width.

    Example:
        >>> count_pixels(nn.Conv2d(8, 16, 3, stride=2, padding=1), (10, 12))
        Pixels(inputs=120, between=60, outputs=30)
    """
    pads = conv._reversed_padding_repeated_twice  # left, right, top, bottom
    padded = (size[0] + pads[2] + pads[3], size[1] + pads[0] + pads[1])
    window = zip(padded, conv.kernel_size, conv.stride, conv.dilation, strict=True)
    height, width = ((length - d * (k - 1) - 1) // s + 1 for length, k, s, d in window)
    return Pixels(size[0] * size[1], height * size[1], height * width)


def factor_conv(conv: nn.Conv2d, rank: int, scheme: str = "channel") -> nn.Sequential:
    r"""Two convolutions for one, with ``rank`` channels in between: the nearest such pair.

    .. math:: K_{n,c,i,j} \approx \sum_{r \le k} b_{n,r}\, a_{r,c,i,j} \;\text{(channel)}, \quad
              \sum_{r \le k} b_{c,r}\, a_{r,n,i,j} \;\text{(input)}, \quad
              \sum_{r \le k} b_{c,i,r}\, a_{r,n,j} \;\text{(spatial)}

    Args:
        conv: one group; any kernel size, stride, padding, padding mode and dilation, with or without bias.
            Not changed.
        rank: k, 1 to ``full_rank(conv, scheme)``, where the pair is exact (and costs more than ``conv``).
        scheme: "channel", "input" or "spatial"; see the head of this file.

    Returns:
        ``reduce`` (C to k channels, no bias) and ``expand`` (k to N channels, with the bias), in a new
        ``nn.Sequential`` on the layer's device and in its dtype.

    Raises:
        TypeError: ``conv`` is no ``nn.Conv2d``.
        ValueError: it has groups, the rank is out of its range, or the scheme makes no pair.

    Source:
        channel: E. Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient
        Evaluation", 2014. spatial: M. Jaderberg, A. Vedaldi, A. Zisserman, "Speeding up Convolutional Neural
        Networks with Low Rank Expansions", 2014, scheme 2; in closed form: C. Tai et al., "Convolutional
        Neural Networks with Low-Rank Regularization", 2016.
    Differs: nearest in the weights; for nearest in the outputs see ``response``.

    Example:
        >>> factor_conv(nn.Conv2d(8, 16, 3, stride=2, padding=1), 4, "spatial")
        Sequential(
          (reduce): Conv2d(8, 4, kernel_size=(3, 1), stride=(2, 1), padding=(1, 0), bias=False)
          (expand): Conv2d(4, 16, kernel_size=(1, 3), stride=(1, 2), padding=(0, 1))
        )
    """
    check_int("rank", rank, 1, full_rank(conv, pair_scheme(scheme)))
    return conv_pair(conv, *truncated_svd(kernel_matrix(conv.weight, scheme), rank), scheme)


def conv_pair(
    conv: nn.Conv2d, B: Tensor, A: Tensor, scheme: str = "channel", bias: Tensor | None = None
) -> nn.Sequential:
    """Two convolutions that hold the factors of ``kernel_matrix``, whatever these come from.

    Args:
        conv: whose window they share out.
        B, A: (m, k) and (k, n), with m and n the sides of the scheme's matrix.
        scheme: "channel", "input" or "spatial".
        bias: (N,), for the last factor; None for the bias that is there, if any.
    """
    (n, c, kh, kw), k = conv.weight.shape, len(A)
    bias = conv.bias if bias is None else bias
    if scheme == "channel":
        first, last = A.view(k, c, kh, kw), B.view(n, k, 1, 1)
        axes = (0, 1), ()
    elif scheme == "input":
        first, last = B.T.view(k, c, 1, 1), A.view(k, n, kh, kw).transpose(0, 1)
        axes = (), (0, 1)
    else:
        first, last = B.T.view(k, c, kh, 1), A.view(k, n, 1, kw).transpose(0, 1)
        axes = (0,), (1,)
    pair = chain(
        reduce=factor_layer(conv, first, axes=axes[0]),
        expand=factor_layer(conv, last, axes=axes[1], bias=bias),
    )
    return like_before(pair, conv)


def _axes(scheme: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    return SCHEMES[scheme]


def pair_scheme(scheme: str) -> str:
    """Return ``scheme`` if its factors are convolutions."""
    _axes(scheme)
    if scheme == "pixel":
        raise ValueError("scheme 'pixel' makes no pair of convolutions; choose channel, input or spatial")
    return scheme


def _sides(layer: nn.Linear | nn.Conv2d, scheme: str) -> tuple[int, int]:
    """Rows and columns of the matrix that the scheme factors."""
    axes = _axes(scheme)
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    check_conv(layer)
    shape = (layer.out_channels, layer.in_channels, *layer.kernel_size)
    rows, columns = (math.prod(shape[axis] for axis in side) for side in axes)
    return rows, columns
