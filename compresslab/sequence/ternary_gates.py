r"""Ternary gates: the matrices of an LSTM as minus one, zero and plus one, with one scale per row.

Two bits a weight, and no multiplications: a row of a gate adds some inputs, subtracts others, and is scaled once.
Rounding a trained LSTM to three values ruins it. Trained through the rounding, straight through, it learns to live
with them.

Source: A. Ardakani, Z. Ji, S. C. Smithson, B. H. Meyer, W. J. Gross, "Learning Recurrent Binary/Ternary Weights",
ICLR 2019; the nearest ternary weights: F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016.
Differs: Ardakani et al. draw the weights at random while training and need batch normalization inside the cell. Here
they are rounded to the nearest, each row has a scale, and training starts from a trained network.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from compresslab.core.errors import check_names
from compresslab.quantization.ternary import Ternary
from compresslab.sequence.language import train_language
from compresslab.sequence.recurrent_weights import recurrent_matrices, simulate_matrices
from compresslab.sequence.text import TextSplit


def ternary_gates(model: nn.Module, *, rule: str = "exact", only: Collection[str] | None = None) -> nn.Module:
    r"""Copy of a model whose LSTM matrices are shown as the nearest ternary ones; ready to be trained.

    .. math:: \hat W_{jk} = \alpha_j t_{jk}, \qquad t_{jk} = \mathrm{sign}(W_{jk})\, \mathbb 1[|W_{jk}| > \Delta_j]

    Args:
        model: a network with an LSTM; masks stay, and act before.
        rule: how :math:`\Delta_j` is chosen, as in `quantization.ternarize`.
        only: names of matrices; None takes all of the LSTMs.

    Returns:
        A model that trains straight through; `store_matrices` then makes codes of 2 bits a weight.

    Raises:
        ValueError: no LSTM, an unknown matrix or rule, a matrix that is simulated already.

    Example:
        >>> lstm = ternary_gates(nn.LSTM(3, 2))
        >>> [len(row.unique()) <= 3 for row in lstm.weight_ih_l0][0]
        True
    """
    check_names("only", only)
    names = recurrent_matrices(model) if only is None else list(only)
    if not names:
        raise ValueError("this model has no LSTM")

    def make(weight: Tensor) -> Ternary:
        return Ternary(axis=0, rule=rule)

    return simulate_matrices(model, dict.fromkeys(names, make))


def train_ternary(
    model: nn.Module, split: TextSplit, *, epochs: int, lr: float = 0.001, rule: str = "0.7", **options: object
) -> nn.Module:
    """`ternary_gates`, then `train_language`: a trained copy that is still simulated.

    Args:
        model: a trained language model with an LSTM.
        split: the training text.
        epochs, lr, options: of `train_language`.
        rule: of the thresholds. "0.7" needs no sorting, so a step takes less time.

    Raises:
        ValueError: as `ternary_gates` and `train_language`.
    """
    return train_language(ternary_gates(model, rule=rule), split, epochs=epochs, lr=lr, **options)
