"""The points of a conditional space: drawn, changed, crossed and counted through the program that draws them.

A space is a function of something to draw from (`Suggest`): which parameters exist depends on the values of others. To
change a point, the program is run again with the point's values; what a changed value newly asks for is drawn afresh,
and what it no longer asks for is gone. So every point made here is one that the space itself could have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from components.models.interface import Suggest

STEP = 0.2  # standard deviation of a change to a number, as a share of its range
FEW = 10  # a whole number with at most so many values changes to any of the others, with more by a step


@dataclass(frozen=True, slots=True)
class Point:
    """Parameters by name, their distributions in the order in which they were drawn, and what the program made of them."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution] = field(compare=False)
    value: Any = field(default=None, compare=False)


class Points:
    """All points of a space, given its program: a function that draws from its argument and returns whatever it builds."""

    def __init__(self, program: Callable[[Suggest], Any]) -> None:
        self.program = program

    def draw(self, rng: Random, given: Mapping[str, Any] | None = None) -> Point:
        """A point with the values of `given` wherever the program asks for them and takes them; the rest is drawn."""
        replay = Replay(given or {}, rng)
        value = self.program(replay)
        return Point(replay.params, replay.distributions, value)

    def mutate(self, point: Point, rng: Random, changes: int = 1) -> Point:
        """The point with `changes` of its parameters changed to other values."""
        for _ in range(changes):
            name = rng.choice(list(point.params))
            point = self.draw(rng, {**point.params, name: another(point.distributions[name], point.params[name], rng)})
        return point

    def cross(self, one: Point, other: Point, rng: Random) -> Point:
        """Each value from one of two parents, by a coin, where both have it."""
        return self.draw(rng, crossed(one, other, rng))

    def neighbours(self, point: Point, rng: Random, step: float = STEP) -> Iterator[Point]:
        """The points one change away: every other value of a choice or a small whole number, one step up and one down of a
        number (`step`: its standard deviation as a share of the range)."""
        for name, value in point.params.items():
            for changed in others(point.distributions[name], value, rng, step):
                yield self.draw(rng, {**point.params, name: changed})

    def all(self, most: int | None = None) -> Iterator[Point]:
        """Every point, in the order of the choices; ends after `most`. Raises `ValueError` at a parameter without finitely many values."""
        path: list[int] = []
        count = 0
        while most is None or count < most:
            walk = _Walk(path)
            value = self.program(walk)
            yield Point(walk.params, walk.distributions, value)
            count += 1
            path = walk.next_path()
            if not path:
                return

    def size(self, most: int = 1_000_000) -> int | None:
        """How many points there are; None if infinitely many, or more than `most`."""
        try:
            count = sum(1 for _ in self.all(most + 1))
        except ValueError:
            return None
        return count if count <= most else None


def crossed(one: Point, other: Point, rng: Random) -> dict[str, Any]:
    """Values of two parents together, by a coin where both have one."""
    given = {**other.params, **one.params}
    for name, value in other.params.items():
        if name in one.params and rng.random() < 0.5:
            given[name] = value
    return given


class Replay:
    """A `Suggest` that answers with given values where they are valid, and draws where they are not."""

    __slots__ = ("_given", "_rng", "distributions", "params")

    def __init__(self, given: Mapping[str, Any], rng: Random) -> None:
        self._given, self._rng = given, rng
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        params = self.params
        if name not in params:
            given = self._given.get(name, _ABSENT)
            params[name] = given if given is not _ABSENT and _among(given, choices) else self._rng.choice(choices)
            self.distributions[name] = categorical(choices if type(choices) is tuple else tuple(choices))
        return params[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if name not in self.params:
            distribution = IntDistribution(low, high, log=log, step=step)
            given = self._given.get(name)
            valid = isinstance(given, int) and low <= given <= high and (given - low) % step == 0
            self.params[name] = given if valid else at(distribution, self._rng.random())
            self.distributions[name] = distribution
        found: int = self.params[name]
        return found

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        if name not in self.params:
            distribution = ranged(low, high, log, step)
            given = self._given.get(name)
            valid = isinstance(given, int | float) and low <= given <= high
            self.params[name] = float(given) if valid and given is not None else at(distribution, self._rng.random())
            self.distributions[name] = distribution
        found: float = self.params[name]
        return found


class _Walk:
    """A `Suggest` that follows a path of positions, then takes first values, and knows the path that comes next."""

    def __init__(self, path: Sequence[int]) -> None:
        self._path, self._taken, self._counts = path, [], []  # type: tuple[Sequence[int], list[int], list[int]]
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, choices, categorical(tuple(choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        found: int = self._take(name, range(low, high + 1, step), IntDistribution(low, high, log=log, step=step))
        return found

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        if low != high and step is None:
            raise ValueError(f"{name} has infinitely many values")
        count = 1 if low == high else math.floor((high - low) / (step or 1.0) + 1e-9) + 1
        found: float = self._take(name, [low + (step or 0.0) * i for i in range(count)], ranged(low, high, log, step))
        return found

    def _take(self, name: str, values: Sequence[Any], distribution: BaseDistribution) -> Any:
        if name not in self.params:
            depth = len(self._taken)
            position = self._path[depth] if depth < len(self._path) else 0
            self._taken.append(position)
            self._counts.append(len(values))
            self.params[name], self.distributions[name] = values[position], distribution
        return self.params[name]

    def next_path(self) -> list[int]:
        """The path after this one, empty after the last."""
        path = list(self._taken)
        while path and path[-1] + 1 >= self._counts[len(path) - 1]:
            path.pop()
        if path:
            path[-1] += 1
        return path


_ABSENT = object()


def _among(value: Any, choices: Sequence[Any]) -> bool:
    for choice in choices:  # noqa: SIM110 (a generator takes twice as long, and this is asked of every value of every point)
        if value is choice or (value == choice and type(value) is type(choice)):
            return True
    return False


@lru_cache(maxsize=4096)
def categorical(choices: tuple[Any, ...]) -> CategoricalDistribution:
    """One distribution object per set of choices: making one costs more than a whole draw."""
    return CategoricalDistribution(choices)


@lru_cache(maxsize=4096)
def ranged(low: float, high: float, log: bool, step: float | None = None) -> FloatDistribution:
    """One distribution object per range."""
    return FloatDistribution(low, high, log=log, step=step)


def at(distribution: BaseDistribution, share: float) -> Any:
    """The value at `share` (0..1) of a distribution's range, in the logarithm where it says so.

    >>> at(FloatDistribution(1e-4, 1.0, log=True), 0.5)
    0.01
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(share * len(distribution.choices)), len(distribution.choices) - 1)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        if distribution.log:
            value = math.exp(math.log(low - 0.5) + share * (math.log(high + 0.5) - math.log(low - 0.5)))
        else:
            value = low + share * (high - low + distribution.step) - 0.5 * distribution.step
        steps = round((value - low) / distribution.step)
        return max(distribution.low, min(distribution.high, distribution.low + distribution.step * steps))
    value = math.exp(math.log(low) + share * (math.log(high) - math.log(low))) if distribution.log else low + share * (high - low)
    if distribution.step is not None:
        value = low + distribution.step * round((value - low) / distribution.step)
    return round(max(low, min(high, value)), 12) if not distribution.log else max(low, min(high, float(f"{value:.12g}")))


def share_of(distribution: BaseDistribution, value: Any) -> float:
    """Where in its range a number lies, 0..1; the place among the choices for a categorical one.

    >>> share_of(FloatDistribution(1e-4, 1.0, log=True), 0.01)
    0.5
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(len(distribution.choices) - 1, 1)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):  # every whole number has a stretch of its own, as in `at`
        half = 0.5 if distribution.log else 0.5 * distribution.step
        low, high = low - half, high + half
    if low == high:
        return 0.5
    if distribution.log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (float(value) - low) / (high - low)


def values_of(distribution: BaseDistribution) -> Sequence[Any] | None:
    """All values of a choice or a whole number; None for a number with infinitely many."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    return None


def has_few(distribution: BaseDistribution) -> bool:
    """Whether a change may lead to any other value: a choice, or a whole number of a few."""
    if isinstance(distribution, CategoricalDistribution):
        return True
    return isinstance(distribution, IntDistribution) and (distribution.high - distribution.low) // distribution.step < FEW


def another(distribution: BaseDistribution, value: Any, rng: Random) -> Any:
    """Another value: any other of a choice or of a few whole numbers, else a step away; the same one if it is the only one."""
    if has_few(distribution):
        rest = [v for v in values_of(distribution) or () if v != value or type(v) is not type(value)]
        return rng.choice(rest) if rest else value
    for _ in range(32):
        share = share_of(distribution, value) + rng.gauss(0.0, STEP)
        share = -share if share < 0 else 2 - share if share > 1 else share  # reflected at the ends
        changed = at(distribution, min(1.0, max(0.0, share)))
        if changed != value:
            return changed
    return value


def others(distribution: BaseDistribution, value: Any, rng: Random, step: float = STEP) -> Sequence[Any]:
    """The values a neighbour may have: all others of a choice or of a few whole numbers, else one step up and one down."""
    if has_few(distribution):
        return [v for v in values_of(distribution) or () if v != value or type(v) is not type(value)]
    share, length = share_of(distribution, value), abs(rng.gauss(0.0, step))
    found = [at(distribution, s) for s in (share - length, share + length) if 0.0 <= s <= 1.0]
    return [v for v in found if v != value]
