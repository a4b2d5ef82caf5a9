r"""A character-level LSTM, and its cell written out.

.. math:: (i, f, g, o) = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}, \qquad
          c_t = \sigma(f) c_{t-1} + \sigma(i) \tanh(g), \qquad h_t = \sigma(o) \tanh(c_t)

and, where the state is projected, :math:`h_t = W_{hr}\, \sigma(o) \tanh(c_t)`.

Source: S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation, 1997; the projection: H. Sak,
A. Senior, F. Beaufays, "Long Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic
Modeling", Interspeech 2014.
"""

from __future__ import annotations

import warnings

import torch  # noqa: F401  (for the examples)
from torch import Tensor, nn

from compresslab.core.errors import check_int
from compresslab.sequence.text import VOCABULARY

State = tuple[Tensor, Tensor]


class CharLSTM(nn.Module):
    """Embedding, LSTM, linear output: predicts the next character.

    Args:
        vocabulary: number of tokens. embedding: numbers per token. hidden: units of the LSTM. layers: of the LSTM.
        projection: numbers of h where it is projected (`proj_size`), below `hidden`; 0 for none.
        dropout: on the LSTM's input and output, during training.

    Shape: tokens int64 (B, L) -> logits (B, L, vocabulary).

    Raises:
        ValueError: a number that is out of range.

    Example:
        >>> model = CharLSTM(embedding=4, hidden=6, projection=3)
        >>> model(torch.zeros(1, 5, dtype=torch.int64)).shape
        torch.Size([1, 5, 97])
    """

    def __init__(
        self,
        vocabulary: int = len(VOCABULARY),
        embedding: int = 64,
        hidden: int = 320,
        layers: int = 1,
        projection: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {"vocabulary": vocabulary, "embedding": embedding, "hidden": hidden, "layers": layers}
        for name, value in sizes.items():
            check_int(name, value, 1, 65_536)
        check_int("projection", projection, 0, hidden - 1)
        self.spec = {"model": "char_lstm", **sizes, "projection": projection, "dropout": dropout}
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, proj_size=projection)
        self.head = nn.Linear(projection or hidden, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.step(tokens)[0]

    def step(self, tokens: Tensor, memory: State | None = None) -> tuple[Tensor, State]:
        """Read tokens (B, L) after the state `memory` (None: zeros); returns logits (B, L, V) and the new state."""
        x = self.dropout(self.embedding(tokens))  # (B, L, embedding)
        with warnings.catch_warnings():  # a faster implementation has no projections; the usual one does the work
            warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
            x, memory = self.lstm(x, memory)  # (B, L, hidden or projection)
        return self.head(self.dropout(x)), memory


def lstm_cell(
    x: Tensor, state: State, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, weight_hr: Tensor | None = None
) -> State:
    """One step of an LSTM, written out.

    Args:
        x: (B, inputs). state: h (B, hidden or projection) and c (B, hidden).
        weight_ih: (4 hidden, inputs); weight_hh: (4 hidden, hidden or projection); the gates in the order i, f, g, o.
        bias: (4 hidden,), the sum of both biases. weight_hr: (projection, hidden), or None.

    Returns:
        the new h and c.

    Example:
        >>> zero, one = torch.zeros(1, 1), torch.ones(1, 1)
        >>> h, c = lstm_cell(zero, (zero, one), torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4))
        >>> c.item()  # every gate is half open
        0.5
    """
    h, c = state
    i, f, g, o = (x @ weight_ih.T + h @ weight_hh.T + bias).chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if weight_hr is None else h @ weight_hr.T), c
