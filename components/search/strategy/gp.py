"""A Gaussian process: the candidate with the largest expected improvement under a smooth model of the objective.

Jones et al., "Efficient Global Optimization of Expensive Black-Box Functions", 1998. The process and its acquisition
functions are Optuna's (Matern 5/2 with a length scale per column; logarithmic expected improvement, hypervolume for
several objectives, times the probability of being feasible). Optuna's own sampler draws the parameters that only some
trials have independently of the model; here whole points of the conditional space are compared: a choice that is not
there is a choice of its own, and a number that is not there always lies the same distance from one that is (the arc
kernel of Swersky et al., "Raiders of the Lost Architecture: Kernels for Bayesian Optimization in Conditional Parameter
Spaces", 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from components.models.points import Point, share_of
from components.search.problem import PointSampler, Problem, Told, assessed, keys_of, ranked, unseen
from components.settings import whole

if TYPE_CHECKING:
    from optuna._gp.acqf import BaseAcquisitionFunc
    from optuna._gp.gp import GPRegressor

LEADERS = 10  # trials, and later candidates, whose surroundings are looked at
ROUNDS = 3  # times that the surroundings of the most promising candidates are added to the candidates
WORST = 3.0  # a value that is worse than the median by more than so many times what the best one is better by counts as that
SAMPLES = 32  # of the objectives' joint distribution, for the hypervolume
AT_ONCE = 64  # points whose promise is asked for together: a hypervolume is a sum over samples and hundreds of boxes for each


class GP:
    """Random until `startup` trials have a value; then the most promising of `candidates` points and their surroundings.

    The model sees the best half and the latest half of `most` trials, so that a suggestion takes a bounded time. Raises
    `UsageError` for numbers out of their ranges.
    """

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, startup: int = 10, most: int = 200, candidates: int = 500) -> None:
        self.startup = whole("strategy.startup", startup, 2)
        self.most = whole("strategy.most", most, startup)
        self.candidates = whole("strategy.candidates", candidates, 1)

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return GPPointSampler(seed, problem, self)


class GPPointSampler(PointSampler):
    def __init__(self, seed: int, problem: Problem | None, settings: GP) -> None:
        super().__init__(seed, problem)
        self._settings = settings

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        rows = observations(told, self._settings.startup)
        if len(rows) < self._settings.startup:
            return unseen(problem, told, lambda: problem.points.draw(rng))
        rows = best_and_latest(rows, self._settings.most)
        running = [t for t in told if t.state in (TrialState.RUNNING, TrialState.WAITING) and not t.is_assessed]
        pool = Pool(problem, told)
        pool.add(problem.points.draw(rng) for _ in range(self._settings.candidates))
        leaders = [t.point for t in assessed(told)[:LEADERS]]
        pool.add(_around(problem, leaders, rng, self._settings.candidates))
        encoding = Encoding.of([problem.fold(point) for point in pool.points + [row.trial.point for row in rows]])
        model = Model.of(rows, running, problem, encoding, rng.randrange(2**30))
        for _ in range(ROUNDS):
            best = pool.best(model, LEADERS)
            pool.add(_around(problem, best, rng, self._settings.candidates // 4))
        best = pool.best(model, 1)
        return best[0] if best else unseen(problem, told, lambda: problem.points.draw(rng))


def _around(problem: Problem, points: Sequence[Point], rng: Random, count: int) -> Any:
    """Points near some of the given ones: a value or two changed, or crossed with another."""
    for place in range(count if points else 0):
        point = points[place % len(points)]
        if place % 3 == 2:
            point = problem.points.cross(point, rng.choice(points), rng)
        yield problem.points.mutate(point, rng, 1 + (rng.random() < 0.3))


class Pool:
    """Candidates, no two of them the same and none that was tried; with what the model promises of each, once asked."""

    def __init__(self, problem: Problem, told: Sequence[Told]) -> None:
        self._problem, self._seen = problem, set(keys_of(problem, told))
        self.points: list[Point] = []
        self._promises: list[float] = []

    def add(self, points: Any) -> None:
        for point in points:
            key = self._problem.key(point)
            if key not in self._seen:
                self._seen.add(key)
                self.points.append(point)

    def best(self, model: Model, count: int) -> list[Point]:
        new = self.points[len(self._promises) :]
        self._promises += model.promises([self._problem.fold(point) for point in new]) if new else []
        return [self.points[i] for i in sorted(range(len(self.points)), key=lambda i: -self._promises[i])[:count]]


@dataclass(frozen=True)
class Observation:
    """A trial and what the model learns from it: values, lower is better; None for a failure."""

    trial: Told
    values: tuple[float, ...] | None


def observations(told: Sequence[Told], least: int) -> list[Observation]:
    """The complete trials; while they are fewer than `least`, the values at the furthest fidelity that as many have.
    Failures come with them, so that the model keeps away from where they were."""
    found = [Observation(t, t.values) for t in told if t.values is not None and all(map(math.isfinite, t.values))]
    fidelities = sorted({step for t in told for step in t.steps}, reverse=True)
    while len(found) < least and fidelities:
        step = fidelities.pop(0)
        found = [Observation(t, (t.steps[step],)) for t in told if step in t.steps]
    failed = [Observation(t, None) for t in told if t.state is TrialState.FAIL and not t.steps]
    return found + failed if len(found) >= least else []


def best_and_latest(rows: Sequence[Observation], most: int) -> list[Observation]:
    """At most `most`: half of them the best, the rest the latest of the others."""
    if len(rows) <= most:
        return list(rows)
    by_number = {row.trial.number: row for row in rows}
    order = [t.number for t in ranked([row.trial for row in rows])]
    chosen = order[: most // 2]
    kept = set(chosen)
    chosen += [number for number in sorted(by_number, reverse=True) if number not in kept][: most - len(chosen)]
    return [by_number[number] for number in sorted(chosen)]


@dataclass(frozen=True)
class Encoding:
    """Points as rows of numbers, equal columns for equal things: a column for a choice (which one, -1 if it is not there), two
    for a number (on an arc; the middle of its circle if it is not there), or one (its place in its range) if every point has it.
    """

    ranges: dict[str, BaseDistribution]
    shared: frozenset[str]

    @classmethod
    def of(cls, points: Sequence[Point]) -> Encoding:
        ranges = {name: found for point in points for name, found in point.distributions.items()}
        counts = {name: sum(name in point.params for point in points) for name in ranges}
        varied = {name: found for name, found in sorted(ranges.items()) if not found.single() or counts[name] < len(points)}
        return cls(varied, frozenset(name for name, count in counts.items() if count == len(points)))

    @property
    def is_choice(self) -> np.ndarray:
        """Which columns are choices."""
        return np.array([kind for name, found in self.ranges.items() for kind in self._kinds(name, found)], dtype=bool)

    def _kinds(self, name: str, distribution: BaseDistribution) -> list[bool]:
        return [True] if isinstance(distribution, CategoricalDistribution) else [False] if name in self.shared else [False, False]

    def rows(self, points: Sequence[Point]) -> np.ndarray:
        """[points, columns]"""
        return np.array([self._row(point) for point in points], dtype=float).reshape(len(points), len(self.is_choice))

    def _row(self, point: Point) -> list[float]:
        row: list[float] = []
        for name, distribution in self.ranges.items():
            row += _columns(distribution, point.params.get(name), name in point.params, name in self.shared)
        return row


def _columns(distribution: BaseDistribution, value: Any, is_there: bool, is_shared: bool) -> list[float]:
    if isinstance(distribution, CategoricalDistribution):
        is_known = is_there and value in distribution.choices
        return [float(distribution.to_internal_repr(value)) if is_known else -1.0]
    if not is_there:
        return [0.5] if is_shared else [0.0, 0.0]
    share = min(1.0, max(0.0, share_of(distribution, value)))
    return [share] if is_shared else [math.sin(0.5 * math.pi * share), math.cos(0.5 * math.pi * share)]


class Model:
    """How much is to be hoped for of a point: the logarithm of the expected improvement."""

    def __init__(self, encoding: Encoding, acquisition: BaseAcquisitionFunc | None) -> None:
        self._encoding, self._acquisition = encoding, acquisition

    def promises(self, points: Sequence[Point]) -> list[float]:
        if self._acquisition is None:
            return [0.0] * len(points)
        rows = self._encoding.rows(points)
        parts = [self._acquisition.eval_acqf_no_grad(rows[i : i + AT_ONCE]) for i in range(0, len(rows), AT_ONCE)]
        return [float(value) for value in np.concatenate(parts)]

    @classmethod
    def of(cls, rows: Sequence[Observation], running: Sequence[Told], problem: Problem, encoding: Encoding, seed: int) -> Model:
        names = _constraint_names(rows)
        rows = [row for row in rows if row.values is not None or not names]
        if not encoding.ranges:
            return cls(encoding, None)
        inputs = encoding.rows([problem.fold(row.trial.point) for row in rows])
        values = standardised(rows)
        pending = encoding.rows([problem.fold(t.point) for t in running])
        objectives = [_fitted(inputs, column, encoding, pending) for column in values.T]
        feasible = np.array([row.trial.violation == 0 for row in rows])
        bounds = np.array([[-row.trial.constraints[name] for name in names] for row in rows]).reshape(len(rows), len(names))
        scales = np.maximum(bounds.std(axis=0), 1e-10)
        limits = [_fitted(inputs, column, encoding, pending) for column in ((bounds - bounds.mean(axis=0)) / scales).T]
        return cls(encoding, _acquisition(objectives, values, feasible, limits, list(-bounds.mean(axis=0) / scales), seed))


def _constraint_names(rows: Sequence[Observation]) -> list[str]:
    """The constraints that every trial with a value has been held to."""
    told = [set(row.trial.constraints) for row in rows if row.values is not None]
    return sorted(set.intersection(*told)) if told else []


def standardised(rows: Sequence[Observation]) -> np.ndarray:
    """[trials, objectives], higher is better, mean 0 and deviation 1. What is far worse than the median counts as equally
    bad: it would take the model's attention from what is good. Failures count as the worst."""
    values = -np.array([row.values for row in rows if row.values is not None], dtype=float)
    median, best = np.median(values, axis=0), values.max(axis=0)
    values = np.maximum(values, median - WORST * np.maximum(best - median, 1e-10))
    full = np.array([values.min(axis=0)] * len(rows))
    full[[row.values is not None for row in rows]] = values
    return (full - full.mean(axis=0)) / np.maximum(full.std(axis=0), 1e-10)


def _fitted(inputs: np.ndarray, values: np.ndarray, encoding: Encoding, pending: np.ndarray) -> GPRegressor:
    """The process with the most likely kernel; running trials are believed to come out as it expects."""
    import torch
    from optuna._gp import gp, prior

    found = gp.fit_kernel_params(
        X=inputs, Y=values, is_categorical=encoding.is_choice, log_prior=prior.default_log_prior,
        minimum_noise=prior.DEFAULT_MINIMUM_NOISE_VAR, deterministic_objective=False,
    )  # fmt: skip
    if len(pending):
        points = torch.from_numpy(pending)
        found.append_running_data(points, found.posterior(points)[0])
    return found


def _acquisition(
    objectives: list[GPRegressor], values: np.ndarray, feasible: np.ndarray, limits: list[GPRegressor], bounds: list[float], seed: int
) -> BaseAcquisitionFunc:
    """Optuna's acquisition function for so many objectives and constraints."""
    import torch
    from optuna._gp import acqf

    space: Any = None  # only asked for by Optuna's own optimiser of acquisition functions
    if len(objectives) == 1:
        best = float(values[feasible, 0].max()) if feasible.any() else -math.inf
        if not limits:
            return acqf.LogEI(objectives[0], space, best)
        return acqf.LogCEI(objectives[0], space, best, limits, bounds)
    if not limits:
        return acqf.LogEHVI(objectives, space, torch.from_numpy(values), SAMPLES, seed)
    reached = torch.from_numpy(values[feasible]) if feasible.any() else None
    return acqf.LogCEHVI(objectives, space, reached, SAMPLES, seed, limits, bounds)
