"""The judge of shipped evidence: freshly drawn images that no training and no choice has seen."""

from __future__ import annotations

from functools import cache

from torch import Tensor, nn

from compresslab.core.statistics import paired_difference
from compresslab.core.train import correct_answers
from compresslab.data import Split, fresh_data
from compresslab.models import baseline_info, load_baseline

SEED = 2025


@cache
def _images(dataset: str, n: int) -> Split:
    return fresh_data(dataset, n, seed=SEED)


@cache
def _baseline_correct(network: str, n: int) -> Tensor:
    return correct_answers(load_baseline(network), _images(baseline_info(network)["dataset"], n))


def judge_fresh(model: nn.Module, network: str, n: int = 50_000) -> dict[str, float]:
    """Accuracy on n fresh images, and the paired loss against a shipped baseline with its 95 % interval.

    Args:
        model: what became of the baseline; it runs as it is, so hand in a decompressed one.
        network: the baseline's name, as ``load_baseline`` knows it.
        n: how many images; about 0.05 points of standard error remain at 50,000.

    Returns:
        {"accuracy", "loss", "loss_low", "loss_high"}, fractions; a negative loss is a gain.
    """
    correct = correct_answers(model, _images(baseline_info(network)["dataset"], n))
    loss = paired_difference(_baseline_correct(network, n), correct)
    row = {"accuracy": correct.double().mean().item(), "loss": loss.difference,
           "loss_low": loss.low, "loss_high": loss.high}  # fmt: skip
    return {key: round(value, 6) for key, value in row.items()}
