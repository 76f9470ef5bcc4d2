"""Numbers and names in a configuration, checked where they are used: the sentence names the key, the rule and the value."""

from __future__ import annotations

import math
from typing import Any

from components.errors import UsageError


def whole(key: str, value: Any, least: int, most: int | None = None, *, limit: str = "") -> int:
    """A whole number of at least `least` and at most `most` (which `limit` explains). Raises `UsageError`."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        rule = f"of at least {least}" if most is None else f"in {least}..{most}{limit and f' ({limit})'}"
        raise UsageError(f"{key} must be a whole number {rule}, got {value!r}")
    return int(value)


def texts(key: str, value: Any) -> tuple[str, ...]:
    """A list of texts. Raises `UsageError`."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise UsageError(f"{key} must be a list of names, got {value!r}")
    return tuple(value)


def number(key: str, value: Any, low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> float:
    """A number in low..high; `above` and `below` leave out the ends. Raises `UsageError`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high or (above and value == low) or (below and value == high):
        upper = "" if math.isinf(high) else f" and {'below' if below else 'at most'} {high:g}"
        raise UsageError(f"{key} must be a number {'above' if above else 'of at least'} {low:g}{upper}, got {value!r}")
    return float(value)
