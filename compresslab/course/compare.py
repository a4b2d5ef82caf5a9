"""Clone, compare and describe whatever an exercise passes around.

Inputs are cloned before every call, so that a function that changes them cannot spoil the next test.
Outputs are compared generously (a 0-d tensor equals the same Python number), because the question is
always "did these two functions do the same?", not "did they use the same types?".
"""

from __future__ import annotations

import copy
import math
import reprlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def clone(value: Any) -> Any:
    """A deep copy with the strides, the aliases and the generator states kept.

    Tensors, modules, arrays, generators and the containers around them are copied; anything else
    (functions, data sets, iterators) is passed on as it is.
    """
    return _clone(value, {})


def _clone(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, nn.Parameter) or isinstance(value, nn.Module | np.ndarray):
        return copy.deepcopy(value, memo)
    if isinstance(value, Tensor):
        result = copy.deepcopy(value.detach()).requires_grad_(value.requires_grad)
    elif isinstance(value, torch.Generator):
        result = torch.Generator().set_state(value.get_state())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        result = type(value)(*(_clone(item, memo) for item in value))
    elif isinstance(value, tuple | list | set):
        result = type(value)(_clone(item, memo) for item in value)
    elif isinstance(value, dict):
        result = {key: _clone(item, memo) for key, item in value.items()}
    else:
        return value
    memo[id(value)] = result
    return result


def same(a: Any, b: Any, *, rtol: float = 1e-4, atol: float = 1e-6) -> bool:
    """Whether two outputs are the same answer.

    Numbers, arrays and tensors: same shape, close values (nan equals nan); two tensors are also of one kind
    (boolean, whole, real, complex). Modules: same `state_dict`. Exceptions: same type. Containers: item by
    item.
    Example:
        >>> same((torch.tensor(2.0), [1, 2]), (2, [1, 2])), same(torch.ones(2), torch.ones(3))
        (True, False)
    """

    def again(x: Any, y: Any) -> bool:
        return same(x, y, rtol=rtol, atol=atol)

    if isinstance(a, nn.Module) or isinstance(b, nn.Module):
        return isinstance(a, nn.Module) and isinstance(b, nn.Module) and again(a.state_dict(), b.state_dict())
    if isinstance(a, dict) or isinstance(b, dict):
        return (
            isinstance(a, dict)
            and isinstance(b, dict)
            and list(a) == list(b)
            and all(map(again, a.values(), b.values()))  # tensors as keys cannot be looked up
        )
    if isinstance(a, tuple | list) or isinstance(b, tuple | list):
        sequences = isinstance(a, tuple | list) and isinstance(b, tuple | list)
        return sequences and len(a) == len(b) and all(map(again, a, b))
    if isinstance(a, BaseException) or isinstance(b, BaseException):
        return type(a) is type(b)
    if isinstance(a, torch.Generator) and isinstance(b, torch.Generator):
        return torch.equal(a.get_state(), b.get_state())
    if isinstance(a, Tensor) and isinstance(b, Tensor) and _kind(a) != _kind(b):
        return False
    x, y = _numeric(a), _numeric(b)
    if x is not None and y is not None:
        return x.shape == y.shape and bool(torch.isclose(x, y, rtol=rtol, atol=atol, equal_nan=True).all())
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # an exotic object whose == is not a yes or no
        return False


def _kind(value: Tensor) -> tuple[bool, bool, bool]:
    return value.dtype == torch.bool, value.is_floating_point(), value.is_complex()


def _numeric(value: Any) -> Tensor | None:
    """A number, array or tensor as a float64 (or complex128) tensor; None for anything else."""
    if isinstance(value, Tensor):
        value = value.detach().to("cpu")
        value = value.dequantize() if value.is_quantized else value.to_dense()
    elif isinstance(value, bool | int | float | complex | np.number | np.bool_):
        value = torch.tensor(
            value if isinstance(value, complex) else float(value),
            dtype=torch.complex128 if isinstance(value, complex) else torch.float64,
        )
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.from_numpy(np.ascontiguousarray(value))
    else:
        return None
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def describe(value: Any, limit: int = 100) -> str:
    """One short line that shows a value: small tensors in full, large ones by shape and range.

    Example:
        >>> describe(torch.tensor([1.0, -2.5])), describe(torch.zeros(20, 30))
        ('tensor([1, -2.5])', 'tensor of shape (20, 30), values 0 to 0')
    """
    if isinstance(value, Tensor):
        return _describe_tensor(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return _describe_array(value)
    if isinstance(value, nn.Module):
        parameters = sum(p.numel() for p in value.parameters())
        return f"{type(value).__name__} with {parameters:,} parameters"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}".splitlines()[0][:limit]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list) and len(value) <= 6:
        inner = ", ".join(describe(item, limit // 2) for item in value)
        text = f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    elif isinstance(value, dict) and len(value) <= 6:
        text = "{" + ", ".join(f"{k!r}: {describe(v, limit // 2)}" for k, v in value.items()) + "}"
    elif callable(value):
        return getattr(value, "__name__", type(value).__name__)
    else:
        text = reprlib.repr(value)
    return text if len(text) <= 2 * limit else text[: 2 * limit - 3] + "..."


def _describe_tensor(value: Tensor) -> str:
    value = value.detach()
    shape = tuple(value.shape)
    kind = (
        ""
        if value.dtype in (torch.float32, torch.bool, torch.int64)
        else f", dtype {value.dtype}".replace("torch.", "")
    )
    if value.numel() == 0:
        return f"empty tensor of shape {shape}{kind}"
    if value.numel() <= 12 and value.ndim <= 2:
        return f"tensor({_nested(value.tolist())}{kind})"
    if value.is_complex():
        return f"tensor of shape {shape}{kind}"
    low, high = float(value.min()), float(value.max())
    return f"tensor of shape {shape}{kind}, values {low:.3g} to {high:.3g}"


def _describe_array(value: np.ndarray) -> str:
    """As a tensor is described; float64 and int64, numpy's usual types, are not mentioned."""
    usual = {"f": np.float32, "i": np.int64, "u": np.int64}
    plain = np.ascontiguousarray(value.astype(usual.get(value.dtype.kind, value.dtype)))
    return _describe_tensor(torch.from_numpy(plain)).replace("tensor", "array", 1)


def _nested(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_nested, value)) + "]"
    if isinstance(value, float) and not math.isnan(value):
        return f"{value:.4g}"
    return str(value)
