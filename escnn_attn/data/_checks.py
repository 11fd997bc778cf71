"""Checks of numbers that users choose."""

from typing import Any


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Raises a ValueError unless the value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"expected {name} to be a whole number of at least {least}, got {value!r}")


def require_number(name: str, value: Any, above: float | None = None, least: float = 0.0, most: float | None = None) -> None:
    """Raises a ValueError unless the value is a number above `above`, or of at least `least`, and of at most `most`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (value >= least if above is None else value > above) or not (most is None or value <= most):
        bounds = f"of at least {least:g}" if above is None else f"above {above:g}"
        bounds += "" if most is None else f" and at most {most:g}"
        raise ValueError(f"expected {name} to be a number {bounds}, got {value!r}")
