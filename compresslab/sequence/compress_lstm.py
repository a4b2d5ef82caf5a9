"""A recurrent network in few bytes: round it as it is, or prune it, share what is left, and tune.

`round_lstm` needs no data: every matrix on a 4-bit grid, one scale per row. In a file with `entropy=True` its
frequent small numbers get short words. `train_rounded` trains through the rounding, which makes fewer bits possible.
`compress_lstm` is Deep Compression for a recurrent network, with the masks growing while it trains.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from compresslab.core.codes import UniformCode
from compresslab.core.errors import check_fraction, check_int
from compresslab.core.layers import encode
from compresslab.core.modules import bake
from compresslab.hybrid.deep_compression import SparseCodebook
from compresslab.quantization.fake import FakeQuantize
from compresslab.sequence.language import train_language
from compresslab.sequence.prune_recurrent import prune_lstm
from compresslab.sequence.recurrent_weights import named_matrices, simulate_matrices, store_matrices
from compresslab.sequence.text import TextSplit


def round_lstm(model: nn.Module, bits: int = 4) -> nn.Module:
    """Copy of a recurrent language model, every matrix rounded to a symmetric grid with one scale per row.

    Args:
        model: plain or masked. bits: of a weight, 2 to 8.

    Returns:
        A coded model in the mode of `model`. Biases stay float32.

    Raises:
        TypeError, ValueError: bits out of range.

    Source: S. Shin, K. Hwang, W. Sung, "Fixed-point Performance Analysis of Recurrent Neural Networks", ICASSP 2016,
        round the weights of LSTMs to a few bits.
    Differs: no retraining; a scale for each row of a matrix; states stay float32.

    Example:
        >>> from compresslab.sequence.lstm import CharLSTM
        >>> round_lstm(CharLSTM(embedding=2, hidden=4)).lstm.coded_hh_l0
        UniformCode(shape=(16, 4), bits=4, axis=0)
    """
    return encode(model, partial(UniformCode.from_dense, bits=check_int("bits", bits, 2, 8), axis=0))


def train_rounded(
    model: nn.Module, split: TextSplit, bits: int = 3, *, epochs: int, lr: float = 0.003, **options: object
) -> nn.Module:
    """Train a recurrent language model through the rounding of its matrices, straight through, and store it.

    Args:
        model: plain or masked. split: the training text.
        bits: of a weight, 2 to 8; one scale per row, which follows the row's largest weight.
        epochs, lr, options: of `train_language`.

    Returns:
        A coded model in eval mode, as `round_lstm` makes it.

    Raises:
        TypeError, ValueError: bits out of range; the model is coded already; as `train_language`.

    Source: I. Hubara et al., "Quantized Neural Networks: Training Neural Networks with Low Precision Weights and
        Activations", JMLR 2018, train recurrent networks so.
    Differs: from a trained network; activations stay float32.
    """
    check_int("bits", bits, 2, 8)

    def make(weight: Tensor) -> FakeQuantize:
        return FakeQuantize(bits=bits, axis=0)

    simulated = simulate_matrices(model, dict.fromkeys(_plain_matrices(model), make))
    return store_matrices(train_language(simulated, split, epochs=epochs, lr=lr, **options))


def share_lstm(model: nn.Module, bits: int = 4) -> nn.Module:
    """Copy of a pruned model in which each matrix's weights that are left share 2**bits values, which train.

    Args:
        model: masked, or with zeros in its matrices. bits: of an index, 1 to 8.

    Returns:
        A simulated model: zeros stay zeros, clusters stay, their values learn. `store_matrices` makes codes of it.

    Raises:
        TypeError, ValueError: bits out of range; the model is coded or shared already.
    """
    check_int("bits", bits, 1, 8)
    plain = bake(model)

    def make(weight: Tensor) -> SparseCodebook:
        return SparseCodebook(weight, bits=bits, index_bits=8)

    return simulate_matrices(plain, dict.fromkeys(_plain_matrices(plain), make))


def compress_lstm(
    model: nn.Module,
    split: TextSplit,
    *,
    sparsity: float = 0.5,
    bits: int = 4,
    blocks: int = 1,
    prune_epochs: int = 3,
    tune_epochs: int = 1,
    lr: float = 0.003,
    tune_lr: float = 0.0005,
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """Prune a recurrent language model gradually, let what is left share 2**bits values, tune these, and store it.

    Args:
        model: a trained model, such as a `CharLSTM`; it is not changed.
        split: the training text.
        sparsity: fraction in [0, 1] of each matrix but the embedding's to drop; 0 prunes nothing.
        bits: of an index, 1 to 8.
        blocks: processing elements that keep equally many weights, in the LSTM's matrices; the output layer is then
            pruned without regard to them.
        prune_epochs, lr: of pruning, at least 1 where sparsity is above 0. tune_epochs, tune_lr: of the shared values.
        seed: of the order of the text. progress: show a bar.

    Returns:
        A coded model in eval mode: gaps, indices and code books; write it with `save(..., entropy=True)`.

    Raises:
        TypeError, ValueError: as `prune_lstm`, `share_lstm` and `train_language`.

    Source: S. Han, H. Mao, W. Dally, "Deep Compression", ICLR 2016; S. Narang et al., "Exploring Sparsity in Recurrent
        Neural Networks", ICLR 2017.
    Differs: the cubic schedule in place of rising thresholds; see `prune_lstm`.
    """
    check_fraction("sparsity", sparsity)
    learning = {"seed": seed, "progress": progress}
    if sparsity:
        model = prune_lstm(model, split, sparsity, epochs=prune_epochs, blocks=blocks, lr=lr, **learning)
    shared = share_lstm(model, bits)
    return store_matrices(train_language(shared, split, epochs=tune_epochs, lr=tune_lr, **learning))


def _plain_matrices(model: nn.Module) -> list[str]:
    """The names of all matrices; ValueError where there are none, because they are coded."""
    names = list(named_matrices(model))
    if not names:
        raise ValueError("there is no plain matrix: is this model coded already?")
    return names
