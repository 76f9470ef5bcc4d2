"""Points of a conditional space as rows of whole numbers, for models that compare values parameter by parameter.

Every parameter is a column of levels: the place of a choice, or that of a number on a grid over its range; 0 where a
point does not have the parameter. So a model needs, for each column, no more than a table of how alike its levels are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

from components.models.points import Point, share_of

GRID = 33  # levels of a number: its range is told apart to a thirty-second
Levels = NDArray[np.intp]
Array = NDArray[np.float64]


class Column:
    """The levels 1..size of something, and where on an axis 0..1 each of them lies (None: they have no order)."""

    def __init__(self, size: int, places: Array | None, *, is_choice: bool) -> None:
        self.size, self.places, self.is_choice = size, places, is_choice


class Parameter(Column):
    """The column of a parameter."""

    def __init__(self, distribution: BaseDistribution) -> None:
        self._distribution = distribution
        self._levels: dict[Any, int] = {}
        if isinstance(distribution, CategoricalDistribution):
            self._levels = {(type(value), value): level for level, value in enumerate(distribution.choices, start=1)}
            super().__init__(len(distribution.choices), places_of(distribution.choices), is_choice=True)
        else:
            super().__init__(GRID, np.linspace(0.0, 1.0, GRID), is_choice=False)

    def level(self, value: Any) -> int:
        """The level of a value; 0 for a choice that the parameter did not have when it was first seen."""
        if self.is_choice:
            return self._levels.get((type(value), value), 0)
        known = self._levels.get(value)
        if known is None:
            share = min(1.0, max(0.0, share_of(self._distribution, value)))
            known = self._levels[value] = 1 + round(share * (GRID - 1))
        return known


class Encoding:
    """The columns of the parameters that the points shown to `learn` had, in the order of their first appearance."""

    def __init__(self) -> None:
        self._parameters: dict[str, Parameter] = {}

    @property
    def columns(self) -> tuple[Parameter, ...]:
        return tuple(self._parameters.values())

    def learn(self, point: Point) -> None:
        """Adds columns for parameters not seen before."""
        if point.params.keys() - self._parameters.keys():
            for name, distribution in point.distributions.items():
                self._parameters.setdefault(name, Parameter(distribution))

    def row(self, point: Point) -> list[int]:
        """A point's level in each column; what has no column is left out."""
        params = point.params
        return [column.level(params[name]) if name in params else 0 for name, column in self._parameters.items()]

    def rows(self, points: Iterable[Point]) -> Levels:
        """Levels [points, columns]."""
        found = [self.row(point) for point in points]
        return np.array(found, dtype=np.intp).reshape(len(found), len(self._parameters))


def places_of(choices: Sequence[Any]) -> Array | None:
    """Where choices that are three or more numbers lie in their order, 0..1; None for other choices.

    >>> places_of([16, 64, 32]).tolist()
    [0.0, 1.0, 0.5]
    """
    if len(choices) < 3 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in choices):
        return None
    order = np.argsort(np.argsort(np.array(choices, dtype=float), kind="stable"), kind="stable")
    return np.asarray(order / (len(choices) - 1))
