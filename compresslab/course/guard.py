"""What a learner's code may use up while it is checked, and what it has to leave as it was.

A check runs in the learner's own kernel. So a loop without end is interrupted, memory is limited where the
system can do that, and PyTorch's global settings are those of a fresh kernel during the check and the
learner's own again after it. This stops accidents, not attacks.
"""

from __future__ import annotations

import _thread
import builtins
import math
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

SECONDS = 60.0
"""What an answer may take in one check; `COMPRESSLAB_CHECK_SECONDS` changes it."""

GIGABYTES = 4.0
"""What an answer may ask for beyond what the kernel holds; `COMPRESSLAB_CHECK_GIGABYTES` changes it (Linux)."""


class OutOfTime(BaseException):
    """The time is up. No `Exception`, so that a learner's `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: float | None = None) -> Iterator[None]:
    """Interrupt the code inside, as the stop button would, when the time is up; twice a second until it ends.

    A loop around `try: ... except: pass` swallows an interrupt that comes while it tries. So from the second one on,
    the next line of the same code raises as well: that is the `except`, outside of the `try`.

    In the main thread only, since only that one can be interrupted. A single call into compiled code, such as
    one huge matrix product, is interrupted when it returns.

    Args:
        seconds: wall-clock time (default: `SECONDS`, or the environment's `COMPRESSLAB_CHECK_SECONDS`).
    Raises:
        OutOfTime: the time was up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if seconds is None:
        seconds = _from_environment("COMPRESSLAB_CHECK_SECONDS", SECONDS)
    over, left, inside = threading.Event(), threading.Event(), False
    tracing = sys.gettrace()
    before, main = signal.getsignal(signal.SIGINT), threading.get_ident()
    count = 0

    def interrupted(number: int, frame: Any) -> None:
        nonlocal count
        if not over.is_set():  # it was the learner who pressed stop
            if callable(before):
                before(number, frame)
        elif inside:
            count += 1
            if count > 1:
                _raise_at_next_line(frame, OutOfTime(f"{seconds:g} s"))
            raise OutOfTime(f"{seconds:g} s")

    def watch() -> None:
        wait = seconds
        while not left.wait(wait):
            over.set()
            wait = 0.5
            if hasattr(signal, "pthread_kill"):  # reaches a sleeping thread, too
                signal.pthread_kill(main, signal.SIGINT)
            else:
                _thread.interrupt_main()

    watcher = threading.Thread(target=watch, name="time limit of a check", daemon=True)
    signal.signal(signal.SIGINT, interrupted)
    watcher.start()
    try:
        inside = True
        yield
    finally:
        inside = False  # an assignment cannot be interrupted; from here on nothing is
        left.set()
        watcher.join()
        if count > 1:
            sys.settrace(tracing)
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)


def _raise_at_next_line(frame: Any, error: BaseException) -> None:
    """Raise in this frame, and in its callers up to the course's own code, when the next line begins."""

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            raise error
        return trace

    while frame is not None and not str(frame.f_globals.get("__name__")).startswith("compresslab"):
        frame.f_trace = trace
        frame = frame.f_back
    sys.settrace(lambda *event: None)


@contextmanager
def memory_limit(gigabytes: float | None = None) -> Iterator[None]:
    """Make the code inside get a `MemoryError` (or PyTorch's own) before the machine runs out of memory; Linux only.

    Args:
        gigabytes: 10^9 bytes of private memory beyond what the process holds now (default: `GIGABYTES`, or the
            environment's `COMPRESSLAB_CHECK_GIGABYTES`).
    """
    if resource is None or sys.platform != "linux":
        yield
        return
    import psutil

    if gigabytes is None:
        gigabytes = _from_environment("COMPRESSLAB_CHECK_GIGABYTES", GIGABYTES)
    before, ceiling = resource.getrlimit(resource.RLIMIT_DATA)
    limit = psutil.Process().memory_info().data + int(gigabytes * 1e9)
    known = [bound for bound in (before, ceiling) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *known]), ceiling))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, ceiling))


def _from_environment(name: str, default: float) -> float:
    try:
        value = float(os.environ.get(name) or default)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {os.environ[name]!r}")
    return value


# -- settings -----------------------------------------------------------------------------------------

Setting = tuple[Callable[[], Any], Callable[[Any], Any], Any]

SETTINGS: dict[str, Setting] = {
    "PyTorch's default dtype": (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    "PyTorch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled, True),
    "PyTorch's default device": (
        lambda: torch.get_default_device().type,
        lambda device: torch.set_default_device(None if device == "cpu" else device),
        "cpu",
    ),
    "Python's recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit, None),
    "the working directory": (os.getcwd, os.chdir, None),
}
"""Name: how to read it, how to set it, and its value in a fresh kernel (None: whatever it is)."""


def disturbed(before: dict[str, Any]) -> tuple[str, ...]:
    """The settings that are no longer what `settings()` said; each is set back."""
    changed = tuple(name for name, value in settings().items() if value != before[name])
    for name in changed:
        SETTINGS[name][1](before[name])
    return changed


def settings() -> dict[str, Any]:
    """The value of each of `SETTINGS` now; None for one that cannot be read (a working directory that is gone)."""
    values = {}
    for name, (read, _, _) in SETTINGS.items():
        try:
            values[name] = read()
        except OSError:
            values[name] = None
    return values


@contextmanager
def fresh_settings() -> Iterator[None]:
    """Settings as in a fresh kernel; afterwards they, and the random generators, are as they were."""
    before = settings()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for name, (_, put, fresh) in SETTINGS.items():
        if fresh is not None and before[name] != fresh:
            put(fresh)
    try:
        yield
    finally:
        disturbed(before)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


# -- functions that were replaced -----------------------------------------------------------------------

COMMON = "abs all any divmod enumerate float int isinstance len list map max min pow range reversed round sorted sum zip"
PLACES: dict[str, Any] = {
    "torch": torch,
    "torch.Tensor": torch.Tensor,
    "torch.nn": torch.nn,
    "torch.nn.functional": torch.nn.functional,
    "torch.linalg": torch.linalg,
    "math": math,
    "": builtins,
}


def _functions(place: Any) -> dict[str, Any]:
    """Public functions and classes; without `torch.Storage`, which follows the default dtype."""
    names = COMMON.split() if place is builtins else [n for n in dir(place) if n[0] != "_" and n != "Storage"]
    found = {name: getattr(place, name, None) for name in names}
    return {name: value for name, value in found.items() if callable(value) and getattr(place, name) is value}


ORIGINALS = {where: _functions(place) for where, place in PLACES.items()}


def _full_name(value: Any) -> tuple[Any, Any]:
    return getattr(value, "__module__", None), getattr(value, "__qualname__", value)


def replaced(*, put_back: bool = False) -> list[str]:
    """The functions of PyTorch, `math` and Python that are no longer their own: `["torch.round"]`.

    A wrapper with the name and the module of what it wraps is a library's doing (PyTorch's compiler wraps
    `torch.manual_seed` when it is first imported).

    Args:
        put_back: make them their own again.
    """
    found = []
    for where, functions in ORIGINALS.items():
        place = PLACES[where]
        for name, original in functions.items():
            now = getattr(place, name, None)
            if now is not original and _full_name(now) != _full_name(original):
                found.append(f"{where}.{name}".lstrip("."))
                if put_back:
                    setattr(place, name, original)
    return found
