r"""Bonsai: one shallow tree on a learned projection, in which every node of the path has a say.

.. math:: \hat y(x) = \sum_k I_k(x)\; W_k^\top \hat x \circ \tanh(\sigma V_k^\top \hat x), \qquad \hat x = Z x

:math:`I_k` is 1 on the path that x takes and 0 elsewhere: at an inner node x goes right if
:math:`\theta_k^\top \hat x > 0`. A path cannot be learned by gradients, so training softens it,

.. math:: I_1 = 1, \qquad I_{2k} = I_k\,\tfrac{1 - \tanh(\sigma_I \theta_k^\top \hat x)}{2}, \qquad
          I_{2k+1} = I_k\,\tfrac{1 + \tanh(\sigma_I \theta_k^\top \hat x)}{2}

and lets the sharpness :math:`\sigma_I` grow until soft and hard agree.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional as F

from compresslab.classical.size import Arrays, label_arrays, labels_of
from compresslab.classical.stored_matrix import FLOAT, check_bits, keep_largest, pack_matrices, rounded, unpack_matrices
from compresslab.core.errors import check_fraction, check_int

NAMES = ("Z", "theta", "W", "V")
SHARPEST = 100.0


def path_indicators(projected: Tensor, theta: Tensor, sharpness: float) -> Tensor:
    r"""The soft indicators of all nodes of a complete tree; those of one level add up to 1.

    Args:
        projected: :math:`\hat x`, (n, d).
        theta: of the inner nodes, (2**depth - 1, d); node k has the children 2k and 2k + 1, the root is 1.
        sharpness: :math:`\sigma_I`; ``inf`` gives the hard path, zeros and ones.

    Returns:
        (n, 2**(depth + 1) - 1), nodes 1, 2, 3, ...

    Source:
        A. Kumar, S. Goyal, M. Varma, "Resource-efficient Machine Learning in 2 KB RAM for the Internet of
        Things", ICML 2017.

    Example:
        >>> path_indicators(torch.tensor([[2.0], [-1.0]]), torch.ones(1, 1), float("inf"))
        tensor([[1., 0., 1.],
                [1., 1., 0.]])
    """
    side = projected @ theta.T
    turn = 2.0 * (side > 0) - 1 if sharpness == float("inf") else torch.tanh(sharpness * side)
    nodes = [torch.ones_like(projected[:, 0])]
    for k in range(len(theta)):
        nodes += [nodes[k] * (1 - turn[:, k]) / 2, nodes[k] * (1 + turn[:, k]) / 2]
    return torch.stack(nodes, 1)


def bonsai_scores(X: Tensor, Z: Tensor, theta: Tensor, W: Tensor, V: Tensor, sigma: float, sharpness: float) -> Tensor:
    r"""The scores of all classes.

    Args:
        X: (n, D). Z: (d, D). theta: (inner nodes, d). W, V: of all nodes, (nodes, d, L).
        sigma: :math:`\sigma`, inside the tanh. sharpness: :math:`\sigma_I` of the path; ``inf`` is hard.

    Returns:
        (n, L).

    Source:
        Kumar, Goyal, Varma, ICML 2017.
    """
    projected = X @ Z.T
    votes = torch.einsum("nd,kdl->nkl", projected, W) * torch.tanh(sigma * torch.einsum("nd,kdl->nkl", projected, V))
    return torch.einsum("nk,nkl->nl", path_indicators(projected, theta, sharpness), votes)


class BonsaiClassifier(ClassifierMixin, BaseEstimator):
    """A shallow tree on a sparse projection, trained in the precision in which it is stored.

    Args:
        dimensions: d, of the projection.
        depth: levels of inner nodes; 2**(depth + 1) - 1 nodes in all. 0 is one node without a question.
        density: fraction of Z that stays, in [0, 1]; held by iterative hard thresholding.
        bits: of a stored number, 2 to 8, or 32 for float32.
        sigma: inside the tanh.
        epochs, batch_size, lr: of the training. seed: of the start and of the order of the points.

    Attributes:
        Z_: (d, D), theta_: (inner, d), W_, V_: (nodes, d, L), as they come back from storage. classes_: (L,).

    Source:
        Kumar, Goyal, Varma, ICML 2017. Differs: cross-entropy and Adam; only Z is sparse; the rounding is part
        of the second half of the training; features are centred, and the constant 1 is one of them.
    """

    def __init__(self, dimensions: int = 8, depth: int = 1, density: float = 1.0, bits: int = 8, sigma: float = 1.0,
                 epochs: int = 60, batch_size: int = 64, lr: float = 0.02, seed: int = 0) -> None:  # fmt: skip
        self.dimensions = dimensions
        self.depth = depth
        self.density = density
        self.bits = bits
        self.sigma = sigma
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.seed = seed

    def fit(self, X: NDArray, y: NDArray) -> BonsaiClassifier:
        """Learn the projection, the questions and the votes. X: (N, D); y: (N,)."""
        check_bits(self.bits)
        check_fraction("density", self.density)
        check_int("depth", self.depth, 0, 6)
        for name in ("dimensions", "batch_size"):
            check_int(name, getattr(self, name), 1)
        check_int("epochs", self.epochs, 0)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self.centre_, self.spread_ = np.float32(X.mean()), np.float32(max(X.std(), 1e-12))
        trained = self._train(self._inputs(X), torch.from_numpy(numbers))
        self.Z_, self.theta_, self.W_, self.V_ = (p.numpy() for p in self._stored(trained))
        return self

    def _inputs(self, X: NDArray) -> Tensor:
        """(n, D + 1), float32: shifted and scaled by one number each, with a constant 1."""
        X = (np.asarray(X, np.float32) - self.centre_) / self.spread_
        return torch.from_numpy(np.column_stack([X, np.ones(len(X), np.float32)]))

    def _start(self, features: int) -> list[Tensor]:
        draw = torch.Generator().manual_seed(self.seed)
        d, inner, labels = self.dimensions, 2**self.depth - 1, len(self.classes_)
        shapes = ((d, features), (inner, d), (2 * inner + 1, d, labels), (2 * inner + 1, d, labels))
        sizes = (features**-0.5, d**-0.5, d**-0.5, d**-0.5)
        return [(torch.randn(shape, generator=draw) * size).requires_grad_() for shape, size in zip(shapes, sizes)]

    def _train(self, X: Tensor, y: Tensor) -> list[Tensor]:
        """Adam; the path sharpens from 1 to SHARPEST; rounded parameters from half time on."""
        parameters, draw = self._start(X.shape[1]), torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        for epoch in range(self.epochs):
            optimizer.param_groups[0]["lr"] = self.lr * (1 - epoch / self.epochs)
            sharpness = SHARPEST ** (epoch / self.epochs)
            for rows in torch.randperm(len(X), generator=draw).split(self.batch_size):
                seen = parameters
                if 2 * epoch >= self.epochs:  # straight-through: rounded forward, gradient to the real ones
                    seen = [p + (r - p).detach() for p, r in zip(parameters, self._stored(parameters))]
                loss = F.cross_entropy(bonsai_scores(X[rows], *seen, self.sigma, sharpness), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if self.density < 1:
                    parameters[0].data = torch.from_numpy(keep_largest(parameters[0].detach().numpy(), self.density))
        parameters[0].data = torch.from_numpy(keep_largest(parameters[0].detach().numpy(), self.density))
        return parameters

    def _stored(self, parameters: list[Tensor]) -> list[Tensor]:
        return [p.detach() if self.bits == FLOAT else torch.from_numpy(rounded(p.detach().numpy(), self.bits)) for p in parameters]

    def _scores(self, X: NDArray) -> NDArray:
        check_is_fitted(self)
        X = self._inputs(validate_data(self, X, reset=False))
        tensors = (torch.from_numpy(np.ascontiguousarray(p)) for p in (self.Z_, self.theta_, self.W_, self.V_))
        return bonsai_scores(X, *tensors, self.sigma, float("inf")).numpy()

    def decision_function(self, X: NDArray) -> NDArray:
        """The scores along the hard path: (n, L), or (n,) for two classes."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: NDArray) -> NDArray:
        """The class with the largest score; (n,)."""
        numbers = self._scores(X).argmax(1)
        return self.classes_[numbers]

    def to_arrays(self) -> Arrays:
        """Z (nonzeros only, where it is sparse), theta, W and V in ``bits`` bits each, and three scalars."""
        check_is_fitted(self)
        d, labels = self.W_.shape[1:]
        matrices = {"Z": self.Z_, "theta": self.theta_, "W": self.W_.reshape(-1, labels), "V": self.V_.reshape(-1, labels)}
        arrays = pack_matrices(matrices, self.bits, sparse=["Z"] if self.density < 1 else [])
        arrays["scalars"] = np.array([self.centre_, self.spread_, self.sigma], np.float32)
        return arrays | label_arrays(self.classes_)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> BonsaiClassifier:
        """The fitted classifier that ``to_arrays`` stored."""
        found = unpack_matrices(arrays, NAMES)
        d, labels = found["Z"].shape[0], found["W"].shape[1]
        model = cls(bits=int(arrays["layout"][0]), dimensions=d, density=0.5 if "Z_mask" in arrays else 1.0)
        model.depth = len(found["theta"]).bit_length()
        model.Z_, model.theta_ = found["Z"], found["theta"]
        model.W_, model.V_ = (found[name].reshape(-1, d, labels) for name in "WV")
        model.centre_, model.spread_, model.sigma = arrays["scalars"]
        model.sigma, model.classes_ = float(model.sigma), labels_of(arrays, labels)
        model.n_features_in_ = model.Z_.shape[1] - 1
        return model
