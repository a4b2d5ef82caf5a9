r"""A small basis of filters that several layers share; a layer keeps how it mixes them.

Trained k x k kernels look alike from layer to layer: edges, blobs, their mirror images. So write every kernel
as a combination of a few *atoms* that all layers read from one place. The atoms are stored once, however many
layers use them, and what a layer stores of its own falls from k k numbers per kernel to the size of the
basis.
"""

from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor, nn

from compresslab.core.codes import WeightCode
from compresslab.core.errors import check_int, check_names, where
from compresslab.core.layers import encode
from compresslab.core.modules import as_parameter, bake, named_layers

UNITS = ("kernel", "filter")


class Basis(nn.Module):
    """The atoms, a trainable matrix that the codes of several layers hold in common.

    Args:
        atoms: floating-point, (size, d), one atom a row.

    Raises:
        TypeError, ValueError: another dtype or shape.
    """

    meta = ()

    def __init__(self, atoms: Tensor):
        super().__init__()
        if not atoms.is_floating_point():
            raise TypeError(f"atoms must be floating-point, got {atoms.dtype}")
        if atoms.ndim != 2 or atoms.numel() == 0:
            raise ValueError(f"atoms must have shape (size, d), at least one, got {tuple(atoms.shape)}")
        self.atoms = as_parameter(atoms)

    def extra_repr(self) -> str:
        return f"size={self.atoms.shape[0]}, d={self.atoms.shape[1]}"


class BasisCode(WeightCode):
    r"""Coefficients of a weight in a basis that is shared with other weights.

    .. math:: \hat w_r = \sum_{j=1}^{M} C_{rj}\, a_j, \qquad \frac{\partial L}{\partial a_j} =
              \sum_{\text{layers}} \sum_r C_{rj}\, \frac{\partial L}{\partial \hat w_r}

    Args:
        coefficients: :math:`C`, floating-point, (numel / d, M); becomes a parameter.
        shape: shape of the weight; read row by row, d numbers are one piece :math:`w_r`.
        basis: of M atoms of d numbers; the same object in every code that shares it.

    Raises:
        TypeError, ValueError: an array has the wrong dtype or shape.

    Source:
        Y. Li, S. Gu, L. Van Gool, R. Timofte, "Learning Filter Basis for Convolutional Neural Network
        Compression", ICCV 2019.
    Differs: the basis is found by a singular value decomposition and then trained with the network.

    Example:
        >>> basis = Basis(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        >>> BasisCode(torch.tensor([[2.0, 0.0], [1.0, 3.0]]), (1, 4), basis).decode().detach()
        tensor([[2., 2., 1., 4.]])
    """

    roles = {"coefficients": "values"}

    def __init__(self, coefficients: Tensor, shape: tuple[int, ...], basis: Basis):
        super().__init__(shape)
        if not isinstance(basis, Basis):
            raise TypeError(f"basis must be a Basis, got {type(basis).__name__}")
        if not coefficients.is_floating_point():
            raise TypeError(f"coefficients must be floating-point, got {coefficients.dtype}")
        size, width = basis.atoms.shape
        if self.numel % width or tuple(coefficients.shape) != (self.numel // width, size):
            raise ValueError(
                f"{self.numel} weights in pieces of {width} take coefficients of shape "
                f"({self.numel / width:g}, {size}), got {tuple(coefficients.shape)}"
            )
        self.coefficients, self.basis = as_parameter(coefficients), basis

    @classmethod
    def from_dense(cls, weight: Tensor, basis: Basis) -> "BasisCode":
        """The nearest combinations of a given basis: least squares, the shortest of several that are."""
        weight = weight.detach()
        width = basis.atoms.shape[1]
        if weight.numel() == 0 or weight.numel() % width:
            raise ValueError(
                f"atoms of {width} numbers cannot make up a weight of shape {tuple(weight.shape)}"
            )
        atoms = basis.atoms.detach().double()
        coefficients = weight.double().reshape(-1, width) @ torch.linalg.pinv(atoms)
        return cls(coefficients.float(), weight.shape, basis)

    def decode(self) -> Tensor:
        return (self.coefficients.float() @ self.basis.atoms.float()).view(self.shape)


def share_basis(model: nn.Module, layers: Collection[str], size: int, *, unit: str = "kernel") -> nn.Module:
    r"""Return a copy of the model in which these layers share one basis of filters.

    All their pieces, stacked as the rows of one matrix K, are approximated together:

    .. math:: \min_{C, A} \|K - C A\|_F^2 = \sum_{j > M} \sigma_j^2(K)

    Args:
        model: any network; it is not changed.
        layers: names of convolutions (and, for whole filters, linear layers) whose pieces have equal size.
        size: M, 1 to the rank that K can have.
        unit: "kernel": a piece is the k x k kernel of one input and one output channel, so layers of any
            width share; "filter": a piece is a whole filter, C x k x k, or a row of a linear layer.

    Returns:
        the network with these layers coded (``BasisCode``), one ``Basis`` object in all of them.

    Raises:
        ValueError: no layers, an unknown name, pieces of different sizes, another unit, or ``size`` out of
            range.
        TypeError: a layer that has no kernels.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3))
        >>> shared = share_basis(model, ["0", "1"], size=5)
        >>> shared[0].coded.basis is shared[1].coded.basis, shared[1].coded.coefficients.shape
        (True, torch.Size([32, 5]))
    """
    pieces = _pieces_of_all(model, layers, unit)
    stacked = torch.cat(list(pieces.values()))
    check_int("size", size, 1, min(stacked.shape))
    _, _, Vh = torch.linalg.svd(stacked.double(), full_matrices=False)
    atoms = Vh[:size].to(stacked.dtype)
    basis = Basis(atoms.clone(memory_format=torch.contiguous_format))  # laid out as a file gives them back
    return encode(model, {name: partial(BasisCode.from_dense, basis=basis) for name in pieces})


def spectrum(model: nn.Module, layers: Collection[str], *, unit: str = "kernel") -> Tensor:
    """The singular values of the stacked pieces, float64, descending: how large a basis needs to be.

    Raises:
        ValueError, TypeError: as ``share_basis``.
    """
    return torch.linalg.svdvals(torch.cat(list(_pieces_of_all(model, layers, unit).values())).double())


def _pieces_of_all(model: nn.Module, layers: Collection[str], unit: str) -> dict[str, Tensor]:
    """The weights of the layers in pieces, after the checks that ``share_basis`` documents."""
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {UNITS}, got {unit!r}")
    check_names("layers", layers)
    chosen = named_layers(bake(model), only=layers)
    if not chosen:
        raise ValueError("layers must name at least one layer, got none")
    pieces = {name: _pieces(layer, unit, name) for name, layer in chosen.items()}
    first, *others = pieces
    for name in others:
        if pieces[name].shape[1] != pieces[first].shape[1]:
            raise ValueError(
                f"layers that share a basis need pieces of one size, {pieces[first].shape[1]} numbers in "
                f"layer '{first}', got {pieces[name].shape[1]}{where(name)}"
            )
    return pieces


def _pieces(layer: nn.Module, unit: str, name: str) -> Tensor:
    """The weight in pieces, (pieces, d)."""
    weight = layer.weight.detach()
    if unit == "filter":
        return weight.flatten(1)
    if isinstance(layer, nn.Linear):
        raise TypeError(f"a linear layer has no k x k kernels; use unit='filter'{where(name)}")
    return weight.flatten(2).flatten(0, 1)
