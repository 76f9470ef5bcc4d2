"""What a strategy may know of a study: its points, what makes two of them the same, and the trials so far.

Everything here is a function of the trials that are shown; what is kept between two suggestions is a memo of the same
answer, so a study that goes on in a new process suggests what it would have suggested in the old one.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from components.models.interface import Suggest
from components.models.points import Point, Points, at, has_few
from components.search.ranking import costs

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Shape = frozenset[str]  # the names of the parameters that a trial has


def key_of_params(point: Point) -> Hashable:
    """The key of a space that knows no two points to be the same candidate."""
    return tuple(sorted(point.params.items(), key=lambda item: item[0]))


@dataclass
class Problem:
    """The question of a study.

    `points` draws, changes and crosses candidates; `Point.value` is what the space's program returned. `key` is equal
    for points that are one and the same candidate (isomorphic cells). `fold` gives the point by which a model of the
    objective should see it: the same for all that have one key. `proxies` scores a point without training, higher is
    taken to be better (None: there are none). `supernet` is the file that a strategy with `train_supernet` left.
    `memo` is a strategy's own, to keep what it would compute again.
    """

    points: Points
    key: Callable[[Point], Hashable] = key_of_params
    fold: Callable[[Point], Point] = lambda point: point
    proxies: Callable[[Point], dict[str, float]] | None = None
    supernet: Path | None = None
    memo: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """A trial as a strategy sees it.

    `values` are the objectives, lower is better (None: running or failed); `violation` is the sum of what the
    constraints are missed by (0: feasible), `constraints` says by how much each is (at most 0: it is kept), both as
    shares of the limits; `steps` are intermediate values of the first objective by fidelity, lower is better. `trial` is
    Optuna's own record.
    """

    number: int
    point: Point
    state: TrialState
    values: tuple[float, ...] | None
    violation: float
    steps: dict[int, float]
    trial: FrozenTrial
    constraints: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.values is not None

    @property
    def is_assessed(self) -> bool:
        """Whether it has shown what it is worth, if only part of the way."""
        return self.values is not None or (bool(self.steps) and self.state is not TrialState.FAIL)


class PointSampler(BaseSampler):
    """An Optuna sampler that proposes whole points. A member of the family overrides `next_point`; one that pursues a single
    objective sets `single`, and raises `ValueError` in a study of several, as Optuna asks.

    The randomness of a suggestion comes from (seed, trial number). Without a problem, as under a plain Optuna
    objective, the space is recalled from the trials so far and drawn independently until there is one.
    """

    single = False

    def __init__(self, seed: int, problem: Problem | None = None) -> None:
        self._seed, self._problem = seed, problem
        self._proposed: dict[int, Point] = {}
        self._memo: dict[str, Any] = {}

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        """The next point, given the trials that were told, failed or are running, in order of their numbers."""
        raise NotImplementedError

    # ---- Optuna's interface ----

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        point = self._propose(study, trial)
        self._proposed = {trial.number: point} if point else {}
        return point.distributions if point else {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        if not search_space:
            return {}
        point = self._proposed.pop(trial.number, None) or self._propose(study, trial)
        given = point.params if point else {}
        return {
            name: given[name] if name in given else self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def _propose(self, study: Study, trial: FrozenTrial) -> Point | None:
        """The next point; None without a problem while there is no trial to recall one from."""
        self._check(study)
        history = study.get_trials(deepcopy=False)
        is_last = bool(history) and history[-1].number == trial.number  # as ever, except where threads ask at once
        history = history[:-1] if is_last else [t for t in history if t.number != trial.number]
        problem = self._problem
        if problem is None:
            recollection: Recollection = self._memo.setdefault("recollection", Recollection())
            recollection.follow(history)
            if not recollection.is_anything:
                return None
            problem = Problem(points=recollection.points, memo=self._memo)
        told = told_of(history, [direction.name == "MAXIMIZE" for direction in study.directions], problem)
        return self.next_point(problem, told, Random(f"{self._seed}/{trial.number}"))

    def _check(self, study: Study) -> None:
        if self.single and len(study.directions) > 1:
            raise ValueError(f"{type(self).__name__} pursues one objective, the study has {len(study.directions)}")

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        self._check(study)
        return at(param_distribution, Random(f"{self._seed}/{trial.number}/{param_name}").random())


class Enqueued(PointSampler):
    """Proposes one point: the given values where the space takes them, the rest drawn."""

    def __init__(self, seed: int, problem: Problem, given: Mapping[str, Any]) -> None:
        super().__init__(seed, problem)
        self._given = given

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        return problem.points.draw(rng, self._given)


def told_of(history: Sequence[FrozenTrial], maximize: Sequence[bool], problem: Problem) -> list[Told]:
    """Trials as strategies see them; those without parameters (failed before they had any) are left out."""
    known: Account = problem.memo.setdefault("told", Account())
    known.follow(history, maximize, problem)
    return list(known.told)


class Account:
    """Trials as told, which costs what has changed among them since it last followed."""

    def __init__(self) -> None:
        self._trials: list[FrozenTrial] = []
        self._rows: list[Told] = []
        self.told: list[Told] = []

    def follow(self, trials: Sequence[FrozenTrial], maximize: Sequence[bool], problem: Problem) -> None:
        if not follows(trials, self._trials):
            known = {id(trial): row for trial, row in zip(self._trials, self._rows)}
            self._rows = [known[id(trial)] if id(trial) in known else _told(trial, maximize, problem) for trial in trials]
            self.told = [row for row in self._rows if row.point.params]
        else:
            new = [_told(trial, maximize, problem) for trial in trials[len(self._trials) :]]
            self._rows += new
            self.told += [row for row in new if row.point.params]
        self._trials = list(trials)


def follows(now: Sequence[Any], before: Sequence[Any]) -> bool:
    """Whether a history is an earlier one with more at its end, record by record."""
    return len(before) <= len(now) and all(map(operator.is_, before, now))


def _told(trial: FrozenTrial, maximize: Sequence[bool], problem: Problem) -> Told:
    given = trial.params
    point = problem.points.draw(Random(0), given) if given else Point({}, {})
    if point.params != given and given:  # the space has changed since: what was tried stays what it was
        point = Point(dict(given), dict(trial.distributions), point.value)
    values = None
    if trial.state is TrialState.COMPLETE and trial.values is not None:
        values = tuple(-v if up else v for v, up in zip(trial.values, maximize))
        values = None if any(math.isnan(v) for v in values) else values
    sign = -1.0 if maximize and maximize[0] else 1.0
    steps = {step: sign * value for step, value in trial.intermediate_values.items() if math.isfinite(value)}
    constraints = trial.constraints
    missed = float(sum(max(0.0, value) for value in constraints.values()))
    return Told(trial.number, point, trial.state, values, missed, steps, trial, constraints)


def ranked(told: Sequence[Told]) -> list[Told]:
    """The complete trials, best first: feasible ones by their objective (by dominance and crowding if several), then the
    others by how little they miss; of equals, the earlier one."""
    complete = [t for t in told if t.values is not None]
    cost = costs([t.values for t in complete if t.values is not None], [t.violation for t in complete])
    return [complete[i] for i in sorted(range(len(complete)), key=lambda i: (cost[i], complete[i].number))]


def assessed(told: Sequence[Told]) -> list[Told]:
    """The assessed trials, best first: `ranked`, then those that a scheduler let come only part of the way, the furthest
    first (it carried the better ones on) and of these the best."""
    partial = [t for t in told if t.is_assessed and t.values is None]
    return ranked(told) + sorted(partial, key=lambda t: (-max(t.steps), t.steps[max(t.steps)], t.number))


def unseen(problem: Problem, told: Sequence[Told], draw: Callable[[], Point], tries: int = 30) -> Point:
    """The first of `tries` drawn points that no trial has had; the last one if all had been."""
    seen = keys_of(problem, told)
    for _ in range(tries):
        point = draw()
        if problem.key(point) not in seen:
            return point
    return point


def keys_of(problem: Problem, told: Sequence[Told]) -> set[Hashable]:
    """The keys of all trials; not to be changed, it is kept from one suggestion to the next."""
    known: Keys = problem.memo.setdefault("keys", Keys())
    known.follow(problem, told)
    return known.found


class Keys:
    """The set of the keys of some trials, which costs what has changed among them."""

    def __init__(self) -> None:
        self._rows: list[Told] = []
        self._keys: list[Hashable] = []
        self.found: set[Hashable] = set()

    def follow(self, problem: Problem, told: Sequence[Told]) -> None:
        same = follows(told, self._rows)
        if not same:
            known = {id(row): key for row, key in zip(self._rows, self._keys)}
            self._keys = [known[id(row)] if id(row) in known else problem.key(row.point) for row in told]
            self.found = set(self._keys)
        new = [] if not same else [problem.key(row.point) for row in told[len(self._rows) :]]
        self._keys += new
        self.found.update(new)
        self._rows = list(told)


class Recollection:
    """The space as the trials show it: which parameters come together, and which value of a choice, or of a few whole
    numbers, leads to which others. It is learned trial by trial; a value that nobody had leads where most trials went."""

    def __init__(self) -> None:
        self._trials: list[FrozenTrial] = []
        self._forget()

    def _forget(self) -> None:
        self._latest: dict[str, BaseDistribution] = {}
        self._values: dict[Shape, dict[str, set[Any]]] = {}
        self._counts: Counter[Shape] = Counter()
        self._steps: dict[tuple[Shape, ...], tuple[list[str], str | None]] = {}
        self.points = Points(self._program)

    @property
    def is_anything(self) -> bool:
        return bool(self._values)

    def follow(self, trials: Sequence[FrozenTrial]) -> None:
        """Learns from those that are new."""
        same = follows(trials, self._trials)
        if not same:
            self._forget()
        for trial in trials[len(self._trials) if same else 0 :]:
            if trial.params:
                self._learn(trial)
        self._trials = list(trials)

    def _learn(self, trial: FrozenTrial) -> None:
        self._latest.update(trial.distributions)
        shape = frozenset(trial.params)
        self._counts[shape] += 1
        values = self._values.setdefault(shape, {})
        for name, value in trial.params.items():
            if has_few(trial.distributions[name]):
                values.setdefault(name, set()).add(value)
        self._steps.clear()

    def _program(self, suggest: Suggest) -> dict[str, Any]:
        left, drawn = tuple(self._values), {}  # type: tuple[Shape, ...], dict[str, Any]
        while True:
            if left not in self._steps:
                shared = [name for name in self._latest if all(name in shape for shape in left)]
                self._steps[left] = shared, self._parting(left, shared)
            names, parting = self._steps[left]
            for name in names:
                if name not in drawn:
                    drawn[name] = _suggest(suggest, name, self._latest[name])
            if len(left) == 1:
                return drawn
            fitting = tuple(shape for shape in left if parting and drawn[parting] in self._values[shape].get(parting, ()))
            left = fitting or (max(left, key=lambda shape: self._counts[shape]),)

    def _parting(self, left: Sequence[Shape], names: Sequence[str]) -> str | None:
        """The parameter whose value leaves the fewest sets of parameters; None if none always leaves fewer."""
        found: dict[str, float] = {}
        for name in names:
            each = [self._values[shape].get(name, set()) for shape in left]
            counts = Counter(value for values in each for value in values)
            if counts and max(counts.values()) < len(left) and all(each):
                found[name] = sum(counts.values()) / len(counts)
        return min(found, key=lambda name: found[name], default=None)


def _suggest(suggest: Suggest, name: str, distribution: Any) -> Any:
    kind = type(distribution).__name__
    if kind == "CategoricalDistribution":
        return suggest.suggest_categorical(name, distribution.choices)
    if kind == "IntDistribution":
        return suggest.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    return suggest.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
