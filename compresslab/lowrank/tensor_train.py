r"""Tensor train: a tensor as a chain of small cores, and a linear layer whose matrix is such a chain.

.. math:: X(i_1, \dots, i_d) = G_1[i_1]\, G_2[i_2] \cdots G_d[i_d], \qquad
          W(i, j) = G_1[i_1, j_1]\, G_2[i_2, j_2] \cdots G_d[i_d, j_d]

Every :math:`G_k[\cdot]` is a matrix of r_(k-1) x r_k, and r_0 = r_d = 1. For a matrix, the row number is
split into digits :math:`i_1 \dots i_d` (sizes: ``out_modes``) and the column number into
:math:`j_1 \dots j_d` (``in_modes``), and each core has one digit of both. The first digit counts most.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from compresslab.core.errors import check_fraction, check_int
from compresslab.core.modules import as_parameter
from compresslab.lowrank.tucker import check_tensor


def tt_svd(
    tensor: Tensor, ranks: int | Sequence[int] | None = None, *, error: float | None = None
) -> tuple[Tensor, ...]:
    r"""Split off one mode after the other by truncated singular value decompositions.

    .. math:: C_k \;(r_{k-1} n_k \times n_{k+1} \cdots n_d) \approx U_k\, (S_k V_k^\top), \qquad
              G_k = U_k, \quad C_{k+1} = S_k V_k^\top

    What is discarded adds up: :math:`\|X - \hat X\|_F^2` is the sum over k of the squared singular values
    that were cut off the *working* matrices :math:`C_k`. The unfoldings of X itself only bound it.

    Args:
        tensor: of at least two modes, floating-point, finite.
        ranks: :math:`r_1 \dots r_{d-1}`, or one number that none shall exceed.
        error: relative error in [0, 1] to be kept, with the smallest ranks that this way keep it; instead of
            ``ranks``.

    Returns:
        the cores, (r_(k-1), n_k, r_k), float64; all but the last have orthonormal columns.

    Raises:
        TypeError, ValueError: both or neither of ``ranks`` and ``error``; a rank below 1 or above the full
            rank; an error that is no fraction; a tensor that is not as said.

    Source:
        I. V. Oseledets, "Tensor-Train Decomposition", SIAM Journal on Scientific Computing 2011 (TT-SVD).

    Example:
        >>> x = torch.arange(8.0).view(2, 2, 2)  # i + j + k, each digit with its worth: rank 2
        >>> cores = tt_svd(x, 2)
        >>> [tuple(core.shape) for core in cores], torch.allclose(tt_to_tensor(cores), x.double())
        ([(1, 2, 2), (2, 2, 2), (2, 2, 1)], True)
    """
    tensor = check_tensor(tensor)
    if tensor.ndim < 2:
        raise ValueError(f"the tensor must have at least two modes, got shape {tuple(tensor.shape)}")
    if (ranks is None) == (error is None):
        raise ValueError("give either ranks or error")
    steps = tensor.ndim - 1
    most = (None,) * steps if ranks is None else _check_ranks(ranks, tensor.shape)
    allowed = 0.0 if error is None else check_fraction("error", error) * tensor.norm().item() / steps**0.5
    cores, left, work = [], 1, tensor
    for size, rank in zip(tensor.shape, most, strict=False):
        u, s, vh = torch.linalg.svd(work.reshape(left * size, -1), full_matrices=False)
        rank = min(len(s), rank) if rank else _rank_within(s, allowed)
        cores.append(u[:, :rank].reshape(left, size, rank))
        left, work = rank, s[:rank, None] * vh[:rank]
    return (*cores, work.reshape(left, tensor.shape[-1], 1))


def tt_to_tensor(cores: Sequence[Tensor]) -> Tensor:
    """Multiply the chain out.

    Args:
        cores: (r_(k-1), n_k, r_k), with r_0 = r_d = 1.

    Returns:
        (n_1, ..., n_d).

    Raises:
        ValueError: neighbouring ranks differ, or the outer ones are not 1.

    Example:
        >>> tt_to_tensor([torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [5.0]]])])
        tensor([[ 3.,  5.],
                [ 6., 10.]])
    """
    shapes = [tuple(core.shape) for core in cores]
    if not shapes or any(len(shape) != 3 for shape in shapes):
        raise ValueError(f"cores must have shapes (rank, size, rank), got {shapes}")
    if shapes[0][0] != 1 or shapes[-1][2] != 1 or any(a[2] != b[0] for a, b in pairwise(shapes)):
        raise ValueError(f"the ranks of the cores must meet, and be 1 at both ends, got shapes {shapes}")
    result = cores[0].flatten(0, 1)  # (n_1, r_1)
    for core in cores[1:]:
        result = (result @ core.flatten(1)).reshape(-1, core.shape[2])  # (n_1 ... n_k, r_k)
    return result.reshape([shape[1] for shape in shapes])


def tt_parameters(in_modes: Sequence[int], out_modes: Sequence[int], ranks: int | Sequence[int]) -> int:
    r"""The numbers that a matrix in this form holds: :math:`\sum_k r_{k-1} m_k n_k r_k`.

    Args:
        in_modes, out_modes: the sizes of the digits of columns, :math:`n_k`, and rows, :math:`m_k`.
        ranks: as for ``TTLinear``.

    Raises:
        TypeError, ValueError: as ``TTLinear``.

    Example:
        >>> tt_parameters((2, 7, 8, 8, 7, 4), (4, 4, 4, 4, 4, 4), 2)  # VGG's fc6, of 102,760,448 weights
        528
    """
    return sum(math.prod(shape) for shape in _core_shapes(*_check_modes(in_modes, out_modes), ranks))


class TTLinear(nn.Module):
    r"""A linear layer whose matrix is a tensor train: :math:`y = W x + b` without ever building W.

    The input is reshaped to (n_1, ..., n_d), and one core after the other exchanges a digit of the input for
    a digit of the output.

    Args:
        in_modes: :math:`n_k`, at least 1; their product is ``in_features``.
        out_modes: :math:`m_k`, as many; their product is ``out_features``.
        ranks: :math:`r_1 \dots r_{d-1}`, each from 1 to its full rank; or one number that none shall exceed.
        bias: True for one of zeros; or the bias itself (out_features,).
        seed: of the cores' random numbers, such that W has the variance that ``nn.Linear`` starts with.
        cores: ``core_0`` ... (r_(k-1), m_k, n_k, r_k) where they are known; all of them, or none.

    Shape: (..., in_features) -> (..., out_features).

    Raises:
        TypeError, ValueError: modes that are not as many, a rank out of its range, a core or a bias of the
            wrong shape.

    Source:
        A. Novikov, D. Podoprikhin, A. Osokin, D. Vetrov, "Tensorizing Neural Networks", NeurIPS 2015,
        sections 3 and 4.

    Example:
        >>> layer = TTLinear((4, 4, 4), (2, 5, 2), 3, bias=True)
        >>> layer(torch.ones(7, 64)).shape, sum(p.numel() for p in layer.parameters())  # 24 + 180 + 24 + 20
        (torch.Size([7, 20]), 248)
    """

    meta = ("in_modes", "out_modes", "ranks")

    def __init__(
        self,
        in_modes: Sequence[int],
        out_modes: Sequence[int],
        ranks: int | Sequence[int],
        bias: Tensor | bool = False,
        *,
        seed: int = 0,
        **cores: Tensor,
    ):
        super().__init__()
        self.in_modes, self.out_modes = _check_modes(in_modes, out_modes)
        self.in_features, self.out_features = math.prod(self.in_modes), math.prod(self.out_modes)
        shapes = _core_shapes(self.in_modes, self.out_modes, ranks)
        self.ranks = tuple(shape[3] for shape in shapes[:-1])
        for name, core in _check_cores(cores or _random_cores(shapes, seed), shapes).items():
            self.register_parameter(name, as_parameter(core))
        if isinstance(bias, bool):
            bias = torch.zeros(self.out_features) if bias else None
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"bias must have shape ({self.out_features},), got {tuple(bias.shape)}")
        held = bias is None or isinstance(bias, nn.Parameter)
        self.register_parameter("bias", bias if held else nn.Parameter(bias))

    @classmethod
    def from_dense(
        cls,
        layer: nn.Linear,
        in_modes: Sequence[int],
        out_modes: Sequence[int],
        rank: int | Sequence[int],
    ) -> "TTLinear":
        """The tensor train that ``tt_svd`` makes of a layer's matrix; its dtype and a copy of its bias.

        What is frozen stays frozen.

        Raises:
            TypeError: ``layer`` is no ``nn.Linear``.
            ValueError: the modes do not multiply to the layer's sizes, or a rank is out of its range.
        """
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"expected an nn.Linear, got {type(layer).__name__}")
        in_modes, out_modes = _check_modes(in_modes, out_modes)
        sizes = {"in": (in_modes, layer.in_features), "out": (out_modes, layer.out_features)}
        for side, (modes, features) in sizes.items():
            if math.prod(modes) != features:
                raise ValueError(
                    f"{side}_modes {modes} multiply to {math.prod(modes)}, "
                    f"but the layer has {side}_features={features}"
                )
        d = len(in_modes)
        digits = layer.weight.detach().reshape(*out_modes, *in_modes)  # (m_1 ... m_d, n_1 ... n_d)
        digits = digits.permute([axis for k in range(d) for axis in (k, d + k)])  # (m_1, n_1, m_2, n_2, ...)
        pairs = [m * n for m, n in zip(out_modes, in_modes, strict=True)]
        flat = digits.reshape(pairs)
        cores = tt_svd(flat, rank) if d > 1 else (check_tensor(flat)[None, :, None],)
        named = {
            f"core_{k}": core.unflatten(1, (out_modes[k], in_modes[k])).to(layer.weight.dtype).contiguous()
            for k, core in enumerate(cores)
        }
        bias = False if layer.bias is None else layer.bias.detach().clone()
        ranks = [core.shape[-1] for core in cores[:-1]]
        train = cls(in_modes, out_modes, ranks, bias, **named).train(layer.training)
        for name, parameter in train.named_parameters():
            source = layer.bias if name == "bias" else layer.weight
            parameter.requires_grad_(source.requires_grad)
        return train

    @property
    def cores(self) -> tuple[nn.Parameter, ...]:
        """(r_(k-1), m_k, n_k, r_k), from the first to the last."""
        return tuple(getattr(self, f"core_{k}") for k in range(len(self.in_modes)))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"the input must have {self.in_features} features, got {x.shape[-1]}")
        z = x.reshape(-1, self.in_features).T  # (n_1 n_2 ... n_d, batch)
        for core in self.cores:
            left, m, n, right = core.shape
            matrix = core.permute(1, 3, 0, 2).reshape(m * right, left * n)
            z = matrix @ z.reshape(left * n, -1)  # (m_k r_k, n_(k+1) ... n_d, batch, m_1 ... m_(k-1))
            z = z.reshape(m, -1).T  # the new digit goes to the end: (r_k n_(k+1) ... batch m_1 ..., m_k)
        y = z.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def to_dense(self) -> nn.Linear:
        """The layer with its matrix multiplied out."""
        like = self.core_0
        flat = tt_to_tensor([core.detach().flatten(1, 2) for core in self.cores])
        d = len(self.in_modes)
        digits = flat.reshape([s for pair in zip(self.out_modes, self.in_modes, strict=True) for s in pair])
        weight = digits.permute(*range(0, 2 * d, 2), *range(1, 2 * d, 2))
        layer = skip_init(
            nn.Linear, self.in_features, self.out_features, self.bias is not None,
            device=like.device, dtype=like.dtype,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(weight.reshape(self.out_features, self.in_features))
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer.train(self.training)

    def count_macs(self, inputs: tuple, output: Tensor) -> int:
        """The multiplications of one call: each core meets the digits that are there when its turn comes."""
        per_vector = sum(
            core.numel() * math.prod(self.out_modes[:k]) * math.prod(self.in_modes[k + 1 :])
            for k, core in enumerate(self.cores)
        )
        return output.numel() // self.out_features * per_vector

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.meta)


def _rank_within(singular_values: Tensor, allowed: float) -> int:
    """The fewest singular values such that the others have at most this norm; at least 1."""
    tails = singular_values.square().flip(0).cumsum(0).sqrt()  # the norm of the last 1, 2, ...
    return max(1, len(tails) - int((tails <= allowed).sum()))


def _check_ranks(ranks: int | Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """One rank for each cut between two neighbouring modes, none above the full rank of its cut."""
    full = [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]
    if isinstance(ranks, int):
        check_int("the rank", ranks, 1, max(full, default=1))
        return tuple(min(ranks, most) for most in full)
    if len(ranks) != len(full):
        raise ValueError(f"{len(sizes)} modes need {len(full)} ranks, got {tuple(ranks)}")
    return tuple(
        check_int(f"rank {k} of the train", rank, 1, most)
        for k, (rank, most) in enumerate(zip(ranks, full, strict=True), start=1)
    )


def _check_modes(
    in_modes: Sequence[int], out_modes: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not in_modes or len(in_modes) != len(out_modes):
        raise ValueError(
            f"in_modes and out_modes must be as many, got {tuple(in_modes)} and {tuple(out_modes)}"
        )
    return (
        tuple(check_int("a mode", n, 1) for n in in_modes),
        tuple(check_int("a mode", m, 1) for m in out_modes),
    )


def _core_shapes(
    in_modes: tuple[int, ...], out_modes: tuple[int, ...], ranks: int | Sequence[int]
) -> list[tuple[int, int, int, int]]:
    pairs = [m * n for m, n in zip(out_modes, in_modes, strict=True)]
    bonds = (1, *_check_ranks(ranks, pairs), 1)
    return [(bonds[k], m, n, bonds[k + 1]) for k, (m, n) in enumerate(zip(out_modes, in_modes, strict=True))]


def _check_cores(
    cores: dict[str, Tensor], shapes: list[tuple[int, int, int, int]]
) -> dict[str, Tensor]:
    expected = {f"core_{k}": shape for k, shape in enumerate(shapes)}
    got = {name: tuple(core.shape) for name, core in cores.items()}
    if got != expected:
        raise ValueError(f"the cores must have the shapes {expected}, got {got}")
    return {name: cores[name] for name in expected}


def _random_cores(shapes: list[tuple[int, int, int, int]], seed: int) -> dict[str, Tensor]:
    """Normal cores whose product has the variance 1 / (3 in_features), that of a fresh ``nn.Linear``."""
    generator = torch.Generator().manual_seed(seed)
    paths = math.prod(shape[3] for shape in shapes)  # each weight is a sum over so many products
    features = math.prod(shape[2] for shape in shapes)
    std = (1 / (3 * features * paths)) ** (0.5 / len(shapes))
    return {
        f"core_{k}": torch.randn(shape, generator=generator) * std for k, shape in enumerate(shapes)
    }
