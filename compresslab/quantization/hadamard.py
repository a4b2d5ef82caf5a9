r"""Rotations: spread an outlier over all coordinates before rounding, and change nothing else.

A layer that reads :math:`x` may as well read :math:`Qx`, if its weight is multiplied by :math:`Q^\top`: for
an orthogonal :math:`Q` the product is the same. But a vector with one huge coordinate, whose range ruins the
rounding of all others, becomes one whose coordinates are all about equally large. Hadamard matrices do that
best: every entry is :math:`\pm 1/\sqrt n`, and multiplying takes :math:`n \log_2 n` additions.
"""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import find_layers
from compresslab.core.errors import check_int
from compresslab.core.hadamard import hadamard_transform
from compresslab.core.modules import bake


def random_signs(n: int, *, seed: int = 0) -> Tensor:
    """Random signs, float32 (n,) of +1 and -1: the diagonal ``D`` of a rotation of n coordinates.

    Raises:
        ValueError: n is odd: see :func:`rotate`.
    """
    check_int("seed", seed, 0)
    if check_int("n", n, 1) % 2:
        raise ValueError(f"n must be even, got {n}: no Hadamard matrix but the trivial one fits an odd size")
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, (n,), generator=generator) - 1.0


def rotate(x: Tensor, signs: Tensor) -> Tensor:
    r"""A random rotation of the last axis.

    .. math:: y = Qx, \qquad Q = \frac{1}{\sqrt b} \begin{pmatrix} H_b & & \\ & \ddots & \\ & & H_b
              \end{pmatrix} D

    ``b`` is the largest power of two that divides n. For n a power of two that is one Hadamard matrix; else
    an outlier is spread over its own block of ``b`` coordinates only. The signs make two outliers unlikely to
    cancel or to add up to another one.

    Args:
        x: (..., n), floating-point.
        signs: (n,), the diagonal of ``D``, from :func:`random_signs`.

    Returns:
        The shape of ``x``; lengths and angles are unchanged.

    Raises:
        ValueError: the last axis of ``x`` is not as long as ``signs``, or odd.

    Source: S. Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", NeurIPS 2024.
    Differs: QuaRot has Hadamard matrices of some sizes that are no power of two; here they are made of
    blocks.

    Example:
        >>> rotate(torch.tensor([[8.0, 0.0, 0.0, 0.0]]), torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        tensor([[-4., -4., -4., -4.]])
    """
    size = _block_size(x, signs)
    blocks = (x * signs.to(x)).reshape(*x.shape[:-1], -1, size)
    return (hadamard_transform(blocks) / math.sqrt(size)).reshape(x.shape)


def rotate_back(y: Tensor, signs: Tensor) -> Tensor:
    r"""Undo :func:`rotate`: :math:`x = Q^\top y = D H y / \sqrt b`, as H is symmetric and H H = b I.

    Example:
        >>> rotate_back(torch.tensor([-4.0, -4.0, -4.0, -4.0]), torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        tensor([8., 0., 0., 0.])
    """
    size = _block_size(y, signs)
    blocks = y.reshape(*y.shape[:-1], -1, size)
    return (hadamard_transform(blocks) / math.sqrt(size)).reshape(y.shape) * signs.to(y)


def _block_size(x: Tensor, signs: Tensor) -> int:
    """The largest power of two that divides the last axis."""
    n = len(signs)
    if signs.ndim != 1 or x.ndim == 0 or x.shape[-1] != n:
        raise ValueError(f"the last axis must be {n} long, one for each sign, got shape {tuple(x.shape)}")
    if n == 0 or n % 2:
        raise ValueError(f"n must be even, got {n}: no Hadamard matrix but the trivial one fits an odd size")
    return n & -n


def rotate_stream(
    model: nn.Module, writers: Collection[str], readers: Collection[str], *, seed: int = 0
) -> nn.Module:
    r"""Copy of ``model`` in which the vector between some layers is rotated, its function unchanged.

    .. math:: W_{writer} \leftarrow Q\, W_{writer}, \quad b_{writer} \leftarrow Q\, b_{writer}, \qquad
              W_{reader} \leftarrow W_{reader}\, Q^\top

    In a transformer the vector is the residual stream: everything that is added to it writes, everything that
    reads it reads. Two linear layers in a row are the smallest case. What stands between them must commute
    with a rotation: sums do, and RMSNorm without weights of its own; ReLU, biases and LayerNorm do not. That
    all writers and readers are named and nothing else is in between cannot be seen here: compare outputs.

    Args:
        model: the network; masks are baked in, for a rotated weight has no zeros.
        writers: names of Linear or Embedding layers whose outputs make the vector.
        readers: names of Linear layers whose input it is; a layer may be both. A weight that is shared, such
            as that of an embedding and the output layer, is rotated once.
        seed: of the random signs.

    Raises:
        TypeError: a layer is of another type.
        ValueError: an unknown name, no writer or no reader, or sizes that differ or are odd.

    Source: Ashkboos et al., NeurIPS 2024, section 4 (stage 1).
    Differs: the paper also folds the weights of RMSNorm into the readers, and rotates inside attention and
    the feed-forward part.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        >>> rotated, x = rotate_stream(model, ["0"], ["1"]), torch.ones(1, 3)
        >>> torch.allclose(rotated(x), model(x), atol=1e-6), torch.allclose(rotated[0](x), model[0](x))
        (True, False)
    """
    model = bake(model)
    written = find_layers(model, writers, (nn.Linear, nn.Embedding))
    read = find_layers(model, readers, (nn.Linear,))
    turns = [(name, layer.weight, int(isinstance(layer, nn.Embedding))) for name, layer in written.items()]
    turns += [(name, layer.weight, 1) for name, layer in read.items()]
    biases = {name: getattr(layer, "bias", None) for name, layer in written.items()}
    turns += [(name, bias, 0) for name, bias in biases.items() if bias is not None]
    if not (written and read):
        raise ValueError("name at least one writer and one reader of the vector")
    first, weight, axis = turns[0]
    signs = random_signs(weight.shape[axis], seed=seed)
    for name, tensor, axis in turns:
        if tensor.shape[axis] != len(signs):
            raise ValueError(
                f"the vector has {len(signs)} coordinates in layer '{first}', "
                f"but {tensor.shape[axis]} in layer '{name}'"
            )
    for tensor, axis in {(id(tensor), axis): (tensor, axis) for _, tensor, axis in turns}.values():
        tensor.data = rotate(tensor.data.movedim(axis, -1), signs).movedim(-1, axis).contiguous()
    return model
