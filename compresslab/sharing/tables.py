"""What hashed, circulant and Toeplitz weights have in common: a rule that says which entries are one number.

The rule is a table with the number of a stored value for each entry of the weight. It follows from the shape
(and a seed), so it is made with the code and never stored. Decoding is a look-up, its gradient is the sum
over the entries that look up the same value, and the nearest weight that obeys the rule takes their mean.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compresslab.core.codes import WeightCode
from compresslab.core.modules import as_parameter


def keep_frozen_(made: Tensor | nn.Module | None, original: Tensor | None) -> None:
    """Freeze in place what was made of a frozen parameter; what was made of anything else stays as it is."""
    if isinstance(original, nn.Parameter) and not original.requires_grad:
        made.requires_grad_(False)


def to_keep(make: Callable[[], Any]) -> Any:
    """Make a tensor (or several) that a module keeps beside its state, for later calls.

    Inside ``torch.inference_mode()`` tensors come out marked, and no gradient can ever flow past one of them.
    So the mode is left for the moment: training may follow an evaluation.

    Example:
        >>> with torch.inference_mode():
        ...     torch.ones(2).is_inference(), to_keep(lambda: torch.ones(2)).is_inference()
        (True, False)
    """
    with torch.inference_mode(False):
        return make()


def matrix_shape(shape: tuple[int, ...], axes: int = 1) -> tuple[int, int]:
    """(m, n) of a weight seen as a matrix, ``weight.flatten(1)``; (m, 1) for a single axis.

    Args:
        shape: of the weight.
        axes: how many it must have at least, 1 or 2.

    Raises:
        ValueError: the weight has fewer axes, or no element.

    Example:
        >>> matrix_shape((8, 4, 3, 3))
        (8, 36)
    """
    if len(shape) < axes or 0 in shape:
        least = "one axis" if axes == 1 else "two axes"
        raise ValueError(f"a weight must have at least {least} and one element, got shape {tuple(shape)}")
    return shape[0], math.prod(shape[1:])


class TableCode(WeightCode):
    r"""A weight whose entries are shared values, up to a sign: :math:`\hat w_i = \xi(i)\, v_{h(i)}`.

    A subclass says by ``make_table`` what :math:`h` and :math:`\xi` are, and calls ``_make_table_`` once it
    has checked its arguments.

    Args:
        values: :math:`v`, floating-point, any shape; they become a parameter.
        shape: shape of the weight.

    Raises:
        TypeError: ``values`` is not floating-point.
    """

    roles = {"values": "values"}
    signed: ClassVar[bool] = False  # whether a table may ask for values with the opposite sign

    def __init__(self, values: Tensor, shape: tuple[int, ...]):
        super().__init__(shape)
        if not values.is_floating_point():
            raise TypeError(f"values must be floating-point, got {values.dtype}")
        self.values = as_parameter(values)

    def make_table(self) -> Tensor:
        """int64, (numel,), row-major: k for value number k, K + k for its opposite (if ``signed``)."""
        raise NotImplementedError

    def _make_table_(self) -> None:
        device = self.values.device
        self._table = to_keep(lambda: self.make_table().to(device))  # no buffer: it is not stored

    @property
    def table(self) -> Tensor:
        """The table, on the device of the values."""
        if self._table.device != self.values.device:
            self._make_table_()
        return self._table

    def decode(self) -> Tensor:
        values = self.values.float().flatten()
        if self.signed:  # one look-up among v and -v is faster than a product of many weights and signs
            values = torch.cat([values, -values])
        return values.index_select(0, self.table).view(self.shape)

    def fit_(self, weight: Tensor, keep_scale: bool = False) -> None:
        r"""Set the values to those nearest to a weight, in place.

        .. math:: v_k = \mathrm{mean}_{h(i) = k}\; \xi(i)\, w_i

        Args:
            weight: finite, of ``shape``.
            keep_scale: then multiply them until the decoded weight has the root mean square of ``weight``.
                Means of independent numbers are small: a random weight to be trained needs this.
        """
        size = self.values.numel() * (2 if self.signed else 1)
        sums = torch.zeros(size, dtype=torch.float64, device=self.table.device)
        sums.index_add_(0, self.table, weight.flatten().to(sums))
        loads = torch.bincount(self.table, minlength=size)
        if self.signed:
            (plus, minus), loads = sums.chunk(2), sum(loads.chunk(2))
            sums = plus - minus
        with torch.no_grad():
            self.values.copy_((sums / loads.clamp(min=1)).view(self.values.shape))
        if keep_scale:
            keep_scale_(self, weight)


def keep_scale_(code: WeightCode, weight: Tensor) -> None:
    """Multiply the parameters of a code, in place, until what it decodes to is as large as a weight.

    Args:
        code: ``decode`` is linear in each of its d parameters; they share the factor evenly.
        weight: its root mean square is the aim. A code that decodes to zero stays as it is.
    """
    with torch.no_grad():
        size = code.decode().double().square().mean().sqrt()
        if size > 0:
            ratio = float(weight.double().square().mean().sqrt() / size)
            parameters = list(code.parameters())
            for parameter in parameters:
                parameter.mul_(ratio ** (1 / len(parameters)))
