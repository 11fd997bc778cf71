"""Checks of the arguments of constructors and functions: each returns its argument, or says what was expected and what came."""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")


def require_integer(name: str, value: Any, least: int | None = 1, most: int | None = None) -> int:
    """An integer in a range, None for any, also of numpy or torch; never a bool.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is out of range.

    Examples:
        >>> require_integer("num_heads", torch.tensor(2))
        2
        >>> require_integer("num_heads", 0)
        Traceback (most recent call last):
        ValueError: num_heads must be at least 1, got 0
    """
    if isinstance(value, torch.SymInt):  # a size that a compiler keeps open
        return value  # pyright: ignore[reportReturnType]
    number = value if type(value) is int else _index(value)
    if number is None:
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if least is None:
        return number
    if most is not None and not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value!r}")
    if number < least:
        raise ValueError(f"{name} must {'not be negative' if least == 0 else f'be at least {least}'}, got {value!r}")
    return number


def require_positive(name: str, value: Any) -> float:
    """A positive and finite number, also of numpy or torch.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is not positive and finite.

    Examples:
        >>> require_positive("radius", float("inf"))
        Traceback (most recent call last):
        ValueError: expected a finite radius, got inf
    """
    number = _real(value)
    if number is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < number < math.inf:
        raise ValueError(f"expected a {'finite' if number > 0 else 'positive'} {name}, got {value!r}")
    return number


def require_number(name: str, value: Any, *, above: float | None = None, least: float = 0, most: float | None = None) -> float:
    """A number above `above`, or of at least `least`, and of at most `most`; a TypeError or ValueError for anything else."""
    number = _real(value)
    if number is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (number >= least if above is None else number > above) or not number <= (math.inf if most is None else most):
        bounds = f"at least {least:g}" if above is None else f"above {above:g}"
        raise ValueError(f"{name} must be {bounds}{'' if most is None else f' and at most {most:g}'}, got {value!r}")
    return number


def require_share(name: str, value: Any, *, most: bool = False) -> float:
    """A number in [0, 1), or with `most` in (0, 1]; a TypeError or ValueError for anything else."""
    number = _real(value)
    if number is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    if most and not 0 < number <= 1:
        raise ValueError(f"expected a {name} in (0, 1], got {value!r}")
    if not most and not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    return number


def require_pair(name: str, value: Any) -> tuple[float, float]:
    """Two positive, finite numbers; a TypeError or ValueError for anything else."""
    first, last = (_real(item) for item in require_items(name, value, 2))
    if first is None or last is None:
        raise TypeError(f"{name} must be numbers, got {value!r}")
    if not (0 < first < math.inf and 0 < last < math.inf):
        raise ValueError(f"expected positive {name}, and finite ones, got {value!r}")
    return first, last


def require_range(name: str, value: Any) -> tuple[float, float]:
    """Two positive, finite numbers in order; a TypeError or ValueError for anything else."""
    shortest, longest = require_pair(name, value)
    if shortest > longest:
        raise ValueError(f"expected {name} 0 < shortest <= longest, got {value!r}")
    return shortest, longest


def require_items(name: str, value: Any, count: int | None = None) -> Sequence[Any]:
    """A sequence of a number of items, None for any number but zero; a TypeError or ValueError for anything else."""
    items = list(value) if hasattr(value, "__iter__") and not isinstance(value, str | dict) else None
    if items is None:
        raise TypeError(f"{name} must be a sequence, got {value!r}")
    if not items or (count is not None and len(items) != count):
        raise ValueError(f"{name} must be a sequence of {count or 'at least one'}, got {value!r}")
    return items


def require_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """The value, if it is one of the choices; a ValueError if not."""
    if value not in choices:
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def require_flag(name: str, value: Any) -> bool:
    """A bool, and a TypeError for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def require_factory(name: str, value: T, kind: str) -> T:
    """A class or function that makes something, and a TypeError for an object that was already made or anything else."""
    if isinstance(value, torch.nn.Module) or not callable(value):
        raise TypeError(
            f"expected {name} to be a {kind} class, or a functools.partial or function that makes one, got {value!r}"
        )
    return value


def require_instance(name: str, value: Any, kind: type[T]) -> T:
    """An object of a class, and a TypeError for anything else."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")
    return value


def _index(value: Any) -> int | None:
    """An integer of Python, numpy or torch as an int; None for anything else, such as bools."""
    try:
        return None if _is_bool(value) else operator.index(value)
    except (TypeError, RuntimeError):
        return None


def _real(value: Any) -> float | None:
    """A real number of Python, numpy or torch as a float; None for anything else, such as bools, strings and complex numbers."""
    if _is_bool(value) or not (isinstance(value, numbers.Real) or getattr(value, "shape", None) == ()):
        return None
    try:
        return float(value)
    except (TypeError, RuntimeError):  # complex
        return None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, np.dtype(bool))
