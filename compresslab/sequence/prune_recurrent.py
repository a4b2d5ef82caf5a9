r"""Gradual pruning of recurrent networks: masks grow while the network trains.

A recurrent matrix acts once per character, 128 times in a window: what pruning breaks in it is broken in every
step. So the masks grow while training, quickly at first and slowly at the end, and the last part of the training
is for the weights that are left.

Source: S. Narang, E. Elsen, G. Diamos, S. Sengupta, "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017.
Differs: the paper lets a threshold rise along two lines, and finds its slopes by hand; the sparsity that comes out
is not known before. Here the sparsity itself follows the cubic of M. Zhu and S. Gupta (2017), who make this point.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

from torch import Tensor, nn

from compresslab.core.errors import check_fraction, check_int, check_names, naming
from compresslab.pruning.schedule import cubic_sparsity
from compresslab.sequence.balanced import balanced_mask
from compresslab.sequence.language import train_language
from compresslab.sequence.recurrent_weights import held_masks, mask_matrices_, named_matrices, recurrent_matrices
from compresslab.sequence.text import TextSplit


def prunable(model: nn.Module) -> list[str]:
    """The names of all matrices but the embedding's, of which one row at a time is used.

    Example:
        >>> from compresslab.sequence.lstm import CharLSTM
        >>> prunable(CharLSTM(embedding=2, hidden=4))
        ['lstm.weight_ih_l0', 'lstm.weight_hh_l0', 'head.weight']
    """
    embeddings = {f"{path}.weight" for path, layer in model.named_modules() if isinstance(layer, nn.Embedding)}
    return [name for name in named_matrices(model) if name not in embeddings]


def grow_masks_(model: nn.Module, sparsity: float, blocks: int = 1, only: Collection[str] | None = None) -> None:
    """Mask the smallest weights of each matrix, in place; those masked before are among them.

    Args:
        model: plain or masked.
        sparsity: fraction in [0, 1] of each matrix that shall be zero.
        blocks: processing elements that shall keep equally many weights of an LSTM's matrices; 1, as for all other
            matrices, compares all weights of a matrix.
        only: names of matrices, as in `named_matrices`; None takes `prunable`.

    Raises:
        ValueError: a sparsity outside [0, 1]; blocks that do not divide the rows (the message names the matrix).
    """
    matrices, held, dealt = named_matrices(model), held_masks(model), recurrent_matrices(model)
    check_names("only", only)
    masks: dict[str, Tensor] = {}
    for name in prunable(model) if only is None else only:
        if name not in matrices:
            raise ValueError(f"there is no matrix {name!r}; the matrices are {', '.join(matrices)}")
        scores = matrices[name].detach().abs()
        scores = scores.masked_fill(~held[name], -1.0) if name in held else scores
        with naming(name):
            masks[name] = balanced_mask(matrices[name], sparsity, blocks if name in dealt else 1, scores=scores)
    mask_matrices_(model, masks)


def prune_lstm(
    model: nn.Module,
    split: TextSplit,
    sparsity: float,
    *,
    epochs: int,
    blocks: int = 1,
    only: Collection[str] | None = None,
    lr: float = 0.001,
    settle: float = 0.4,
    every: int = 10,
    **options: object,
) -> nn.Module:
    """Train a copy of a language model while its masks grow to a sparsity, and let it settle.

    Args:
        model: plain or masked, such as a `CharLSTM`.
        split: the training text.
        sparsity: fraction in [0, 1] of each matrix that is zero at the end.
        epochs: passes over the text, at least 1.
        blocks: processing elements that keep equally many weights of an LSTM's matrices; see `balanced_mask`.
        only: names of the matrices to prune; None takes `prunable`.
        lr: the largest learning rate.
        settle: last fraction of the steps, in (0, 1), in which nothing more is pruned.
        every: steps between two prunings.
        options: of `train_language`, such as `seed`, `batch_size` or `progress`.

    Returns:
        The masked copy, in eval mode. `core.bake` makes plain zeros of the masks.

    Raises:
        ValueError: as `grow_masks_` (before anything is trained); `settle` outside (0, 1); `epochs` below 1.

    Source: see the module's text.
    """
    check_int("epochs", epochs, 1)
    check_int("every", every, 1)
    check_fraction("sparsity", sparsity)
    if not 0 < settle < 1:
        raise ValueError(f"settle must be in (0, 1), got {settle}")
    batch_size = options.setdefault("batch_size", 32)
    end = int((1 - settle) * (epochs * -(-len(split) // batch_size) - 1))  # the step at which `sparsity` is reached

    def grow(network: nn.Module, step: int) -> None:
        if step == end or (step < end and step % every == 0):
            grow_masks_(network, cubic_sparsity(step, begin=-1, end=end, final=sparsity), blocks, only)

    model = mask_copy(model, blocks, only)
    return train_language(model, split, epochs=epochs, lr=lr, after_step=grow, **options)


def mask_copy(model: nn.Module, blocks: int = 1, only: Collection[str] | None = None) -> nn.Module:
    """Copy of a model in which the matrices to prune have a mask that keeps what is left of them."""
    model = copy.deepcopy(model)
    grow_masks_(model, 0.0, blocks, only)
    return model
