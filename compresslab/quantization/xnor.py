r"""Dot products of signs by counting bits: 64 multiply-adds in one exclusive-or and one popcount.

For :math:`a, b \in \{-1, +1\}^n` stored as bits, a product :math:`a_i b_i` is -1 where the bits differ and +1
where they agree, so

.. math:: a \cdot b = n - 2\,\mathrm{popcount}(a \oplus b)

exactly, in integers. This is what makes a network with binary weights *and* binary activations fast, on
hardware and in libraries that are built for it; ``benchmarks/xnor.py`` shows how far numpy is from that.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.core.bits import unpack_bits
from compresslab.core.errors import check_int
from compresslab.quantization.binary import BinaryCode, mean_magnitude, sign_ste

PAIRS = 1 << 16  # dot products worked on at a time: their intermediate words then stay in the cache


def pack_signs(x: Tensor | np.ndarray) -> np.ndarray:
    """Pack the signs along the last axis, 64 to a word; a set bit is +1, zero counts as +1.

    Args:
        x: (..., n), real numbers, n at least 1.

    Returns:
        uint64, (..., ceil(n / 64)); element i is bit ``i % 64`` of word ``i // 64``. The unused high bits of
        the last word are 0, in every row, so they never differ.

    Raises:
        ValueError: there is no last axis, nothing on it, or a nan, which has no sign.

    Example:
        >>> pack_signs(torch.tensor([0.3, -2.0, 0.0]))  # the bits 1, 0, 1
        array([5], dtype=uint64)
    """
    values = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"x must have numbers along its last axis, got shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError("nan has no sign, got it in x")
    packed = np.packbits(values >= 0, axis=-1, bitorder="little")
    missing = -packed.shape[-1] % 8
    packed = np.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False)


def xnor_dot(a: np.ndarray, b: np.ndarray, n: int) -> int:
    r"""The dot product of two packed sign vectors, :math:`n - 2\,\mathrm{popcount}(a \oplus b)`.

    Args:
        a, b: uint64, (ceil(n / 64),), from ``pack_signs``.
        n: how many signs they hold.

    Raises:
        TypeError, ValueError: no packed vectors, or not of n signs.

    Example:
        >>> xnor_dot(pack_signs([1.0, -1.0, 1.0]), pack_signs([1.0, 1.0, 1.0]), n=3)  # 1 - 1 + 1
        1
    """
    _check_packed("a", a, n, 1)
    _check_packed("b", b, n, 1)
    return n - 2 * int(np.bitwise_count(a ^ b).sum())


def xnor_matmul(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """All dot products of two sets of packed sign vectors: ``A @ B.T`` for matrices of signs.

    Args:
        a: uint64, (M, ceil(n / 64)), the packed rows of A.
        b: uint64, (N, ceil(n / 64)), the packed rows of B: the weights of a linear layer as they are.
        n: how many signs a row holds.

    Returns:
        int32, (M, N), exact.

    Raises:
        TypeError, ValueError: no packed matrices, or not of rows of n signs.

    Example:
        >>> A, B = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[-1.0, 1.0]])
        >>> xnor_matmul(pack_signs(A), pack_signs(B), n=2)
        array([[-2],
               [ 0]], dtype=int32)
    """
    _check_packed("a", a, n, 2)
    _check_packed("b", b, n, 2)
    words = np.ascontiguousarray(b.T)  # (words, N): word w of every row of B in one piece of memory
    differ = np.zeros((len(a), len(b)), dtype=np.int32)
    block = max(1, PAIRS // max(1, len(b)))
    for top in range(0, len(a), block):
        rows, counts = a[top : top + block], differ[top : top + block]
        for w, word in enumerate(words):
            counts += np.bitwise_count(rows[:, w, None] ^ word)
    return n - 2 * differ


def xnor_linear(x: Tensor, code: BinaryCode, bias: Tensor | None = None) -> Tensor:
    r"""A linear layer with signs for weights and inputs, computed by popcount.

    .. math:: y = (\mathrm{sign}(x) \circledast B^\top) \odot \beta\alpha, \qquad
              \beta = \|x\|_1 / n, \quad \alpha_o = \|W_o\|_1 / n

    Args:
        x: (N, n), finite.
        code: of a weight (O, n), with a scale per row or one for all (a ``group_size`` does not factor out).
        bias: (O,).

    Returns:
        (N, O), float32. No gradient.

    Raises:
        ValueError: the weight is no matrix, its scales are those of groups or columns, or x does not fit it.

    Source:
        M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, "XNOR-Net", ECCV 2016, section 3.2.

    Example:
        >>> code = BinaryCode.from_dense(torch.tensor([[1.0, -2.0, 3.0]]))
        >>> xnor_linear(torch.tensor([[1.0, 1.0, 4.0]]), code)  # (1 - 1 + 1) * 2 * 2
        tensor([[4.]])
    """
    if len(code.shape) != 2 or code.axis != 0 or len(code.scale) not in (1, code.shape[0]):
        raise ValueError(
            f"the code must be of a matrix with a scale per row, got {len(code.scale)} for shape {code.shape}"
        )
    if x.ndim != 2 or x.shape[1] != code.shape[1]:
        raise ValueError(f"x must have shape (N, {code.shape[1]}), got {tuple(x.shape)}")
    signs = unpack_bits(code.packed, 1, code.numel).view(code.shape) - 0.5
    products = torch.from_numpy(xnor_matmul(pack_signs(x), pack_signs(signs), code.shape[1]))
    y = products.float() * code.scale * mean_magnitude(x.detach().float())
    return y if bias is None else y + bias.detach()


def input_scale(x: Tensor, kernel_size: tuple[int, int], stride: int = 1, padding: int = 0) -> Tensor:
    r"""The scale of the binary inputs at each position of a convolution.

    .. math:: K = A * k, \qquad A = \frac1C \sum_c |X_c|, \qquad k_{ij} = \frac{1}{k_h k_w}

    K is the mean magnitude of the patch that the kernel sees, :math:`\beta = \|x\|_1 / n` for all patches at
    once.

    Args:
        x: (N, C, H, W).
        kernel_size: (:math:`k_h`, :math:`k_w`).
        stride, padding: of the convolution.

    Returns:
        (N, 1, H', W').

    Source:
        M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, "XNOR-Net", ECCV 2016, section 3.2.

    Example:
        >>> input_scale(torch.tensor([[[[1.0, -3.0]], [[2.0, 0.0]]]]), (1, 2))  # (1.5 + 1.5) / 2
        tensor([[[[1.5000]]]])
    """
    A = x.abs().mean(1, keepdim=True)
    return F.avg_pool2d(A, kernel_size, stride, padding)  # pads with zeros and divides by all of the kernel


def xnor_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    r"""A convolution with signs for weights and inputs, simulated in floats so that it can be trained.

    .. math:: I * W \approx (\mathrm{sign}(I) \circledast \mathrm{sign}(W)) \odot K \alpha

    Args:
        x: (N, C, H, W).
        weight: (O, C, kh, kw), latent; its gradient and that of x pass the signs by ``sign_ste``.
        bias: (O,).
        stride, padding: of the convolution. Padding adds zeros, a third value that popcount does not have:
            only without padding is this what ``xnor_matmul`` gives on the patches.

    Returns:
        (N, O, H', W').

    Raises:
        ValueError: x has not the channels of the weight.

    Source:
        M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, "XNOR-Net", ECCV 2016, section 3.2.

    Example:
        >>> x, w = torch.tensor([[[[1.0, -3.0]]]]), torch.tensor([[[[2.0, 4.0]]]])
        >>> xnor_conv2d(x, w)  # (1 - 1) * 2 * 3
        tensor([[[[0.]]]])
    """
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x must be (N, C, H, W) and weight (O, C, kh, kw), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    alpha = mean_magnitude(weight.flatten(1)).view(1, -1, 1, 1)
    products = F.conv2d(sign_ste(x), sign_ste(weight), stride=stride, padding=padding)
    y = products * input_scale(x, weight.shape[2:], stride, padding) * alpha
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def _check_packed(name: str, packed: np.ndarray, n: int, ndim: int) -> None:
    """Raise unless ``packed`` holds vectors of ``n`` signs."""
    check_int("n", n, 1)
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint64:
        found = getattr(packed, "dtype", type(packed).__name__)
        raise TypeError(f"{name} must be a uint64 array, got {found}")
    words = -(-n // 64)
    if packed.ndim != ndim or packed.shape[-1] != words:
        wanted = f"({words},)" if ndim == 1 else f"(rows, {words})"
        raise ValueError(f"{name} must have shape {wanted} for {n} signs, got {packed.shape}")
