r"""Low rank as the data sees it: the closest outputs, instead of the closest weights.

The closest weights of rank k treat every direction of the input alike. The inputs of a layer do not: most of
their energy lies in few directions, and an error in the others is never seen. So measure the error where it
counts, at the outputs :math:`Y = WX`:

1. ``response_svd``: :math:`\min \|WX - BAX\|`. The answer is the PCA of the outputs.
2. ``reduced_rank_regression``: :math:`\min \|Y - BA\hat X\|`, where the layers before are approximated
   already: their errors are in :math:`\hat X`, and this layer makes up for them (asymmetric).
3. ``relu_half_step``: what a ReLU cuts off need not be right (nonlinear).

``decompose_responding`` takes a network through all of them, layer by layer.
"""

from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from compresslab.core.calibrate import Batches
from compresslab.core.errors import check_int, naming
from compresslab.core.linalg import damped_cholesky
from compresslab.core.modules import bake, map_layers

from .convolution import conv_pair, full_rank
from .decompose import check_layers
from .outputs import Behind, sample_outputs
from .svd import check_matrix, check_moments, linear_pair, truncated_svd

DAMP = 1e-6  # share of the mean diagonal that singular moments get
SCHEDULE = (0.01, 1.0)  # the weights of the nonlinear fit, one after the other
STEPS = 10  # of the nonlinear fit, for each of them


def response_svd(weight: Tensor, moments: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    r"""The factors whose outputs are closest to the layer's: an SVD of the weights seen through the data.

    .. math:: \min_{B, A} \|(W - BA)X\|_F = \min_{B, A} \|(W - BA)L\|_F, \quad XX^\top = LL^\top: \qquad
              WL = U \Sigma V^\top, \quad BA = U_k U_k^\top W

    :math:`U_k` are the principal directions of the outputs, since :math:`WX(WX)^\top = U \Sigma^2 U^\top`;
    what is lost is :math:`\sqrt{\sum_{i > k} \sigma_i^2}`.

    Args:
        weight: :math:`W` (out, in); of a convolution, ``weight.flatten(1)``.
        moments: :math:`XX^\top` (in, in), from ``core.calibrate.input_moments``. Where it is singular, a
            millionth of its mean diagonal is added to the diagonal.
        rank: k, 1 to min(out, in).

    Returns:
        :math:`B` (out, k) and :math:`A` (k, in), of the same norm, in the weight's dtype.

    Raises:
        TypeError, ValueError: a matrix that is not floating-point, finite or of these shapes, moments that
            are not positive semi-definite, or a rank out of its range.

    Source:
        X. Zhang, J. Zou, X. Ming, K. He, J. Sun, "Efficient and Accurate Approximations of Nonlinear
        Convolutional Networks", 2015, the linear case. With a Cholesky factor it is called whitened SVD.
    Differs: no mean is subtracted, so that the bias stays as it is; ``decompose_responding`` moves the bias.

    Example:
        >>> weight = torch.diag(torch.tensor([2.0, 1.0]))
        >>> B, A = response_svd(weight, torch.diag(torch.tensor([1.0, 9.0])), 1)  # outputs: 2 * 1 and 1 * 3
        >>> B @ A
        tensor([[0., 0.],
                [0., 1.]])
    """
    check_matrix(weight, "weight")
    check_moments(moments, weight.shape[1])
    check_int("rank", rank, 1, min(weight.shape))
    W, L = weight.detach().double(), _seen_through(moments.to(weight.device))
    U = torch.linalg.svd(W @ L, full_matrices=False).U[:, :rank]
    B, A = truncated_svd(U @ (U.T @ W), rank)
    return B.to(weight.dtype), A.to(weight.dtype)


def _seen_through(moments: Tensor) -> Tensor:
    """A Cholesky factor of the moments, of slightly damped ones where they are singular; without any, I."""
    if not moments.any():
        return torch.eye(len(moments), dtype=torch.float64, device=moments.device)
    for damp in (0.0, DAMP):
        with suppress(ValueError):
            return damped_cholesky(moments, damp)
    raise ValueError("moments must be positive semi-definite, as any X X^T is")


def reduced_rank_regression(
    inputs: Tensor, outputs: Tensor, rank: int, *, intercept: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The linear map of rank k that predicts outputs best: least squares, then PCA of what it predicts.

    .. math:: \min_{B, A, b} \|Y - BA\hat X - b\mathbf{1}^\top\|_F^2: \qquad
              C = Y\hat X^\top (\hat X\hat X^\top)^{-1}, \quad BA = U_k U_k^\top C, \quad
              b = \bar y - BA\bar x

    with :math:`U_k` the leading left singular vectors of the prediction :math:`C\hat X` (both centred).

    Args:
        inputs: :math:`\hat X^\top` (rows, in), one sample a row.
        outputs: :math:`Y^\top` (rows, out).
        rank: k, 1 to min(out, in).
        intercept: False fits without a bias and subtracts no means.

    Returns:
        :math:`B` (out, k), :math:`A` (k, in) and :math:`b` (out,), zeros without intercept; float64.
        Directions in which the inputs do not vary are mapped to 0.

    Raises:
        TypeError, ValueError: matrices that are not floating-point, finite or of as many rows, or a rank out
            of its range.

    Source:
        A. J. Izenman, "Reduced-Rank Regression for the Multivariate Linear Model", 1975; for networks: Zhang
        et al., 2015, the asymmetric case.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        >>> B, A, b = reduced_rank_regression(x, 3 * x.sum(1, keepdim=True) + 1, 1)
        >>> (B @ A).round(decimals=6) + 0, b.round(decimals=6)
        (tensor([[3., 3.]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    check_matrix(inputs, "inputs")
    check_matrix(outputs, "outputs")
    if len(inputs) != len(outputs):
        raise ValueError(f"inputs and outputs must have as many rows, got {len(inputs)} and {len(outputs)}")
    check_int("rank", rank, 1, min(inputs.shape[1], outputs.shape[1]))
    return _Regression(inputs.detach().double(), intercept).fit(outputs.detach().double(), rank)


class _Regression:
    """Reduced-rank regressions on the same inputs: what depends on these alone is computed once."""

    def __init__(self, inputs: Tensor, intercept: bool):
        self.intercept, self.mean = intercept, self._mean(inputs, intercept)
        X = inputs - self.mean
        values, vectors = torch.linalg.eigh(X.T @ X)
        seen = values > 1e-10 * values[-1]
        self.whiten = vectors[:, seen] / values[seen].sqrt()  # (in, seen)
        self.white = X @ self.whiten  # (rows, seen), orthonormal columns

    @staticmethod
    def _mean(rows: Tensor, intercept: bool) -> Tensor:
        return rows.mean(0) if intercept else rows.new_zeros(rows.shape[1])

    def fit(self, outputs: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        mean = self._mean(outputs, self.intercept)
        predicted = (outputs - mean).T @ self.white  # (out, seen): C X, in an orthonormal basis
        U = torch.linalg.svd(predicted, full_matrices=predicted.shape[0] > predicted.shape[1]).U[:, :rank]
        B, A = truncated_svd(U @ (U.T @ predicted @ self.whiten.T), rank)
        return B, A, mean - B @ (A @ self.mean)


def relu_half_step(y: Tensor, target: Tensor, weight: float) -> Tensor:
    r"""The outputs that a layer should aim at if only what a ReLU leaves of them counts.

    .. math:: z = \arg\min_z \; (r(t) - r(z))^2 + \lambda (z - y)^2, \qquad r(z) = \max(z, 0)

    Either z is negative, and best as close to y as that allows, or it is positive, and a compromise:

    .. math:: z_0 = \min(0, y), \qquad z_1 = \max\Big(0, \frac{\lambda y + r(t)}{\lambda + 1}\Big)

    and the better one of the two is the answer. It is the half of an alternating minimisation that a
    regression on z completes.

    Args:
        y: what the layer can do at present, any shape.
        target: t, what it should do, before or after the ReLU; the same shape.
        weight: :math:`\lambda > 0`: small gives z freedom, large holds it at y.

    Returns:
        z, of the same shape.

    Raises:
        ValueError: the shapes differ, or the weight is not positive.

    Source:
        X. Zhang et al., 2015, the nonlinear case.

    Example:
        >>> y, target = torch.tensor([-2.0, 1.0, 1.0]), torch.tensor([-5.0, -5.0, 3.0])
        >>> relu_half_step(y, target, 1.0)  # -2 is as good as -5; 1 should be 0; between 1 and 3
        tensor([-2.0000,  0.5000,  2.0000])
    """
    if y.shape != target.shape:
        raise ValueError(f"y and target must have one shape, got {tuple(y.shape)} and {tuple(target.shape)}")
    if not weight > 0:
        raise ValueError(f"weight must be above 0, got {weight}")
    wanted = target.clamp(min=0)
    negative, positive = y.clamp(max=0), ((weight * y + wanted) / (weight + 1)).clamp(min=0)
    loss = wanted.square() + weight * (negative - y).square()
    other = (wanted - positive).square() + weight * (positive - y).square()
    return torch.where(loss < other, negative, positive)


def decompose_responding(
    model: nn.Module,
    ranks: Mapping[str, int],
    batches: Batches,
    *,
    asymmetric: bool = True,
    nonlinear: bool = False,
    max_rows: int = 2048,
    seed: int = 0,
) -> nn.Module:
    r"""Copy of ``model`` whose named layers are split in two so that their outputs stay close, one by one.

    .. math:: \min_{\operatorname{rank} M \le k, \, b} \sum \|r(y) - r(M\hat y + b)\|^2, \qquad W \to MW = BA

    where y is what the layer gave in the old network and :math:`\hat y` what it gives behind the layers that
    were split before. Where a batch norm follows, outputs are compared behind it, in its units.

    Args:
        model: any network; not changed.
        ranks: layer -> rank, of linear layers and convolutions (these become kh x kw, then 1x1: scheme
            "channel").
        batches: calibration inputs, or (x, y) pairs; a few hundred images. At least a few times as many
            outputs as the layer has channels should come together.
        asymmetric: False takes :math:`\hat y = y`: every layer on its own.
        nonlinear: take account of the ReLU, where one follows and nothing else uses the outputs (a skip
            connection would carry what the ReLU forgives).
        max_rows: positions to draw from the outputs of each layer and batch.
        seed: of that draw.

    Returns:
        a new network, as ``decompose`` gives. A layer has a bias if it had one; only then can means be
        corrected.

    Raises:
        TypeError, ValueError: as ``decompose``; no calibration data, or a layer that it does not reach.

    Source:
        X. Zhang, J. Zou, K. He, J. Sun, "Accelerating Very Deep Convolutional Networks for Classification and
        Detection", 2016.
    Differs: weights behind a batch norm; the penalty :math:`\lambda` of the nonlinear case takes the steps of
        ``SCHEDULE``; no third factor.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> small = decompose_responding(model, {"0": 2, "2": 2}, [torch.randn(32, 4)], nonlinear=True)
        >>> [part.weight.shape[0] for layer in (small[0], small[2]) for part in layer]
        [2, 6, 2, 3]
    """
    batches = list(batches)
    for name, layer in check_layers(model, ranks).items():
        with naming(name):
            check_int("rank", ranks[name], 1, full_rank(layer))
    if not ranks:
        return map_layers(model, (), lambda name, layer: None)
    targets, behind = sample_outputs(model, ranks, batches, max_rows, seed)
    for name in targets:
        now = sample_outputs(model, [name], batches, max_rows, seed)[0] if asymmetric else targets
        layer = bake(model.get_submodule(name))
        chain = _fit(layer, ranks[name], now[name], targets[name], behind[name], nonlinear)
        model = map_layers(model, type(model.get_submodule(name)), lambda n, _: chain if n == name else None)
    return model


def _fit(
    layer: nn.Linear | nn.Conv2d, rank: int, given: Tensor, target: Tensor, behind: Behind, nonlinear: bool
) -> nn.Sequential:
    """The pair of layers that brings what the layer gives now to its target; both are (rows, out)."""
    biased, W = layer.bias is not None, layer.weight.detach().double().flatten(1)
    scale, shift = behind.scale.to(W), behind.shift.to(W)
    goal = target * scale
    regression = _Regression(given, intercept=biased)
    B, A, b = regression.fit(goal, rank)
    for weight in SCHEDULE * (nonlinear and behind.rectified):
        for _ in range(STEPS):
            z = relu_half_step(given @ A.T @ B.T + b + shift, goal + shift, weight)
            B, A, b = regression.fit(z - shift, rank)
    B, b = B / scale[:, None], b / scale
    bias = b + B @ (A @ layer.bias.detach().to(B)) if biased else None
    B, A = truncated_svd(B @ (A @ W), rank)
    make = linear_pair if isinstance(layer, nn.Linear) else conv_pair
    return make(layer, B, A, bias=bias)
