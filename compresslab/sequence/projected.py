r"""Low rank for an LSTM: one projection that every reader of the state shares.

The state :math:`h` of an LSTM is read twice: by its own four gates in the next step, and by the layer above.
Factorizing each reader for itself would project :math:`h` twice. If both use the same :math:`P`, the projection
can be computed once, where the state is made, and what is kept and handed on is the short vector:

.. math:: W_h \approx Z_h P, \quad W_x \approx Z_x P, \qquad h'_t = P h_t \text{ replaces } h_t

which is exactly the LSTM with a projection layer, `nn.LSTM(proj_size=r)`.

Source: R. Prabhavalkar, O. Alsharif, A. Bruguier, I. McGraw, "On the Compression of Recurrent Neural Networks with
an Application to LVCSR Acoustic Modeling for Embedded Speech Recognition", ICASSP 2016; the cell: H. Sak, A. Senior,
F. Beaufays, "Long Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic Modeling",
Interspeech 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int, naming
from compresslab.core.modules import bake
from compresslab.lowrank.svd import check_matrix, truncated_svd
from compresslab.sequence.lstm import CharLSTM


def share_projection(readers: Sequence[Tensor], rank: int) -> tuple[Tensor, list[Tensor]]:
    r"""The projection of rank r that serves several readers of one vector best.

    .. math:: \min_{P, Z_1, Z_2, \dots} \sum_i \|W_i - Z_i P\|_F^2

    The matrices stacked are one matrix, and its truncated SVD is the answer: :math:`P = V_r^\top`, with orthonormal
    rows, and :math:`Z_i = W_i P^\top`.

    Args:
        readers: :math:`W_i` (m_i, n) each, floating-point and finite: matrices that multiply the same vector.
        rank: r, from 1 to n, and no more than all rows together.

    Returns:
        :math:`P` (r, n) and the list of :math:`Z_i` (m_i, r), in the dtype of the first; computed in float64.

    Raises:
        TypeError, ValueError: no readers, readers of different widths, not finite, or a rank out of range.

    Source: Prabhavalkar et al., ICASSP 2016.
    Differs: the paper takes P from the recurrent matrix alone, and then solves for the layer above by least
        squares. Here both have a say; the sum of the squared errors cannot be larger.

    Example:
        >>> P, (Z, Y) = share_projection([torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, -4.0]])], rank=1)
        >>> Z @ P, Y @ P
        (tensor([[0., 3.]]), tensor([[ 0., -4.]]))
    """
    if not readers:
        raise ValueError("there must be at least one reader, got none")
    for number, reader in enumerate(readers):
        check_matrix(reader, f"reader {number}")
        if reader.shape[1] != readers[0].shape[1]:
            wanted, got = readers[0].shape[1], reader.shape[1]
            raise ValueError(f"all readers must have {wanted} columns, reader {number} has {got}")
    stacked = torch.cat([reader.detach().double() for reader in readers])
    _, rows = truncated_svd(stacked, rank)
    P = nn.functional.normalize(rows, dim=1)
    if (rows.norm(dim=1) == 0).any():  # the rank is more than there is: any directions will do
        P = torch.linalg.svd(stacked, full_matrices=False).Vh[:rank]
    return P.to(readers[0].dtype), [(reader.double() @ P.T).to(readers[0].dtype) for reader in readers]


def project_lstm(model: CharLSTM, rank: int) -> CharLSTM:
    r"""Copy of an LSTM whose state is projected to `rank` numbers.

    .. math:: h_t = P\, (o_t \odot \tanh c_t), \quad W_{hh} \leftarrow Z_h, \quad W_{next} \leftarrow Z_x

    It holds :math:`4 H (E + r) + r (H + V)` numbers in its matrices, where it held :math:`4 H (E + H) + H V` (one
    layer of H units, embeddings of E numbers, V characters). At full rank nothing is lost, and nothing gained; what
    a lower rank loses may be trained back.

    Args:
        model: a `CharLSTM` without a projection; masks are baked in. Coded ones must be decompressed before.
        rank: r, 1 to hidden - 1.

    Returns:
        A plain `CharLSTM` with `projection=rank`, in the mode of `model`; its `spec` says so.

    Raises:
        TypeError: no `CharLSTM`, or a coded one.
        ValueError: it has a projection already; a rank out of range.

    Source: Prabhavalkar et al., ICASSP 2016.
    Differs: see `share_projection`.

    Example:
        >>> model = CharLSTM(embedding=2, hidden=8)
        >>> small = project_lstm(model, 3)
        >>> small.lstm.weight_hh_l0.shape, small.lstm.weight_hr_l0.shape, small.head.weight.shape
        (torch.Size([32, 3]), torch.Size([3, 8]), torch.Size([97, 3]))
    """
    _check(model, rank)
    model = bake(model)
    spec = {key: value for key, value in model.spec.items() if key != "model"} | {"projection": rank}
    small = CharLSTM(**spec)
    held = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name in held and held[name].shape == parameter.shape:
                parameter.copy_(held[name])
        for layer in range(spec["layers"]):
            above = f"lstm.weight_ih_l{layer + 1}" if layer + 1 < spec["layers"] else "head.weight"
            names = [f"lstm.weight_hh_l{layer}", above]
            with naming(f"lstm, layer {layer}"):
                P, factors = share_projection([held[name] for name in names], rank)
            small.get_parameter(f"lstm.weight_hr_l{layer}").copy_(P)
            for name, Z in zip(names, factors, strict=True):
                small.get_parameter(name).copy_(Z)
    return small.train(model.training)


def state_spectrum(model: CharLSTM, layer: int = 0) -> Tensor:
    """The singular values of what reads the state of a layer, all readers stacked: (hidden,), descending.

    Args:
        model: a `CharLSTM`. layer: 0 is the lowest.

    Raises:
        ValueError: no such layer.
    """
    check_int("layer", layer, 0, model.spec["layers"] - 1)
    last = layer + 1 == model.spec["layers"]
    above = model.head.weight if last else getattr(model.lstm, f"weight_ih_l{layer + 1}")
    readers = [getattr(model.lstm, f"weight_hh_l{layer}"), above]
    return torch.linalg.svdvals(torch.cat([reader.detach() for reader in readers]))


def _check(model: CharLSTM, rank: int) -> None:
    if not isinstance(model, CharLSTM):
        raise TypeError(f"expected a CharLSTM, got {type(model).__name__}")
    if not isinstance(model.lstm, nn.LSTM) or not isinstance(model.head, nn.Linear):
        raise TypeError("this LSTM is coded: decompress it before it is projected")
    if model.spec["projection"]:
        raise ValueError(f"the state is projected already, to {model.spec['projection']} numbers")
    check_int("rank", rank, 1, model.spec["hidden"] - 1)
