"""Checks of arguments that every family shares, so that the same slip gets the same sentence."""

import math
from collections.abc import Iterator
from contextlib import contextmanager


def where(layer: str | None) -> str:
    """`` in layer 'fc1'`` for an error message, or nothing where no layer is meant."""
    return f" in layer '{layer}'" if layer else ""


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """Let a TypeError or ValueError from inside end with the layer's name.

    Example:
        >>> with naming("fc1"):
        ...     check_int("bits", 9, 1, 8)
        Traceback (most recent call last):
        ValueError: bits must be a whole number from 1 to 8, got 9 in layer 'fc1'
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{error}{where(layer)}") from error


def check_names(argument: str, names: object) -> None:
    """Refuse a string where a collection of layer names is meant: it would be read letter by letter.

    Raises:
        ValueError: ``names`` is a string; says what to write instead.
    """
    if isinstance(names, str):
        raise ValueError(f"{argument} must be a collection of layer names, got the string {names!r}; write [{names!r}]")


def check_fraction(name: str, value: float, *, layer: str | None = None) -> float:
    """Return ``value`` if it is a fraction in [0, 1].

    Args:
        name: the argument's name, for the message.
        value: the fraction. A percentage is the usual slip, and the message says so.
        layer: the layer it was meant for, if any.

    Raises:
        TypeError: ``value`` is not a real number.
        ValueError: ``value`` is outside [0, 1] or nan.

    Example:
        >>> check_fraction("sparsity", 0.9)
        0.9
        >>> check_fraction("sparsity", 80)
        Traceback (most recent call last):
        ValueError: sparsity must be in [0, 1], got 80; did you mean 0.8?
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number in [0, 1], got {value!r}{where(layer)}")
    if math.isnan(value) or not 0 <= value <= 1:
        meant = f"; did you mean {value / 100:g}?" if 1 < value <= 100 else ""
        raise ValueError(f"{name} must be in [0, 1], got {value:g}{where(layer)}{meant}")
    return float(value)


def check_int(name: str, value: int, low: int, high: int | None = None, *, layer: str | None = None) -> int:
    """Return ``value`` if it is a whole number of at least ``low`` and, where given, at most ``high``.

    Raises:
        TypeError: ``value`` is not an ``int`` (a ``bool`` or a float such as 2.5 is none).
        ValueError: ``value`` is outside the range.

    Example:
        >>> check_int("bits", 9, 1, 8)
        Traceback (most recent call last):
        ValueError: bits must be a whole number from 1 to 8, got 9
    """
    allowed = f"from {low} to {high}" if high is not None else f"of at least {low}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number {allowed}, got {value!r}{where(layer)}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be a whole number {allowed}, got {value}{where(layer)}")
    return value
