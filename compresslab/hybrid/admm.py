r"""Project, then pull: training under a constraint that gradients cannot see.

A network shall have a low loss and weights of a wanted form (sparse, ternary, of low rank):

.. math:: \min_{W, Z} L(W) + g(Z) \quad \text{s.t.} \quad W = Z, \qquad
          g(Z) = 0 \text{ in } S, \infty \text{ elsewhere}

Splitting the weight in two lets each side do what it can: W follows the loss and is pulled towards Z, which
is the projection of W onto S. The dual variable U adds up how far the two still disagree; without it, the
pull has to grow without bound. ``admm`` keeps its strength :math:`\rho` the same, the learning-compression
algorithm (``learning_compression``) lets it grow; for the rest they are one algorithm.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compresslab.core.errors import check_int, naming, where
from compresslab.core.modules import named_layers
from compresslab.core.train import Loss, cross_entropy, train
from compresslab.data import Split
from compresslab.hybrid.projections import Projection

Weights = dict[str, Tensor]
WStep = Callable[[Weights, Weights, float], Weights]


def alternate(
    w_step: WStep,
    projections: Mapping[str, Projection],
    weights: Mapping[str, Tensor],
    rhos: Sequence[float],
    *,
    dual: bool = True,
    history: list[dict] | None = None,
) -> tuple[Weights, Weights, Weights]:
    r"""The alternating direction method of multipliers, whatever minimises the loss.

    .. math::
        W &\leftarrow \arg\min_W L(W) + \tfrac{\rho}{2} \|W - Z + U\|^2 \\
        Z &\leftarrow \Pi_S(W + U) \\
        U &\leftarrow U + W - Z

    It starts at :math:`Z = \Pi_S(W), U = 0`. U is the dual variable divided by :math:`\rho`: where
    :math:`\rho` changes, U is scaled so that the dual variable stays.

    Args:
        w_step: (weights, targets :math:`Z - U`, :math:`\rho`) -> new weights: the first line.
        projections: name -> :math:`\Pi_S`; the weights that are constrained.
        weights: name -> W at the start, for the same names.
        rhos: :math:`\rho` of each iteration, above 0.
        dual: False leaves U at 0: the quadratic-penalty method.
        history: a list that receives {"outer", "rho", "residual"} after each iteration; the residual is
            :math:`\|W - Z\| / \|W\|` over all weights.

    Returns:
        W, Z and U, by name.

    Source:
        S. Boyd et al., "Distributed Optimization and Statistical Learning via the Alternating Direction
        Method of Multipliers", 2011, section 3.1.1 (scaled form).

    Example:
        >>> def step(weights, targets, rho):  # the loss is (w - 3)^2 / 2, and w must not be above 1
        ...     return {"w": (3 + rho * targets["w"]) / (1 + rho)}
        >>> start = {"w": torch.tensor([0.0])}
        >>> W, Z, U = alternate(step, {"w": lambda w: w.clamp(max=1)}, start, [1.0] * 30)
        >>> W["w"], Z["w"], U["w"]  # pulled by rho U = 2, the slope of the loss at 1
        (tensor([1.]), tensor([1.]), tensor([2.]))
    """
    W = {name: weights[name].detach().clone() for name in projections}
    Z = {name: project(W[name]) for name, project in projections.items()}
    U = {name: torch.zeros_like(w) for name, w in W.items()}
    for outer, rho in enumerate(rhos):
        if outer and rho != rhos[outer - 1]:
            U = {name: u * (rhos[outer - 1] / rho) for name, u in U.items()}
        W = w_step(W, {name: Z[name] - U[name] for name in Z}, rho)
        Z = {name: project(W[name] + U[name]) for name, project in projections.items()}
        if dual:
            U = {name: U[name] + W[name] - Z[name] for name in U}
        if history is not None:
            history.append({"outer": outer + 1, "rho": rho, "residual": _distance(W, Z)})
    return W, Z, U


def _distance(W: Weights, Z: Weights) -> float:
    """The norm of W - Z over that of W, all weights together."""
    apart = sum((W[name] - Z[name]).double().square().sum() for name in W)
    size = sum(w.double().square().sum() for w in W.values())
    return float((apart / size.clamp(min=1e-30)).sqrt())


def admm(
    model: nn.Module,
    split: Split,
    projections: Mapping[str, Projection],
    *,
    rho: float = 0.3,
    outer: int = 5,
    epochs: int = 1,
    lr: float = 0.02,
    dual: bool = True,
    loss: Loss | None = None,
    seed: int = 0,
    history: list[dict] | None = None,
    **train_options: object,
) -> nn.Module:
    r"""Train a network so that the weights of named layers come to lie in their sets.

    The W step is ``core.train.train`` on :math:`L(W) + \frac{\rho}{2}\|W - Z + U\|^2`, from where W is.

    Args:
        model: a trained network; it is not changed. The named weights must be plain: bake masks first.
        split: the training images.
        projections: layer name -> :math:`\Pi_S`, such as ``partial(project_top_k, k=1000)``.
        rho: :math:`\rho`, above 0, in units of loss per squared weight. Alone, the pull closes a gap in about
            :math:`(1 - \text{momentum}) / (\rho\,\text{lr})` steps: an iteration needs a few times as many.
            With a weaker pull W cannot follow, U piles up, and the result is worse than projecting at once;
            with a much stronger one the loss is not heard.
        outer: iterations, at least 1.
        epochs, lr: of the training in each.
        dual, history: as in ``alternate``.
        loss: ``loss(model, x, y)``; cross-entropy where None.
        seed: the i-th iteration trains with seed + i.
        train_options: for ``core.train.train``.

    Returns:
        a copy, in which the named weights are :math:`Z = \Pi_S(W + U)` itself. Where Z is sparse,
        ``pruning.mask_layers(model, {name: weight != 0})`` holds the zeros while the rest is trained on.

    Raises:
        TypeError, ValueError: no projection, an unknown or parametrized layer, two layers that are tied,
            what a projection or ``train`` refuses, ``rho`` not above 0 or ``outer`` below 1. The message
            names the layer.

    Source:
        T. Zhang et al., "A Systematic DNN Weight Pruning Framework Using Alternating Direction Method of
        Multipliers", ECCV 2018.
    Differs: each W step is SGD with a cosine of its own.
    """
    rhos = [_positive("rho", rho)] * check_int("outer", outer, 1)
    options = {"epochs": epochs, "lr": lr, "seed": seed, **train_options}
    return _constrained(model, split, projections, rhos, dual, history, loss, **options)


def learning_compression(
    model: nn.Module,
    split: Split,
    projections: Mapping[str, Projection],
    *,
    mu: float = 0.03,
    growth: float = 2.0,
    outer: int = 8,
    epochs: int = 1,
    lr: float = 0.02,
    dual: bool = True,
    loss: Loss | None = None,
    seed: int = 0,
    history: list[dict] | None = None,
    **train_options: object,
) -> nn.Module:
    r"""The LC algorithm: learning (L) and compression (C) steps, the pull between them growing.

    .. math::
        \text{L:}\; & w \leftarrow \arg\min_w L(w) + \tfrac{\mu}{2}\|w - \Delta(\Theta) - \lambda / \mu\|^2 \\
        \text{C:}\; & \Theta \leftarrow \arg\min_\Theta \|w - \lambda / \mu - \Delta(\Theta)\|^2,
        \qquad \lambda \leftarrow \lambda - \mu\,(w - \Delta(\Theta))

    :math:`\Delta(\Theta)` is the weight that a code :math:`\Theta` stands for, so the C step is a projection.
    With :math:`Z = \Delta(\Theta)` and :math:`U = -\lambda / \mu` these are the steps of ``alternate``.

    Args:
        mu: :math:`\mu` of the first iteration, above 0.
        growth: factor of :math:`\mu` from one iteration to the next, at least 1.
        dual: False leaves :math:`\lambda` at 0: the quadratic-penalty variant.

    The other arguments, the result and the errors are as in ``admm``.

    Source:
        M. A. Carreira-Perpinan, Y. Idelbayev, "'Learning-Compression' Algorithms for Neural Net Pruning",
        CVPR 2018.
    """
    if not growth >= 1:
        raise ValueError(f"growth must be at least 1, got {growth}")
    rhos = [_positive("mu", mu) * growth**i for i in range(check_int("outer", outer, 1))]
    options = {"epochs": epochs, "lr": lr, "seed": seed, **train_options}
    return _constrained(model, split, projections, rhos, dual, history, loss, **options)


def project_weights(model: nn.Module, projections: Mapping[str, Projection]) -> nn.Module:
    """A copy whose named weights are replaced by their projections: compression at one blow, the control.

    Args:
        model: any network; it is not changed.
        projections: layer name -> projection.

    Raises:
        TypeError, ValueError: as ``admm``.

    Example:
        >>> from compresslab.hybrid.projections import project_ternary
        >>> layer = project_weights(nn.Sequential(nn.Linear(4, 3)), {"0": project_ternary})[0]
        >>> len(layer.weight.abs().unique()) <= 2
        True
    """
    return _with_weights(model, _project(projections, _plain_weights(model, projections)))


def _constrained(
    model: nn.Module,
    split: Split,
    projections: Mapping[str, Projection],
    rhos: Sequence[float],
    dual: bool,
    history: list[dict] | None,
    loss: Loss | None,
    *,
    seed: int,
    **train_options: object,
) -> nn.Module:
    """``alternate`` with trainings of a network as W steps; Z is put in its place at the end."""
    weights = _plain_weights(model, projections)
    _project(projections, weights)  # complain before the first training
    current, count = model, 0

    def w_step(_: Weights, targets: Weights, rho: float) -> Weights:
        nonlocal current, count
        pulled = _pulled(loss or cross_entropy, targets, rho)
        current = train(current, split, loss=pulled, seed=seed + count, **train_options)
        count += 1
        return {name: current.get_submodule(name).weight.detach().clone() for name in targets}

    _, Z, _ = alternate(w_step, projections, weights, rhos, dual=dual, history=history)
    return _with_weights(current, Z)


def _pulled(loss: Loss, targets: Weights, rho: float) -> Loss:
    r"""The loss and its pull, :math:`\frac{\rho}{2} \|W - (Z - U)\|^2`."""

    def total(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        squares = [(model.get_submodule(name).weight - t).square().sum() for name, t in targets.items()]
        return loss(model, x, y) + rho / 2 * torch.stack(squares).sum()

    return total


def _plain_weights(model: nn.Module, projections: Mapping[str, Projection]) -> Weights:
    """The named weights; raise where one is not there, is computed, or is tied to another."""
    if not projections:
        raise ValueError("projections must name at least one layer, got none")
    layers = named_layers(model, only=list(projections))
    for name in projections:
        if parametrize.is_parametrized(layers[name]):
            raise ValueError(
                f"the weight must be plain, not masked or simulated; bake the model first{where(name)}"
            )
    owners: dict[nn.Parameter, str] = {}
    for name in projections:
        first = owners.setdefault(layers[name].weight, name)
        if first != name:
            raise ValueError(f"the weight is that of layer {first!r}, too; one projection for it{where(name)}")
    return {name: layers[name].weight.detach() for name in projections}


def _project(projections: Mapping[str, Projection], weights: Weights) -> Weights:
    """Every weight's projection; errors name the layer."""
    projected = {}
    for name, project in projections.items():
        with naming(name):
            projected[name] = project(weights[name])
            if projected[name].shape != weights[name].shape:
                shape, got = tuple(weights[name].shape), tuple(projected[name].shape)
                raise ValueError(f"a projection must keep the shape {shape}, got {got}")
    return projected


@torch.no_grad()
def _with_weights(model: nn.Module, weights: Weights) -> nn.Module:
    """A copy with these weights."""
    model = copy.deepcopy(model)
    for name, weight in weights.items():
        model.get_submodule(name).weight.copy_(weight)
    return model


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return float(value)
