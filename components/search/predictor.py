"""A Gaussian process that knows what pairs and triples of parameters do together, and how sure it is.

The kernel is the sum, over one, two and three parameters at a time, of products of a kernel per parameter, each with a
weight that is learned (Duvenaud et al., "Additive Gaussian Processes", NeurIPS 2011). A parameter's kernel is a table
over its levels whose rows sum to zero, so that a pair says only what its two parameters do not say alone; a parameter
that a point does not have contributes nothing. Scores that are had without training enter as straight lines whose
slopes are believed, until data say otherwise, to make a higher score better.

Axes: N rows, M other rows, P levels of all columns, C columns, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.linalg.lapack import dtrtrs
from scipy.optimize import minimize

from components.search.encoding import Array, Column, Levels

JITTER = 1e-6
FURTHEST = 4.0  # standard deviations of the logarithms
STEPS = 15  # of the search for the most likely kernel
WEIGHT_SPREAD, ORDER_SPREAD, LENGTH_SPREAD, NOISE_SPREAD = 1.0, 1.0, 0.5, 1.5  # of the logarithms, around what is believed first
LENGTH, NOISE = 0.4, 0.1  # believed first: the share of its range over which a number matters; variance of what no parameter explains
SLOPE_SPREAD = 0.7  # of all features together, in standard deviations of what is modelled


@dataclass(frozen=True)
class Rows:
    """What the process sees of points."""

    levels: Levels  # [N, C], places among the levels of all columns; the last place, P, where a row lacks the column
    features: Array  # [N, F]

    @classmethod
    def of(cls, columns: Sequence[Column], levels: Levels, features: Array | None = None) -> Rows:
        ends = np.cumsum([0, *(column.size for column in columns)])
        places = np.where(levels > 0, ends[:-1] + levels - 1, ends[-1])
        return cls(places, np.zeros((len(levels), 0)) if features is None else features)

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, which: slice | list[int]) -> Rows:
        return Rows(self.levels[which], self.features[which])

    def __add__(self, other: Rows) -> Rows:
        return Rows(np.concatenate([self.levels, other.levels]), np.concatenate([self.features, other.features]))


@dataclass(frozen=True)
class Shared:
    """What every level has in common with some rows: all that covariances with other rows are summed from."""

    kernels: Array  # [P + 1, N]: the kernels of the columns
    features: Array  # [N, F]

    def __add__(self, other: Shared) -> Shared:
        return Shared(np.concatenate([self.kernels, other.kernels], axis=1), np.concatenate([self.features, other.features]))


@dataclass(frozen=True)
class Kernel:
    """Weight and length scale of each column, variance of each order (1, 2, 3) and of the noise; and by how much all
    features together are believed to lower what is modelled, in its standard deviations."""

    columns: tuple[Column, ...]
    weights: Array
    lengths: Array
    orders: Array
    noise: float
    slope: float = 0.0

    def shared(self, rows: Rows) -> Shared:
        return Shared(self._table[np.arange(len(self._table))[:, None], rows.levels.T[self._owners]], rows.features)

    def between(self, one: Shared, other: Rows) -> Array:
        """Covariances [N, M] of what the process models, without noise."""
        parts = one.kernels[other.levels]  # [M, C, N]; looked up, as products with zeros and ones take longer
        first = parts.sum(axis=1)
        powers = parts * parts
        squares = powers.sum(axis=1)
        powers *= parts
        found = _combined(first, squares, powers.sum(axis=1), self.orders)
        if one.features.shape[1]:
            found += SLOPE_SPREAD**2 / _count(other) * (other.features @ one.features.T)
        return found.T

    def variances(self, rows: Rows) -> Array:
        """The diagonal of covariances of rows with themselves."""
        own = np.diag(self._table)[rows.levels]
        squares = own * own
        found = _combined(own.sum(axis=1), squares.sum(axis=1), (squares * own).sum(axis=1), self.orders)
        return found + SLOPE_SPREAD**2 / _count(rows) * (rows.features**2).sum(axis=1)

    def believed(self, rows: Rows) -> Array:
        """What is expected of each row [N] before any data."""
        return np.asarray(-self.slope / _count(rows) * rows.features.sum(axis=1))

    @cached_property
    def _table(self) -> Array:
        """[P + 1, P + 1]: the columns' kernels, and nothing for a column that is not there."""
        size = sum(column.size for column in self.columns)
        found = np.zeros((size + 1, size + 1))
        start = 0
        for column, weight, length in zip(self.columns, self.weights, self.lengths):
            place = slice(start, start + column.size)
            found[place, place] = weight * likeness(column, length)
            start += column.size
        return found

    @cached_property
    def _owners(self) -> Levels:
        """The column of each place [P + 1]; the last place may be anyone's."""
        return np.append(np.repeat(np.arange(len(self.columns)), [column.size for column in self.columns]), 0)


def _combined(first: Array, squares: Array, cubes: Array, orders: Array) -> Array:
    """1 + the elementary symmetric polynomials of the columns' kernels from their power sums (Newton's identities)."""
    one, two, three = float(orders[0]), 0.5 * float(orders[1]), float(orders[2]) / 6.0
    found = first * three  # Horner's scheme, in place
    found += two
    found *= first
    found += one
    found -= 3.0 * three * squares
    found *= first
    found -= two * squares
    found += 2.0 * three * cubes
    found += 1.0
    return np.asarray(found)


def _count(rows: Rows) -> int:
    return max(1, rows.features.shape[1])


def likeness(column: Column, length: float) -> Array:
    """How alike a column's levels are [size, size]: rows sum to zero, the mean of the diagonal is 1."""
    if column.size < 2:
        return np.zeros((column.size, column.size))
    table = np.eye(column.size)
    if column.places is not None:
        near = _matern(np.abs(column.places[:, None] - column.places[None]) / length)
        table = 0.5 * table + 0.5 * near if column.is_choice else near
    table = table - table.mean(axis=0) - table.mean(axis=0)[:, None] + table.mean()
    return np.asarray(table / np.diag(table).mean())


def _matern(distance: Array) -> Array:
    scaled = math.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled * scaled / 3.0) * np.exp(-scaled))


# ---- the most likely kernel ----


def fitted(columns: tuple[Column, ...], levels: Levels, values: Array) -> Kernel:
    """The kernel under which values [N] at levels [N, C] are most likely, weighed against what is believed first."""
    likelihood = _Likelihood(columns, levels, values)
    found = minimize(likelihood, likelihood.start, jac=True, method="L-BFGS-B", bounds=likelihood.bounds, options={"maxiter": STEPS})
    return likelihood.kernel(found.x)


class _Likelihood:
    """Minus the logarithm of the posterior density of a kernel's parameters (as logarithms), with its gradient."""

    def __init__(self, columns: tuple[Column, ...], levels: Levels, residuals: Array) -> None:
        self._columns, self._residuals = columns, residuals
        self._at = [np.maximum(levels[:, c] - 1, 0) for c in range(len(columns))]
        self._there = [np.outer(levels[:, c] > 0, levels[:, c] > 0) for c in range(len(columns))]
        self._axes = [c for c, column in enumerate(columns) if column.places is not None]
        self._fixed = {c: self._spread_out(c, LENGTH) for c in range(len(columns)) if c not in self._axes}
        active = max(1.0, float((levels > 0).sum(axis=1).mean()))
        count = len(columns)
        self.start = np.concatenate(
            [np.full(count, -math.log(active)), np.zeros(3), [math.log(NOISE)], np.full(len(self._axes), math.log(LENGTH))]
        )
        self._spread = np.concatenate(
            [np.full(count, WEIGHT_SPREAD), np.full(3, ORDER_SPREAD), [NOISE_SPREAD], np.full(len(self._axes), LENGTH_SPREAD)]
        )

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """What is believed at all: a search may step anywhere, and far beyond a covariance has no factor."""
        return list(zip(self.start - FURTHEST * self._spread, self.start + FURTHEST * self._spread))

    def kernel(self, logs: Array) -> Kernel:
        count = len(self._columns)
        lengths = np.full(count, LENGTH)
        lengths[self._axes] = np.exp(logs[count + 4 :])
        return Kernel(self._columns, np.exp(logs[:count]), lengths, np.exp(logs[count : count + 3]), float(np.exp(logs[count + 3])))

    def __call__(self, logs: Array) -> tuple[float, Array]:
        kernel, count = self.kernel(logs), len(self._columns)
        parts = np.stack(
            [kernel.weights[c] * (self._fixed[c] if c in self._fixed else self._spread_out(c, kernel.lengths[c])) for c in range(count)]
        )
        first, squares = parts.sum(axis=0), (parts**2).sum(axis=0)
        second = 0.5 * (first * first - squares)
        third = (first * first * first - 3.0 * first * squares + 2.0 * (parts * parts * parts).sum(axis=0)) / 6.0
        covariance = 1.0 + kernel.orders[0] * first + kernel.orders[1] * second + kernel.orders[2] * third
        covariance[np.diag_indices(len(covariance))] += kernel.noise + JITTER
        lower = lower_triangle(covariance)
        solved = cho_solve((lower, True), self._residuals, check_finite=False)
        pull = 0.5 * (np.outer(solved, solved) - cho_solve((lower, True), np.eye(len(lower)), check_finite=False))
        gradient = np.empty_like(logs)
        for c, part in enumerate(parts):
            rest = first - part
            slope = pull * (kernel.orders[0] + kernel.orders[1] * rest + kernel.orders[2] * (second - part * rest))
            gradient[c] = np.vdot(slope, part)
            if c in self._axes:
                gradient[count + 4 + self._axes.index(c)] = kernel.weights[c] * np.vdot(slope, self._by_length(c, kernel.lengths[c]))
        gradient[count : count + 3] = [v * np.vdot(pull, k) for v, k in zip(kernel.orders, (first, second, third))]
        gradient[count + 3] = kernel.noise * np.trace(pull)
        away = (logs - self.start) / self._spread
        density = -0.5 * self._residuals @ solved - np.log(np.diag(lower)).sum() - 0.5 * away @ away
        return -float(density), -(gradient - away / self._spread)

    def _spread_out(self, c: int, length: float) -> Array:
        """A column's kernel at the rows [N, N]."""
        return self._looked_up(c, likeness(self._columns[c], length))

    def _by_length(self, c: int, length: float) -> Array:
        """Its derivative by the logarithm of the length scale."""
        step = 1e-4
        longer, shorter = (likeness(self._columns[c], length * math.exp(sign * step)) for sign in (1, -1))
        return self._looked_up(c, (longer - shorter) / (2 * step))

    def _looked_up(self, c: int, table: Array) -> Array:
        return np.asarray(table[self._at[c]][:, self._at[c]] * self._there[c])


# ---- what the process expects ----


class Process:
    """A factor of the covariance of rows, noise included: one of the first rows, made at once, and below it a few more.

    What is added leaves the first part where it is, so that a row costs no more than one solution by it.
    """

    def __init__(self, kernel: Kernel, rows: Rows) -> None:
        self.kernel = kernel
        self._base, self._rest = rows, rows[:0]
        self._seen, self._further = kernel.shared(rows), kernel.shared(rows[:0])
        self._upper_left = _factor(kernel, rows, 0.0)
        self._lower_left, self._lower_right = np.zeros((0, len(rows))), np.zeros((0, 0))

    def __len__(self) -> int:
        return len(self._base) + len(self._rest)

    def extended(self, rows: Rows) -> Process:
        """With further rows."""
        left, right = self._solved(*self._between(rows))
        across = np.concatenate([left, right])
        found = copy(self)
        found._rest, found._further = self._rest + rows, self._further + self.kernel.shared(rows)
        found._lower_left = np.concatenate([self._lower_left, left.T])
        above = np.concatenate([self._lower_right, np.zeros((len(self._rest), len(rows)))], axis=1)
        found._lower_right = np.concatenate([above, np.concatenate([right.T, _factor(self.kernel, rows, across.T @ across)], axis=1)])
        return found

    def coefficients(self, values: Array) -> Array:
        """What `expected` needs to know of the values at the first rows, as many as there are values."""
        size, rest = len(self._base), len(values) - len(self._base)
        away = values - np.concatenate([self.kernel.believed(self._base), self.kernel.believed(self._rest[:rest])])
        below, corner = self._lower_left[:rest], np.ascontiguousarray(self._lower_right[:rest, :rest])
        first = _triangle(self._upper_left, away[:size])
        last = _triangle(corner, _triangle(corner, away[size:] - below @ first), transposed=True)
        return np.concatenate([_triangle(self._upper_left, first - below.T @ last, transposed=True), last])

    def expected(self, coefficients: Array, rows: Rows) -> tuple[Array, Array]:
        """Expected values at other rows [M] and their standard deviations, without noise. `coefficients` may be those of
        the first rows only: the others then make the process surer without saying what they are."""
        size, rest = len(self._base), len(coefficients) - len(self._base)
        base, further = self._between(rows)
        means = self.kernel.believed(rows) + coefficients[:size] @ base + coefficients[size:] @ further[:rest]
        left, right = self._solved(base, further)
        known = np.einsum("nm,nm->m", left, left) + np.einsum("nm,nm->m", right, right)
        return np.asarray(means), np.asarray(np.sqrt(np.maximum(self.kernel.variances(rows) - known, JITTER)))

    def smoothed(self, coefficients: Array, values: Array) -> Array:
        """Expected values at the first rows themselves, whose values are given."""
        return np.asarray(values - (self.kernel.noise + JITTER) * coefficients)

    def _between(self, rows: Rows) -> tuple[Array, Array]:
        """Covariances [first rows, M] and [further rows, M]."""
        return self.kernel.between(self._seen, rows), self.kernel.between(self._further, rows)

    def _solved(self, base: Array, further: Array) -> tuple[Array, Array]:
        """The factor's solution for covariances [first rows, M] and [further rows, M]."""
        left = _triangle(self._upper_left, base)
        return left, _triangle(self._lower_right, further - self._lower_left @ left)


def _factor(kernel: Kernel, rows: Rows, known: Array | float) -> Array:
    covariance = kernel.between(kernel.shared(rows), rows) - known
    covariance[np.diag_indices(len(rows))] += kernel.noise + JITTER
    return lower_triangle(covariance) if len(rows) else covariance


def lower_triangle(covariance: Array) -> Array:
    """The Cholesky factor, of the matrix with as much more on its diagonal as rounding makes necessary."""
    for more in (0.0, 1e-6, 1e-4, 1e-2):
        try:
            extra = more * np.diag(np.full(len(covariance), max(1.0, np.trace(covariance) / len(covariance)))) if more else 0.0
            return np.asarray(cholesky(covariance + extra, lower=True, check_finite=False))
        except LinAlgError as error:
            failed = error
    raise failed


def _triangle(lower: Array, right: Array, *, transposed: bool = False) -> Array:
    """Solves with a lower triangle, or its transpose; by LAPACK itself, as SciPy's own call takes longer than most of these."""
    if not len(lower):
        return right
    if lower.flags.f_contiguous:
        found, _ = dtrtrs(lower, right, lower=1, trans=int(transposed))
    else:
        found, _ = dtrtrs(lower.T, right, lower=0, trans=int(not transposed))
    return np.asarray(found)
