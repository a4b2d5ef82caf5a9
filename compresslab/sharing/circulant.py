r"""Circulant matrices: one column, turned on by one place in every next column, and products by FFT.

Every row holds the same n numbers, so :math:`n` of them are stored for :math:`n^2`, and the product with a
vector is a circular convolution, which the Fourier transform turns into n products of single numbers:
:math:`n \log n` operations for :math:`n^2`. Blocks of size b make the constraint as strict as one likes:
b = 1 is a dense matrix, b = n one circulant.
"""

import math

import torch
from torch import Tensor, nn

from compresslab.core.codes import check_weight
from compresslab.core.errors import check_int
from compresslab.core.modules import as_parameter
from compresslab.sharing.hashing import hash_indices
from compresslab.sharing.tables import TableCode, keep_frozen_, to_keep

_HALF = (torch.float16, torch.bfloat16)


def circulant(r: Tensor) -> Tensor:
    r"""The circulant matrix whose first column is r: :math:`R_{ij} = r_{(i - j) \bmod n}`.

    Args:
        r: (..., n), n at least 1; leading axes are a batch of matrices.

    Returns:
        (..., n, n). Differentiable.

    Raises:
        ValueError: r has no axis, or no entry.

    Example:
        >>> circulant(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[1., 3., 2.],
                [2., 1., 3.],
                [3., 2., 1.]])
    """
    if r.ndim == 0 or r.shape[-1] == 0:
        raise ValueError(f"r must have a last axis with at least one entry, got shape {tuple(r.shape)}")
    backwards = r.flip(-1)
    twice = torch.cat([backwards, backwards], dim=-1)[..., :-1]
    return twice.unfold(-1, r.shape[-1], 1).flip(-2)  # row i is a window of it, from n - 1 - i on


def circulant_product(r: Tensor, x: Tensor) -> Tensor:
    r"""Multiply a circulant matrix by vectors, without ever building it.

    .. math:: R x = \mathcal F^{-1}(\mathcal F(r) \circ \mathcal F(x))

    Args:
        r: (..., n), first columns.
        x: (..., n), real; the leading axes are broadcast against those of r.

    Returns:
        (..., n).

    Raises:
        ValueError: r and x end in different sizes.

    Source: Y. Cheng, F. X. Yu, R. S. Feris, S. Kumar, A. Choudhary, S.-F. Chang, "An Exploration of Parameter
    Redundancy in Deep Networks with Circulant Projections", ICCV 2015.

    Example:
        >>> circulant_product(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([7.0, 8.0, 9.0]))  # a shift by one
        tensor([9., 7., 8.])
    """
    if r.ndim == 0 or x.ndim == 0 or r.shape[-1] != x.shape[-1]:
        raise ValueError(f"r and x must end in the same size, got {tuple(r.shape)} and {tuple(x.shape)}")
    return fft_product(r, x, x.shape[-1])


def fft_product(r: Tensor, x: Tensor, n: int) -> Tensor:
    """The circular convolution of length n of two real signals, which are padded with zeros to it.

    Half precision is transformed as float32, for torch's FFT does not know it on a CPU, and given back as
    half.
    """
    product = torch.fft.irfft(torch.fft.rfft(widened(r), n) * torch.fft.rfft(widened(x), n), n=n)
    dtype = torch.promote_types(r.dtype, x.dtype)
    return product.to(dtype) if dtype in _HALF else product


def widened(x: Tensor) -> Tensor:
    """The tensor, in float32 if it is of half precision."""
    return x.float() if x.dtype in _HALF else x


def nearest_circulant(matrix: Tensor) -> Tensor:
    r"""The first column of the circulant matrix nearest to a matrix in the Frobenius norm.

    .. math:: r_k = \frac1n \sum_{(i - j) \bmod n = k} M_{ij}

    Each entry of r is used on one wrapped diagonal and nowhere else, so the best it can do is the mean there.

    Args:
        matrix: (..., n, n).

    Returns:
        r, (..., n); ``circulant`` makes the matrix of it.

    Raises:
        ValueError: the matrix is not square, or empty.

    Example:
        >>> nearest_circulant(torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
        tensor([1.5000, 4.0000])
    """
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] == 0:
        raise ValueError(f"a matrix must be square and not empty, got shape {tuple(matrix.shape)}")
    i = torch.arange(matrix.shape[-1], device=matrix.device)
    rows = (i.unsqueeze(1) + i) % len(i)  # entry (k, j): the row where diagonal k meets column j
    return matrix.gather(-2, rows.expand(matrix.shape)).mean(-1)


class BlockCirculantCode(TableCode):
    r"""A weight in blocks of b x b, each of them circulant: b numbers for :math:`b^2`.

    .. math:: W = \begin{pmatrix} R(r_{11}) & \cdots & R(r_{1q}) \\ \vdots & & \vdots \\
              R(r_{p1}) & \cdots & R(r_{pq}) \end{pmatrix}

    The matrix of a convolution has a row per output channel and, for each place of the kernel in turn, a
    column per input channel: blocks mix channels, never places.

    Args:
        values: the first columns r, floating-point, (p, q, b).
        shape: of the weight: (p b, I) or (p b, I, ...), with b dividing I.

    Raises:
        TypeError: ``values`` is not floating-point.
        ValueError: ``values`` has another number of axes or does not fit the shape, or b does not divide.

    Source: C. Ding et al., "CirCNN: Accelerating and Compressing Deep Neural Networks Using Block-Circulant
    Weight Matrices", MICRO 2017.

    Example:
        >>> BlockCirculantCode(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), (2, 4)).decode().detach()
        tensor([[1., 2., 3., 4.],
                [2., 1., 4., 3.]])
    """

    def __init__(self, values: Tensor, shape: tuple[int, ...]):
        super().__init__(values, shape)
        _check_values(values)
        expected = (*_blocks(self.shape, self.block), self.block)
        if values.shape != expected:
            raise ValueError(
                f"a weight of shape {self.shape} needs values of shape {expected}, got {tuple(values.shape)}"
            )
        self._make_table_()

    @classmethod
    def from_dense(cls, weight: Tensor, block: int, *, keep_scale: bool = False) -> "BlockCirculantCode":
        """The nearest block-circulant weight: the means over the wrapped diagonals of each block.

        Args:
            weight: (O, I) or (O, I, ...).
            block: b, which divides O and I; O = I = b makes one circulant matrix.
            keep_scale: for weights to be trained from random ones; see ``TableCode.fit_``.

        Raises:
            TypeError, ValueError: ``block`` is no whole number, or does not divide both sizes.
        """
        weight = check_weight(weight)
        blocks = _blocks(tuple(weight.shape), check_int("block", block, 1))
        code = cls(weight.new_zeros(*blocks, block), weight.shape)
        code.fit_(weight, keep_scale)
        return code

    @property
    def block(self) -> int:
        """The size b of the blocks."""
        return self.values.shape[-1]

    def make_table(self) -> Tensor:
        outputs, inputs, *places = self.shape
        numbers = torch.arange(self.values.numel()).view(self.values.shape)
        matrix = circulant(numbers).transpose(1, 2)  # (p, b, q, b)
        return matrix.reshape(outputs, *places, inputs).movedim(-1, 1).flatten()


def _blocks(shape: tuple[int, ...], block: int) -> tuple[int, int]:
    """How many blocks there are in the rows and in the columns of the matrix of a weight."""
    if len(shape) < 2:
        raise ValueError(f"a weight of circulant blocks must have shape (O, I, ...), got {shape}")
    if block < 1 or shape[0] % block or shape[1] % block or 0 in shape:
        raise ValueError(
            f"block must divide both sizes, {shape[0]} outputs and {shape[1]} inputs, got {block}"
        )
    return shape[0] // block, math.prod(shape[1:]) // block


def _check_values(values: Tensor) -> tuple[int, int, int]:
    """The shape (p, q, b) of first columns, if they have one."""
    if not values.is_floating_point():
        raise TypeError(f"values must be floating-point, got {values.dtype}")
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"values must have shape (p, q, b), none of them 0, got {tuple(values.shape)}")
    return tuple(values.shape)


class CirculantLinear(nn.Module):
    r"""A linear layer of circulant blocks, multiplied by FFT: the matrix is never built.

    .. math:: y_i = \sum_j \mathcal F^{-1}\left(\mathcal F(r_{ij}) \circ \mathcal F(D x)_j\right) + b_i

    The sum is taken before the inverse transform, so q inputs and p outputs are transformed, no products.
    With a ``seed``, fixed random signs D are applied to the inputs first: neighbouring inputs that are alike
    then no longer reinforce each other along the diagonals. They come from the hash and are not stored.

    Args:
        values: the first columns r, floating-point, (p, q, b).
        bias: (p b,), or None.
        seed: of the signs D; None: no signs.

    Shape: (..., q b) -> (..., p b).

    Raises:
        TypeError, ValueError: the arrays do not fit, or a bad seed; in ``forward``: an input of another size.

    Source: Y. Cheng et al., "An Exploration of Parameter Redundancy in Deep Networks with Circulant
    Projections", ICCV 2015 (one block, signs); C. Ding et al., "CirCNN", MICRO 2017 (blocks).

    Example:
        >>> layer = CirculantLinear(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
        >>> layer(torch.tensor([1.0, 0.0, 1.0, 0.0])).detach()  # columns 0 and 2 of the example above
        tensor([4., 6.])
    """

    meta = ("seed",)

    def __init__(self, values: Tensor, bias: Tensor | None = None, seed: int | None = None):
        super().__init__()
        p, q, b = _check_values(values)
        self.values = as_parameter(values)
        self.out_features, self.in_features, self.seed = p * b, q * b, seed
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"bias must have shape ({self.out_features},), got {tuple(bias.shape)}")
        self.bias = as_parameter(bias)
        self._signs = None
        if seed is not None:  # no buffer: they follow from the seed
            self._signs = to_keep(lambda: hash_indices((self.in_features,), 1, seed)[1])

    @classmethod
    def from_code(cls, code: BlockCirculantCode, bias: Tensor | None = None) -> "CirculantLinear":
        """The fast form of a coded linear layer; the values are copied.

        Raises:
            ValueError: the code is that of a convolution.
        """
        if len(code.shape) != 2:
            raise ValueError(f"only the code of a linear layer has this form, got shape {code.shape}")
        return cls(code.values.detach().clone(), None if bias is None else bias.detach().clone())

    @classmethod
    def from_dense(
        cls, layer: nn.Linear, block: int, *, seed: int | None = None, keep_scale: bool = False
    ) -> "CirculantLinear":
        """The nearest layer of this form; arguments as in ``BlockCirculantCode.from_dense``.

        Raises:
            TypeError, ValueError: no linear layer, or a block that does not divide both sizes.
        """
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"layer must be a Linear, got {type(layer).__name__}")
        weight = layer.weight.detach()
        if seed is not None:  # W ~ R D, so R ~ W D
            weight = weight * hash_indices((layer.in_features,), 1, seed)[1].to(weight)
        code = BlockCirculantCode.from_dense(weight, block, keep_scale=keep_scale)
        bias = None if layer.bias is None else layer.bias.detach().clone()
        made = cls(code.values.detach().to(weight.dtype), bias, seed).train(layer.training)
        keep_frozen_(made.values, layer.weight)
        keep_frozen_(made.bias, layer.bias)
        return made

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"the input must end in {self.in_features} features, got {tuple(x.shape)}")
        p, q, b = self.values.shape
        if self._signs is not None:
            x = x * self._placed_signs()
        spectrum = torch.fft.rfft(widened(x.unflatten(-1, (q, b))))
        filters = torch.fft.rfft(widened(self.values))
        if p == q == 1:
            product = spectrum * filters[0]
        else:
            product = torch.einsum("...qf,pqf->...pf", spectrum, filters)
        y = torch.fft.irfft(product, n=b).flatten(-2).to(torch.promote_types(x.dtype, self.values.dtype))
        return y if self.bias is None else y + self.bias

    def to_dense(self) -> nn.Linear:
        """The plain layer with the same outputs."""
        layer = nn.utils.skip_init(
            nn.Linear, self.in_features, self.out_features, self.bias is not None,
            device=self.values.device, dtype=self.values.dtype,
        )  # fmt: skip
        with torch.no_grad():
            weight = circulant(self.values).transpose(1, 2).reshape(layer.weight.shape)
            layer.weight.copy_(weight if self._signs is None else weight * self._placed_signs())
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer.train(self.training)

    def count_macs(self, inputs: tuple, output: Tensor) -> int:
        r"""Real multiplications: :math:`b \log_2 b` per transform, four per product of complex numbers.

        The transforms of the values, p q of them, are left out, although ``forward`` computes them at each
        call: they do not depend on the input, and a network that is not trained any more could keep them.
        """
        p, q, b = self.values.shape
        per_row = math.ceil((p + q) * b * math.log2(b)) + 4 * p * q * (b // 2 + 1)
        return output.numel() // self.out_features * per_row

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"block={self.values.shape[-1]}, bias={self.bias is not None}, seed={self.seed}"
        )

    def _placed_signs(self) -> Tensor:
        """The signs, on the device and in the type of the values."""
        if self._signs.device != self.values.device or self._signs.dtype != self.values.dtype:
            self._signs = to_keep(lambda: self._signs.to(self.values))
        return self._signs
