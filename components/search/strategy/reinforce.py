"""REINFORCE: a controller that draws candidates and is rewarded when they turn out well.

Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992; Zoph and Le,
"Neural Architecture Search with Reinforcement Learning", ICLR 2017. The controller is a categorical policy for each
parameter, followed along the space's conditions; numbers are drawn within equal parts of their range. A candidate's
reward is the share of the trials shortly before it that it beats, less the share that beat it, which needs no scale and
serves several objectives by dominance. A moving average of it is the baseline, an entropy bonus keeps the policy open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from components.models.points import Point, at, categorical, has_few, ranged, share_of, values_of
from components.search.problem import PointSampler, Problem, Told, unseen
from components.search.ranking import dominates
from components.settings import number, whole

PATIENCE = 5  # draws that were tried before, until the policy is followed half as closely
LARGEST = 3.0  # logit, up or down, so that no choice is ever ruled out: the likeliest is drawn at most 400 times as often

Logits = tuple[float, ...]


class Reinforce:
    """Uniform at first; every finished trial moves the policy by one step. Raises `UsageError` for numbers out of range."""

    learns = True
    objectives = "many"
    needs: frozenset[str] = frozenset()

    def __init__(
        self, *, learning_rate: float = 1.0, baseline: float = 0.9, entropy: float = 0.02, window: int = 50, levels: int = 8
    ) -> None:
        self.learning_rate = number("strategy.learning_rate", learning_rate, 0, above=True)
        self.baseline = number("strategy.baseline", baseline, 0, 1, below=True)
        self.entropy = number("strategy.entropy", entropy, 0)
        self.window, self.levels = whole("strategy.window", window, 1), whole("strategy.levels", levels, 1)

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return ReinforceSampler(seed, problem, self)


@dataclass(frozen=True)
class Policy:
    """What the controller has learned: a logit for each part of each parameter's range, and the moving average of rewards."""

    logits: dict[str, Logits] = field(default_factory=dict)
    baseline: float = 0.0


class ReinforceSampler(PointSampler):
    """The memo holds the policy after each trial, so that only trials that are new, or came late, are learned from."""

    def __init__(self, seed: int, problem: Problem | None, settings: Reinforce) -> None:
        super().__init__(seed, problem)
        self._settings = settings

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        policy = self.replay(told, problem.memo.setdefault("reinforce", []))
        attempts = iter(range(10**6))
        return unseen(problem, told, lambda: self._draw(problem, policy, rng, 0.5 ** (next(attempts) // PATIENCE)))

    def replay(self, told: Sequence[Told], learned: list[tuple[Told, Policy]]) -> Policy:
        """The policy after all trials that ended or were assessed, in order of their numbers. `learned`, which holds the
        policy after each, is brought up to date."""
        ended = [t for t in told if t.is_assessed or t.state is TrialState.FAIL]
        known = next((i for i, (a, (b, _)) in enumerate(zip(ended, learned)) if a is not b), min(len(ended), len(learned)))
        del learned[known:]
        for place in range(known, len(ended)):
            before = learned[-1][1] if learned else Policy()
            reward = reward_of(ended[place], ended[max(0, place - self._settings.window) : place])
            learned.append((ended[place], self._step(before, ended[place], reward)))
        return learned[-1][1] if learned else Policy()

    def _step(self, policy: Policy, trial: Told, reward: float) -> Policy:
        """The policy gradient of one trial, which is shared by all parameters that it has."""
        settings, logits = self._settings, dict(policy.logits)
        for name, value in trial.point.params.items():
            distribution = trial.point.distributions[name]
            count = parts(distribution, settings.levels)
            place = place_of(distribution, value, count)
            if count > 1 and place is not None:
                now = _logits(policy, name, count)
                logits[name] = ascended(now, place, reward - policy.baseline, settings.learning_rate, settings.entropy)
        return Policy(logits, settings.baseline * policy.baseline + (1 - settings.baseline) * reward)

    def _draw(self, problem: Problem, policy: Policy, rng: Random, sharpness: float) -> Point:
        controller = Controller(policy, rng, self._settings.levels, sharpness)
        value = problem.points.program(controller)
        return Point(controller.params, controller.distributions, value)


class Controller:
    """A `Suggest` that draws from the policy; `sharpness` below 1 draws from a flatter one."""

    def __init__(self, policy: Policy, rng: Random, levels: int, sharpness: float = 1.0) -> None:
        self._policy, self._rng, self._levels, self._sharpness = policy, rng, levels, sharpness
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, categorical(tuple(choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        found: int = self._take(name, IntDistribution(low, high, log=log, step=step))
        return found

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        found: float = self._take(name, ranged(low, high, log, step))
        return found

    def _take(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            count = parts(distribution, self._levels)
            chances = softmax([self._sharpness * logit for logit in _logits(self._policy, name, count)])
            place = self._rng.choices(range(count), chances)[0]
            self.distributions[name] = distribution
            self.params[name] = value_at(distribution, place, count, self._rng)
        return self.params[name]


def reward_of(trial: Told, before: Sequence[Told]) -> float:
    """In -1..1: the share of trials that this one beats, less the share that beat it; a failed one is beaten by all."""
    if not trial.is_assessed:
        return -1.0
    return sum(_beats(trial, other) - _beats(other, trial) for other in before) / max(len(before), 1)


def _beats(one: Told, other: Told) -> bool:
    if not one.is_assessed or not other.is_assessed:
        return one.is_assessed and not other.is_assessed
    if one.values is not None and other.values is not None:
        if one.violation or other.violation:
            return one.violation < other.violation
        return dominates(one.values, other.values)
    return _progress(one) < _progress(other)


def _progress(trial: Told) -> tuple[float, float]:
    """How far a trial came, which says that it was worth carrying on, and then its value; lower is better."""
    if not trial.steps:
        return -math.inf, trial.values[0] if trial.values else math.inf
    furthest = max(trial.steps)
    return -furthest, trial.values[0] if trial.values else trial.steps[furthest]


def ascended(logits: Logits, taken: int, advantage: float, rate: float, entropy: float) -> Logits:
    """One step up the gradient of advantage * log p(taken) + entropy * H(p), within bounds."""
    chances = softmax(logits)
    logs = [math.log(max(p, 1e-12)) for p in chances]
    disorder = -sum(p * log for p, log in zip(chances, logs))
    moved = (
        logit + rate * (advantage * ((place == taken) - p) - entropy * p * (log + disorder))
        for place, (logit, p, log) in enumerate(zip(logits, chances, logs))
    )
    return tuple(max(-LARGEST, min(LARGEST, logit)) for logit in moved)


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities in proportion to the exponentials."""
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def parts(distribution: BaseDistribution, levels: int) -> int:
    """Into how many parts a range is divided: each choice or each of a few whole numbers is its own."""
    if has_few(distribution):
        return len(values_of(distribution) or ())
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return 1 if distribution.low == distribution.high else levels


def place_of(distribution: BaseDistribution, value: Any, count: int) -> int | None:
    """The part of the range that a value lies in; None if it is not in the range."""
    if isinstance(distribution, CategoricalDistribution):
        return next((i for i, choice in enumerate(distribution.choices) if choice is value or choice == value), None)
    if isinstance(distribution, IntDistribution) and has_few(distribution):
        return (value - distribution.low) // distribution.step
    return min(count - 1, max(0, int(share_of(distribution, value) * count)))


def value_at(distribution: BaseDistribution, place: int, count: int, rng: Random) -> Any:
    """A value in a part of the range."""
    if has_few(distribution):
        return (values_of(distribution) or ())[place]
    return at(distribution, (place + rng.random()) / count)


def _logits(policy: Policy, name: str, count: int) -> Logits:
    """Those of a parameter; all equal if it was never met, or its range has changed since."""
    found = policy.logits.get(name, ())
    return found if len(found) == count else (0.0,) * count
