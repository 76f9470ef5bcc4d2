"""A model of what was seen chooses what to try next: near the best by preference, anywhere if it promises more.

A Gaussian process over the parameters, their pairs and triples (`components.search.predictor`) sees each point folded, so
that isomorphic candidates are one. What is proposed has the largest expected improvement among fresh draws, mutations and
crossings of the best, refined by mutation (White et al., "BANANAS", AAAI 2021; Kandasamy et al., NASBOT, NeurIPS 2018);
with constraints, times the probability that they are kept (Gardner et al., ICML 2014); with several objectives, along a
random direction of a Chebyshev scalarisation (Knowles, "ParEGO", 2006). Scores that need no training are its prior.
The final choice is by the expected, not by the measured value: the best of many noisy values is a lucky one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from random import Random
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from scipy.special import log_ndtr, ndtr

from components.models.points import Point, another, at, crossed, has_few, share_of
from components.search.encoding import Array, Encoding, Levels
from components.search.evidence import Evidence, constraints_of, is_running, objectives_of
from components.search.predictor import SLOPE_SPREAD, Process, Rows, fitted
from components.search.problem import PointSampler, Problem, Told, follows, keys_of, ranked, unseen
from components.settings import whole

GROWTH, LONGEST = 1.25, 128  # the kernel is fitted anew when there are so many times, or so many, more rows
FITTED = 80  # rows that the kernel is fitted to: the better half of them the best ones, the others spread over the rest
PARTIAL = 400  # rows that are kept where trials are compared part of the way
ROUNDS = 2  # times that the most promising candidates are mutated
PARENTS = 3  # candidates that are mutated in a round
WITHIN = 2  # times as many candidates with constraints: most changes of the best, which lie at a border, lead over it
MANY = 256  # trials, beyond which half as many candidates are compared: the model is larger, and knows more
REFERENCE = 64  # draws by which scores without training are brought to one scale
SLOPE = 0.7  # by how many standard deviations of the objective one of the scores is believed to make it better
BLOCK = 8  # rows that are added to a process at once
AUGMENTED = 0.05  # share of the sum in the scalarisation, so that a point that is dominated never promises the most
CAUTION = 3.0  # power of the probability that a constraint is kept: at the border an evaluation is easily in vain
FAR = 6.0  # standard deviations
CLEARLY, ENOUGH, HONEST = 1.0, 4, 0.2  # standard deviations of a score; pairs; share of them
FARTHEST = 6.0  # standard deviations beyond which a score says no more

Promise = Callable[[Sequence[Point]], Array]


class Surrogate:
    """The first `startup` trials are drawn at random; then the most promising of `candidates` points is proposed
    (twice as many with constraints, half as many after `MANY` trials).

    With scores that need no training, the first `scored` trials, every other one of the first few aside, are those with
    the best scores, unless trials say that the scores mislead.

    `leaders` is how many of the best trials are mutated and crossed; the model sees the best and the latest of `most`
    trials. Every `random_every`-th trial is drawn at random too: a model that has seen little beyond the region
    it likes is surer of the rest than it should be (as in SMAC, Hutter et al., LION 2011). Raises `UsageError` for a
    number out of its range.
    """

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(
        self, *, startup: int = 6, candidates: int = 64, leaders: int = 8, most: int = 200, random_every: int = 5, scored: int = 30
    ) -> None:
        for name, value, least in (
            ("startup", startup, 2),
            ("candidates", candidates, 8),
            ("leaders", leaders, 1),
            ("most", most, 50),
            ("random_every", random_every, 2),
            ("scored", scored, 0),
        ):
            whole(f"strategy.{name}", value, least)
        self.random_every, self.scored = random_every, scored
        self.startup, self.candidates, self.leaders, self.most = startup, candidates, leaders, most

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return SurrogateSampler(seed, problem, self)

    def recommend(self, problem: Problem, told: Sequence[Told]) -> int | None:
        """The number of the feasible complete trial that is expected to be the best; with several objectives the first of
        the best ranked. None if there is none."""
        complete = [row for row in ranked(told) if row.violation == 0]
        if not complete:
            return None
        values = complete[0].values or ()
        if len(values) > 1 or len(complete) < self.startup:
            return complete[0].number
        expected = {row.number: value for row, value in Model(problem, told, self).objectives[0].at_trials}
        return min((row.number for row in complete if row.number in expected), key=lambda number: (expected[number], number))


class SurrogateSampler(PointSampler):
    def __init__(self, seed: int, problem: Problem | None, settings: Surrogate) -> None:
        super().__init__(seed, problem)
        self._settings = settings

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        """Of isomorphic points the one that stands for all: it has no operation that does nothing."""
        point = self._promising(problem, told, rng)
        folded = problem.fold(point)
        return folded if problem.key(folded) == problem.key(point) else point

    def _promising(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        known = sum(1 for _ in islice((row for row in told if row.is_assessed), self._settings.startup))
        scores = Scores.of(problem)
        is_turn = len(told) < self._settings.scored and (known >= self._settings.startup or len(told) % 2 == 0)
        if is_turn and scores.keep_their_promise(told):
            return self._best_scored(problem, scores, told, rng)
        if known < self._settings.startup or (len(told) + 1) % self._settings.random_every == 0:
            return unseen(problem, told, lambda: problem.points.draw(rng))
        model, pool = Model(problem, told, self._settings), Pool(problem, told)
        count = self._settings.candidates * (WITHIN if model.constraints else 1) // (2 if len(told) > MANY else 1)
        pool.add(_fresh(problem, model.leaders(), rng), count // 2)
        acquisition = model.acquisition(rng)
        for _ in range(ROUNDS):
            best = pool.best(acquisition, PARENTS)
            pool.add(_changed(problem, best, rng), count // (2 * ROUNDS))
        best = pool.best(acquisition, 1)
        return best[0] if best else unseen(problem, told, lambda: problem.points.draw(rng))

    def _best_scored(self, problem: Problem, scores: Scores, told: Sequence[Told], rng: Random) -> Point:
        """The best score among draws, what is next to the best scored trials, and changes of the best of these."""
        pool, count = Pool(problem, told), self._settings.candidates
        pool.add((problem.points.draw(rng) for _ in range(count)), count)
        points = [row.point for row in told]
        order = np.argsort(-scores.totals([problem.fold(point) for point in points]), kind="stable")[:PARENTS]
        for place in order:
            pool.add(problem.points.neighbours(points[place], rng), count)
        for _ in range(2 * ROUNDS):
            pool.add(_changed(problem, pool.best(scores.totals, PARENTS), rng), count // (2 * ROUNDS))
        best = pool.best(scores.totals, 1)
        return best[0] if best else unseen(problem, told, lambda: problem.points.draw(rng))


# ---- candidates ----


class Pool:
    """Candidates, no two of them the same and none that was tried, with what they promise once asked."""

    def __init__(self, problem: Problem, told: Sequence[Told]) -> None:
        self._problem, self._seen = problem, set(keys_of(problem, told))
        self.points: list[Point] = []
        self._folded: list[Point] = []
        self._promises: list[float] = []

    def add(self, points: Iterator[Point], count: int) -> None:
        """The new ones among the next `count` of some points."""
        for _, point in zip(range(count), points):
            key = self._problem.key(point)
            if key not in self._seen:
                self._seen.add(key)
                self.points.append(point)
                self._folded.append(self._problem.fold(point))

    def best(self, promise: Promise, count: int) -> list[Point]:
        """The `count` most promising; of equals the earlier one."""
        new = self._folded[len(self._promises) :]
        if new:
            self._promises += promise(new).tolist()
        return [self.points[i] for i in sorted(range(len(self.points)), key=lambda i: -self._promises[i])[:count]]


def _fresh(problem: Problem, leaders: Sequence[Point], rng: Random) -> Iterator[Point]:
    """Of four: a draw, a crossing of two leaders, two changed leaders, the best ones more often."""
    while True:
        if not leaders or rng.random() < 0.25:
            yield problem.points.draw(rng)
            continue
        one = leaders[int(len(leaders) * rng.random() ** 2)]
        yield _change(problem, one, crossed(one, rng.choice(leaders), rng) if rng.random() < 0.33 else dict(one.params), rng)


def _changed(problem: Problem, points: Sequence[Point], rng: Random) -> Iterator[Point]:
    """Changes of some points, in turn."""
    while points:
        for point in points:
            yield _change(problem, point, dict(point.params), rng)


def _change(problem: Problem, point: Point, given: dict[str, Any], rng: Random) -> Point:
    """`given`, the point's values or some of its and some of another's, with one, two or, less often, more of them changed;
    numbers by steps of all sizes."""
    names = list(point.params)
    while True:
        name = rng.choice(names)
        value, distribution = given[name], point.distributions[name]
        given[name] = another(distribution, value, rng) if has_few(distribution) else _step(distribution, value, rng)
        if rng.random() < 0.5:
            return problem.points.draw(rng, given)


def _step(distribution: Any, value: Any, rng: Random) -> Any:
    """A number some way up or down, a fortieth to a third of its range being equally likely on a scale of sizes."""
    share = share_of(distribution, value) + rng.gauss(0.0, 0.025 * 13.0 ** rng.random())
    share = -share if share < 0 else 2 - share if share > 1 else share
    return at(distribution, min(1.0, max(0.0, share)))


# ---- scores without training ----


class Scores:
    """The problem's scores without training, each on the scale of `REFERENCE` random points, limited at `FARTHEST`."""

    def __init__(self, problem: Problem) -> None:
        rng = Random(0)
        self._proxies, self._known = problem.proxies, {}  # type: Any, dict[Any, list[float]]
        self._key = problem.key
        drawn = [problem.fold(problem.points.draw(rng)) for _ in range(REFERENCE if problem.proxies else 1)]
        self._names = sorted(problem.proxies(drawn[0])) if problem.proxies else []
        raw = np.array([self._raw(point) for point in drawn]).reshape(len(drawn), len(self._names))
        self._is_log = np.array([bool((column > 0).all() and column.max() > 10 * column.min()) for column in raw.T], dtype=bool)
        scaled = self._scaled(raw)
        self._middle, self._spread = np.nanmean(scaled, axis=0), np.maximum(np.nanstd(scaled, axis=0), 1e-12)

    @classmethod
    def of(cls, problem: Problem) -> Scores:
        found: Scores = problem.memo.setdefault("scores", None) or cls(problem)
        problem.memo["scores"] = found
        return found

    def rows(self, points: Sequence[Point]) -> Array:
        """[points, scores]; a score that is not finite says nothing."""
        if not self._names:
            return np.zeros((len(points), 0))
        raw = np.array([self._raw(point) for point in points]).reshape(len(points), len(self._names))
        away = (self._scaled(raw) - self._middle) / self._spread
        return np.clip(np.nan_to_num(away, nan=0.0, posinf=0.0, neginf=0.0), -FARTHEST, FARTHEST)

    def totals(self, points: Sequence[Point]) -> Array:
        """The sum of a point's scores [points]."""
        return np.asarray(self.rows(points).sum(axis=1))

    def keep_their_promise(self, told: Sequence[Told]) -> bool:
        """Whether there are scores, and trials do not say that they mislead: of pairs with clearly different scores the
        higher one is better in at least the share `HONEST`."""
        known = [row for row in told if row.values is not None]
        if not self._names or not known:
            return bool(self._names)
        totals, values = self.totals([row.point for row in known]), np.array([row.values[0] for row in known if row.values])
        apart = totals[:, None] - totals[None] > CLEARLY * len(self._names)
        right = (values[:, None] < values[None]) & apart
        return bool(apart.sum() < ENOUGH or right.sum() >= HONEST * apart.sum())

    def _raw(self, point: Point) -> list[float]:
        if not self._names:
            return []
        key = self._key(point)
        if key not in self._known:
            found = self._proxies(point)
            self._known[key] = [float(found[name]) for name in self._names]
        return self._known[key]

    def _scaled(self, raw: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.where(self._is_log, np.log(np.maximum(raw, 1e-300)), raw)


# ---- the model ----


@dataclass
class Memo:
    """What is kept between suggestions: only answers that would come out the same again."""

    encoding: Encoding = field(default_factory=Encoding)
    learned: Sequence[Told] = ()
    folded: dict[int, tuple[Point, Point]] = field(default_factory=dict)
    processes: dict[str, Kept] = field(default_factory=dict)


@dataclass
class Kept:
    """A process of the first rows, what it was made of, and the same with the first of further rows."""

    made_of: tuple[Any, ...]
    rows: list[int]
    base: Process
    further: list[tuple[int, int]]
    extended: Process


class Model:
    """What is expected of points: a process for each objective and each constraint."""

    def __init__(self, problem: Problem, told: Sequence[Told], settings: Surrogate) -> None:
        self.problem, self.told, self.settings = problem, told, settings
        self.scores = Scores.of(problem)
        self.memo: Memo = problem.memo.setdefault("surrogate", Memo())
        self._learn(told)
        self.objectives = [Belief(self, evidence, SLOPE if place == 0 else 0.0) for place, evidence in enumerate(objectives_of(told))]
        self.constraints = [Belief(self, evidence, 0.0) for evidence in constraints_of(told)]

    def _learn(self, told: Sequence[Told]) -> None:
        """Folds the points of new trials, and adds columns for parameters that no earlier one had."""
        folded, known = self.memo.folded, self.memo.learned
        for row in told[len(known) :] if follows(told, known) else told:
            if row.number not in folded or folded[row.number][0] is not row.point:
                folded[row.number] = (row.point, self.problem.fold(row.point))
                self.memo.encoding.learn(folded[row.number][1])
        self.memo.learned = told
        self.running = [folded[row.number][1] for row in told if row.values is None and is_running(row)]

    def leaders(self) -> list[Point]:
        """The points of the best trials: feasible ones by their expected value, with several objectives by their rank."""
        if len(self.objectives) > 1:
            return [row.point for row in ranked(self.told)[: self.settings.leaders]]
        known = self.objectives[0].at_trials
        orders = [row.number for row, _ in known], [value for _, value in known], [row.violation for row, _ in known]
        return [known[place][0].point for place in np.lexsort(orders)[: self.settings.leaders]]

    def acquisition(self, rng: Random) -> Promise:
        """What points promise, the more the better."""
        draws = [rng.expovariate(1.0) for _ in self.objectives]
        weights = [draw / sum(draws) for draw in draws]
        best = self._best()

        def promise(points: Sequence[Point]) -> Array:
            seen = [belief.at(points) for belief in self.constraints]
            kept = np.zeros(len(points))
            for belief, (mean, deviation) in zip(self.constraints, seen):
                kept += CAUTION * log_ndtr((belief.threshold - mean) / deviation)
            if len(best) < len(self.objectives):
                return kept
            found = [belief.at(points) for belief in self.objectives]
            if len(found) == 1:
                return kept + log_improvement(best[0], *found[0])
            away = np.array([w * (mean - deviation - b) for w, b, (mean, deviation) in zip(weights, best, found)])
            return np.asarray(kept - away.max(axis=0) - AUGMENTED * away.sum(axis=0))

        return promise

    def _best(self) -> list[float]:
        """For each objective the lowest expected value of a feasible trial; empty if there is none."""
        lows = [min((value for row, value in belief.at_trials if row.violation == 0), default=None) for belief in self.objectives]
        return [low for low in lows if low is not None]


class Belief:
    """What a process says of one objective or constraint; `slope` is by how much scores are believed to lower it."""

    def __init__(self, model: Model, evidence: Evidence, slope: float) -> None:
        self._model, self._evidence, self._slope = model, evidence, slope
        self._columns = (*model.memo.encoding.columns, *([evidence.column] if evidence.column else []))
        self._kept = self._base()
        self._process, chosen = self._extended()
        values, self.threshold = evidence.standardised()
        self._values = values[chosen]
        self._chosen = chosen
        self._coefficients = self._process.coefficients(self._values)
        running = self._rows(model.running, None)
        self._with_running = self._process.extended(running) if len(running) else self._process

    def at(self, points: Sequence[Point]) -> tuple[Array, Array]:
        """Expected values at a full evaluation and their standard deviations."""
        return self._with_running.expected(self._coefficients, self._rows(points, None))

    @cached_property
    def at_trials(self) -> list[tuple[Told, float]]:
        """Trials that the process has seen and that did not fail, with their expected value at a full evaluation."""
        evidence, last = self._evidence, len(self._evidence.fidelities) - 1
        shown = self._process.smoothed(self._coefficients, self._values).tolist()
        rows = [(evidence.told[i], value) for i, value in zip(self._chosen, shown) if evidence.places[i] >= last]
        if last > 0:
            there = {row.number for row, _ in rows}
            partial = {row.number: row for row in (evidence.told[i] for i in self._chosen) if row.number not in there}
            means, _ = self.at([self._model.memo.folded[number][1] for number in partial])
            rows += zip(partial.values(), means.tolist())
        return [(row, value) for row, value in rows if row.state is not TrialState.FAIL]

    def _rows(self, points: Sequence[Point], places: Sequence[int] | None) -> Rows:
        """Points, already folded, at the places of fidelities (None: full evaluations)."""
        return Rows.of(self._columns, self._levels(points, places), self._model.scores.rows(points))

    def _levels(self, points: Sequence[Point], places: Sequence[int] | None) -> Levels:
        levels = self._model.memo.encoding.rows(points)
        if len(self._columns) == levels.shape[1]:
            return levels
        last = self._columns[-1].size
        return np.column_stack([levels, np.full(len(points), last) if places is None else np.array(places, dtype=np.intp) + 1])

    def _of(self, chosen: Sequence[int]) -> tuple[list[Point], list[int]]:
        evidence, folded = self._evidence, self._model.memo.folded
        return [folded[evidence.told[i].number][1] for i in chosen], [evidence.places[i] for i in chosen]

    def _base(self) -> Kept:
        """The process of the first rows: those there were when the kernel was last to be fitted."""
        evidence = self._evidence
        count = first_rows(evidence)
        made_of = (evidence.told[:count], evidence.fidelities, len(self._columns))
        kept = self._model.memo.processes.get(evidence.name)
        if kept is None or kept.made_of != made_of:
            kept = self._made(count, made_of)
            self._model.memo.processes[evidence.name] = kept
        return kept

    def _made(self, count: int, made_of: tuple[Any, ...]) -> Kept:
        values, _ = self._evidence.first(count).standardised()
        rows = best_and_latest(values, PARTIAL if self._evidence.fidelities else self._model.settings.most)
        points, places = self._of(rows)
        seen = self._rows(points, places)
        few = spread(values[rows], FITTED)
        kernel = fitted(self._columns, self._levels(points, places)[few], unexplained(seen[few], values[rows][few], self._slope))
        base = Process(replace(kernel, slope=self._slope), seen)
        return Kept(made_of, rows, base, [], base)

    def _extended(self) -> tuple[Process, list[int]]:
        """The process of all rows, and which they are; made in blocks, so that it is the same however it came about."""
        kept, evidence = self._kept, self._evidence
        later = list(range(first_rows(evidence), len(evidence)))
        ids = [(evidence.told[i].number, evidence.places[i]) for i in later]
        whole = len(later) // BLOCK * BLOCK
        if kept.further != ids[: len(kept.further)]:
            kept.further, kept.extended = [], kept.base
        for start in range(len(kept.further), whole, BLOCK):
            kept.extended = kept.extended.extended(self._rows(*self._of(later[start : start + BLOCK])))
        kept.further = ids[:whole]
        process = kept.extended.extended(self._rows(*self._of(later[whole:]))) if later[whole:] else kept.extended
        return process, kept.rows + later


def first_rows(evidence: Evidence) -> int:
    """How many rows there were when the kernel was last to be fitted: those of the first 2, 4, 6, ... trials."""
    told = evidence.told
    starts = range(len(told)) if not evidence.fidelities else [i for i, row in enumerate(told) if i == 0 or row is not told[i - 1]]
    due = 2
    while (step := due + min(LONGEST, max(2, int((GROWTH - 1) * due)))) <= len(starts):
        due = step
    return starts[due] if due < len(starts) else len(evidence)


def best_and_latest(values: Array, most: int) -> list[int]:
    """Places of at most `most` values: half of them the lowest, the rest the last of the others; in order."""
    if len(values) <= most:
        return list(range(len(values)))
    best = np.argsort(values, kind="stable")[: most // 2].tolist()
    others = sorted(set(range(len(values))) - set(best))
    return sorted(best + others[-(most - len(best)) :])


def spread(values: Array, most: int) -> list[int]:
    """Places of at most `most` values: half of them the lowest, the others evenly spread over the rest; in order."""
    order = np.argsort(values, kind="stable")
    if len(order) <= most:
        return list(range(len(order)))
    rest = order[most // 2 :]
    return sorted([*order[: most // 2].tolist(), *rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(int)].tolist()])


def unexplained(rows: Rows, values: Array, slope: float) -> Array:
    """Values less what straight lines through the scores explain, drawn towards what is believed of them."""
    features = rows.features
    count = features.shape[1]
    if not count:
        return values
    towards = np.full(count, -slope / count)
    pull = count / SLOPE_SPREAD**2 * np.eye(count)
    return np.asarray(values - features @ np.linalg.solve(features.T @ features + pull, features.T @ values + pull @ towards))


def log_improvement(best: float, means: Array, deviations: Array) -> Array:
    """Logarithm of the expected improvement below `best`; far out by its asymptote, where the difference of its terms is lost."""
    away = (best - means) / deviations
    near = np.maximum(away, -FAR)
    close = np.log(np.exp(-0.5 * near**2) / math.sqrt(2 * math.pi) + near * ndtr(near))
    far = -0.5 * away**2 - math.log(math.sqrt(2 * math.pi)) - 2 * np.log(np.maximum(-away, 1.0))
    return np.asarray(np.log(deviations) + np.where(away < -FAR, far, close))
