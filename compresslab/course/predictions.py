r"""`predict` before you measure, `reveal` after: learn how much you know.

    p1 = predict("1.p1", 8, 15)      an interval that you believe holds the number with 80 %
    reveal("1.p1", 13.2)

The interval score rewards narrow intervals and punishes misses, so that saying what you believe is
the best strategy. For an interval [l, u], the value x and \alpha = 0.2:

    S = (u - l) + (2 / \alpha) max(l - x, 0) + (2 / \alpha) max(x - u, 0)

For ratios l, u and x are replaced by their base-2 logarithms: the score counts doublings.

Source: T. Gneiting and A. Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", Journal
of the American Statistical Association, 2007, section 6.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from compresslab.course import mode, progress
from compresslab.course.chapters import find_prediction
from compresslab.course.trial import ToDo

ALPHA = 0.2


@dataclass(frozen=True)
class Outcome:
    """A prediction whose value is known."""

    id: str
    low: float
    high: float
    value: float
    log: bool

    @property
    def inside(self) -> bool:
        """Whether the interval held the value."""
        return self.low <= self.value <= self.high

    @property
    def score(self) -> float:
        """The interval score; smaller is better."""
        return interval_score(self.low, self.high, self.value, log=self.log)

    @property
    def position(self) -> float:
        """Where the value lies: -1 at the lower end of the interval, 0 in its middle, 1 at the upper end."""
        low, high, value = (_scale(x, self.log) for x in (self.low, self.high, self.value))
        if high == low:
            return 0.0 if value == low else math.copysign(math.inf, value - low)
        return (2 * value - low - high) / (high - low)


def interval_score(low: float, high: float, value: float, *, log: bool = False) -> float:
    """The interval score of an 80 % interval.

    Example:
        >>> interval_score(8, 15, 13), interval_score(8, 15, 17)
        (7.0, 27.0)
        >>> interval_score(1, 2, 4, log=True)   # one doubling wide, missed by one: 1 + 10
        11.0
    """
    low, high, value = (_scale(x, log) for x in (low, high, value))
    return float(high - low + 2 / ALPHA * (max(low - value, 0) + max(value - high, 0)))


def _scale(x: float, log: bool) -> float:
    return math.log2(x) if log else x


def predict(id: str, low: Any, high: Any = None) -> Any:
    """Say an interval that you believe holds the number with 80 %, before you measure it.

    Args:
        id: the prediction, "1.p1".
        low, high: the two ends, or one pair `(low, high)`; `...` while it is still to do.
    Returns:
        (low, high)
    Raises:
        ValueError: the ends are no finite numbers, or in the wrong order, or not positive for a ratio.
        ToDo: still to do, in strict mode or under nbgrader.
    """
    prediction = find_prediction(id)
    if low is ... or high is ...:
        if mode.strict():
            raise ToDo(f"Prediction {id} is still to do.")
        print(f"\N{WHITE CIRCLE} Prediction {id} is still to do: guess before you go on.")
        return ...
    low, high = _interval(id, low, high, prediction.log)
    already = {event["id"] for event in progress.events() if event.get("kind") in ("predict", "reveal")}
    progress.record("predict", id, low=low, high=high)
    note = "your first prediction stays on record" if id in already else "recorded"
    print(f"Prediction {id}: {low:g} to {high:g} {prediction.unit}".rstrip() + f"; {note}.")
    return low, high


def _interval(id: str, low: Any, high: Any, log: bool) -> tuple[float, float]:
    given = (low, high) if high is not None else low
    try:
        low, high = (float(x) for x in given)
    except (TypeError, ValueError):
        raise ValueError(f"prediction {id} needs two numbers, such as (8, 15); got {given!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(
            f"prediction {id} needs two finite numbers, the smaller first; got {low:g} and {high:g}"
        )
    if log and low <= 0:
        raise ValueError(f"prediction {id} is a ratio: both ends must be positive, got {low:g}")
    return low, high


def reveal(id: str, value: float) -> float:
    """Compare your prediction with the measured value; prints the score.

    Returns:
        the value.
    Raises:
        ValueError: the value is not finite, or not positive for a ratio.
    """
    prediction = find_prediction(id)
    value = float(value)
    if not math.isfinite(value) or (prediction.log and value <= 0):
        raise ValueError(f"the value of {id} must be finite{' and positive' * prediction.log}, got {value}")
    progress.record("reveal", id, value=value, log=prediction.log)
    shown = f"{value:.4g} {prediction.unit}".rstrip()
    outcome = next((o for o in outcomes() if o.id == id), None)
    if outcome is None:
        print(f"{id}: measured {shown}. You made no prediction before, so this one is not scored.")
        return value
    now = Outcome(id, outcome.low, outcome.high, value, prediction.log)
    unit = "doublings" if prediction.log else prediction.unit
    print(
        f"{id}: you said {now.low:g} to {now.high:g}, measured {shown}: "
        f"{'inside' if now.inside else 'outside'}. Interval score {now.score:.3g} {unit}".rstrip()
        + " (smaller is better)."
    )
    return value


def outcomes() -> list[Outcome]:
    """Of each prediction: the first interval, if it came before the first reveal, and the value then."""
    first: dict[str, tuple[float, float] | None] = {}
    result: dict[str, Outcome] = {}
    for event in progress.events():
        id = event.get("id")
        if event.get("kind") == "predict":
            if _are_numbers(event.get("low"), event.get("high")):
                first.setdefault(id, (event["low"], event["high"]))
        elif event.get("kind") == "reveal" and _are_numbers(event.get("value")):
            interval = first.setdefault(id, None)
            if interval is not None and id not in result:
                result[id] = Outcome(id, *interval, event["value"], bool(event.get("log")))
    return list(result.values())


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def calibration() -> Any:
    """A figure: where the measured values fell in your intervals. About 80 % should lie inside.

    Returns:
        a matplotlib Figure, or None while nothing was revealed.
    """
    from compresslab.course import plots

    known = outcomes()
    if not known:
        print("Nothing to show yet: predict a number, measure it, reveal it.")
        return None
    return plots.calibration([(o.id, o.position) for o in known])
