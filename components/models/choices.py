"""What a yaml lists for a space to choose from, checked: an empty or impossible list is refused in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from components.errors import UnknownNameError, UsageError

T = TypeVar("T")


def listed(key: str, values: Sequence[T]) -> list[T]:
    """The choices of `key`, at least one and each once. Raises `UsageError`."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"{key} must be a list of choices, got {values!r}; write {key}=[{values}]")
    if not values:
        raise UsageError(f"{key} must list at least one choice, got an empty list")
    if len({repr(value) for value in values}) < len(values):
        raise UsageError(f"{key} must list each choice once, got {list(values)}")
    return list(values)


def whole_numbers(key: str, values: Sequence[int], low: int = 1, *, odd: bool = False) -> list[int]:
    """Whole numbers of at least `low`, odd ones where that is asked."""
    rule = f"{'odd ' if odd else ''}whole numbers of at least {low}"
    return _all(key, values, rule, lambda v: _is_whole(v) and v >= low and (v % 2 == 1 or not odd))


def numbers(key: str, values: Sequence[float], low: float = 0.0) -> list[float]:
    """Numbers above `low`."""
    return _all(key, values, f"numbers above {low:g}", lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v > low)


def switches(key: str, values: Sequence[bool]) -> list[bool]:
    """true, false or both."""
    return _all(key, values, "true or false", lambda v: isinstance(v, bool))


def names(key: str, values: Sequence[str], known: Iterable[str]) -> list[str]:
    """Names that are known. Raises `UnknownNameError` with the nearest one."""
    known = list(known)
    for value in listed(key, values):
        if value not in known:
            raise UnknownNameError(key, str(value), known)
    return list(values)


def share(key: str, value: float) -> float:
    """A number in 0..1, 1 excluded."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise UsageError(f"{key} must be at least 0 and below 1, got {value!r}")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _all(key: str, values: Sequence[T], rule: str, holds: Any) -> list[T]:
    wrong = [value for value in listed(key, values) if not holds(value)]
    if wrong:
        raise UsageError(f"{key} must list {rule}, got {wrong[0]!r}")
    return list(values)
