r"""Gradual pruning: raise the sparsity while training, quickly at first and slowly at the end.

Early on there are many weights that nobody misses; near the end each one counts, and the network needs more
steps to make up for it. A cubic does that with three numbers.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from compresslab.core.errors import check_fraction, check_int
from compresslab.pruning.magnitude import magnitudes
from compresslab.pruning.masks import prune_by_score_


def cubic_sparsity(step: int, *, begin: int, end: int, final: float, initial: float = 0.0) -> float:
    r"""Sparsity that the cubic schedule asks for at a training step.

    .. math:: s_t = s_f + (s_i - s_f)\left(1 - \frac{t - t_0}{n\,\Delta t}\right)^3

    Args:
        step: ``t``, counted in optimizer steps. Before ``begin`` the answer is ``initial``, after ``end``
            ``final``.
        begin: :math:`t_0`.
        end: :math:`t_0 + n\,\Delta t`, after ``begin``.
        final: :math:`s_f` in [0, 1].
        initial: :math:`s_i` in [0, ``final``].

    Returns:
        A fraction in [``initial``, ``final``].

    Raises:
        ValueError: a sparsity outside [0, 1], ``initial`` above ``final``, or ``end`` not after ``begin``.

    Source: M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", arXiv:1710.01878, 2017, equation 1.

    Example:
        >>> [cubic_sparsity(t, begin=0, end=10, final=0.5) for t in (0, 5, 10)]
        [0.0, 0.4375, 0.5]
    """
    check_fraction("final", final)
    check_fraction("initial", initial)
    if initial > final:
        raise ValueError(f"initial sparsity must not exceed the final one, got {initial:g} and {final:g}")
    if end <= begin:
        raise ValueError(f"end must come after begin, got begin={begin} and end={end}")
    left = (1 - (min(max(step, begin), end) - begin) / (end - begin)) ** 3  # 1 at begin, 0 at end
    return initial * left + final * (1 - left)  # the same, but exact at both ends


@dataclass(frozen=True)
class GradualPruning:
    """Magnitude pruning on a cubic schedule, as an ``after_step`` callback of ``core.train.train``.

    The masks are parametrizations: they are recomputed in every forward pass, so momentum and weight decay
    cannot bring a weight back between two prunings. Masks only grow.

    Args:
        final: sparsity to reach, in [0, 1].
        begin: optimizer step of the first pruning; steps count from 0.
        end: optimizer step at which ``final`` is reached. It must come before training ends: leave a third
            for the survivors to settle.
        every: prune every so many steps, :math:`\\Delta t`; and always at ``end``.
        initial: sparsity at ``begin``.
        scope: ``"layer"`` or ``"global"``, as in ``prune_magnitude``.
        only: names of the layers to prune; None means all.
        skip: names of layers to leave dense.

    Raises:
        ValueError: as :func:`cubic_sparsity`; ``every`` below 1.

    Source: Zhu and Gupta, 2017, section 3.

    Example:
        >>> model = nn.Sequential(nn.Linear(10, 10))
        >>> prune = GradualPruning(final=0.5, begin=0, end=100, every=50)
        >>> for step in range(1, 101):
        ...     prune(model, step)
        >>> int((model[0].weight == 0).sum())
        50
    """

    final: float
    begin: int
    end: int
    every: int = 1
    initial: float = 0.0
    scope: str = "layer"
    only: Collection[str] | None = None
    skip: Collection[str] = ()

    def __post_init__(self):
        check_int("every", self.every, 1)
        self.sparsity(self.begin)  # fires the checks of cubic_sparsity now, not an hour into training

    def sparsity(self, step: int) -> float:
        """The sparsity that the schedule asks for at ``step``."""
        return cubic_sparsity(step, begin=self.begin, end=self.end, final=self.final, initial=self.initial)

    def __call__(self, model: nn.Module, step: int) -> None:
        """Prune ``model`` in place if ``step`` is a pruning step; otherwise do nothing."""
        due = self.begin <= step < self.end and (step - self.begin) % self.every == 0
        if due or step == self.end:
            scores = magnitudes(model, only=self.only, skip=self.skip)
            prune_by_score_(model, scores, self.sparsity(step), scope=self.scope)
