"""What each choice in a supernet is worth: the effects of its values, from held-out rows seen by many candidates.

Every row is judged by some candidates, and what is compared is a row with itself, so that easy rows do not count for
the candidates that happened to meet them. What is left is a sum of one effect for each value of each parameter (Wang
et al., "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021, select by such effects rather than by
architecture weights, because those grow for shortcuts that help training and not the trained network).

Rows are independent and candidates share them, so the effects' covariance is that of sums over rows (clustered). All
effects are 0 if they are not told apart from none at all by Wald's test; else they shrink as James and Stein's.
Legend: N rows, P candidates, F values of parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from components.artifacts import JSON
from components.models.points import Point
from components.search.supernet import effect_name

SIGNIFICANCE = 1e-3  # effects less sure than this are taken for none: labels without meaning must not rank candidates
TINY = 1e-9  # of the largest eigenvalue: directions that the design does not see (the effects of a parameter sum to 0)


@dataclass
class Judgements:
    """Which rows each candidate judged, and how well: `worth` is higher for a better answer."""

    points: list[Point] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    worth: list[np.ndarray] = field(default_factory=list)

    def add(self, point: Point, rows: np.ndarray, worth: np.ndarray) -> None:
        self.points.append(point)
        self.rows.append(np.asarray(rows, dtype=np.int64))
        self.worth.append(np.asarray(worth, dtype=np.float64))

    def restricted(self, names: Iterable[str]) -> Judgements:
        """The same judgements by points that have no other parameters than these."""
        kept = frozenset(names)
        return Judgements([_restricted(point, kept) for point in self.points], self.rows, self.worth)


def _restricted(point: Point, names: frozenset[str]) -> Point:
    return Point({name: value for name, value in point.params.items() if name in names}, point.distributions, point.value)


@dataclass(frozen=True)
class Effects:
    """By `name=value` how much more a value is worth than the average of its parameter; `p_value` that all are equal."""

    by_value: dict[str, float]
    error: float
    wald: float
    freedom: int
    p_value: float

    def figures(self) -> JSON:
        """What says how sure the effects are."""
        return {"error": round(self.error, 6), "wald": round(self.wald, 2), "freedom": self.freedom, "p_value": self.p_value}


def effects_of(found: Judgements) -> Effects:
    """The effects of all values of the points' choices, shrunk, or all 0 where they are not significant."""
    from scipy.stats import chi2

    names, design_PF = _design(found.points)
    residual = _against_the_row(found)
    weights = np.array([len(rows) for rows in found.rows], dtype=np.float64)
    inverse_FF, freedom = _pseudo_inverse((design_PF * weights[:, None]).T @ design_PF)
    raw_F = inverse_FF @ (design_PF.T @ np.array([values.sum() for values in residual]))
    sums_NF = _sums_by_row(found, design_PF, [values - design_PF[p] @ raw_F for p, values in enumerate(residual)])
    covariance_FF = inverse_FF @ (sums_NF.T @ sums_NF) @ inverse_FF
    precision_FF, freedom = _pseudo_inverse(covariance_FF)
    wald = float(raw_F @ precision_FF @ raw_F)
    p_value = float(chi2.sf(wald, freedom)) if freedom else 1.0
    kept = max(0.0, 1.0 - max(freedom - 2, 0) / wald) if p_value < SIGNIFICANCE else 0.0
    error = float(np.sqrt(np.mean(np.diag(covariance_FF)))) if freedom else 0.0
    return Effects({name: float(kept * effect) for name, effect in zip(names, raw_F)}, error, wald, freedom, p_value)


def _design(points: Sequence[Point]) -> tuple[list[str], np.ndarray]:
    """One column for each value of each parameter: 1 where a point has it, less that value's share among the points that
    have the parameter, so that a parameter which is absent says nothing."""
    values: dict[str, dict[object, None]] = {}
    for point in points:
        for name, value in point.params.items():
            values.setdefault(name, {})[value] = None
    columns, names = [], []
    for name, seen in values.items():
        has = np.array([name in point.params for point in points])
        for value in seen:
            column = np.array([name in point.params and point.params[name] == value for point in points], dtype=np.float64)
            columns.append(np.where(has, column - column[has].mean(), 0.0))
            names.append(effect_name(name, value))
    return names, np.array(columns).reshape(len(names), len(points)).T


def _against_the_row(found: Judgements) -> list[np.ndarray]:
    """Each judgement less the mean of its row."""
    rows, worth = np.concatenate(found.rows), np.concatenate(found.worth)
    means = np.bincount(rows, worth) / np.maximum(np.bincount(rows), 1)
    return [values - means[index] for values, index in zip(found.worth, found.rows)]


def _sums_by_row(found: Judgements, design_PF: np.ndarray, left: Sequence[np.ndarray]) -> np.ndarray:
    sums_NF = np.zeros((1 + max(int(rows.max()) for rows in found.rows), design_PF.shape[1]))
    for rows, values, features_F in zip(found.rows, left, design_PF):
        np.add.at(sums_NF, rows, values[:, None] * features_F)
    return sums_NF


def _pseudo_inverse(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """The inverse on the directions that the matrix sees, and how many those are."""
    values, vectors = np.linalg.eigh(matrix)
    seen = values > TINY * max(float(values.max(initial=0.0)), 1e-300)
    return (vectors[:, seen] / values[seen]) @ vectors[:, seen].T, int(seen.sum())
