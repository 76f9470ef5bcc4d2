"""From a trained supernet to candidates: judge many of its candidates on rows held out, find what each choice is worth,
and list the best; and the sampler that suggests what was derived.

The derived candidates become ordinary trials, each with hyper-parameters drawn or taken from the best trials. After
them come changes of the best trials, those first that the supernet holds worth most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from components.artifacts import canonical_json
from components.models.interface import Suggest
from components.models.points import Point, Points
from components.search.effects import Judgements, effects_of
from components.search.paths import fair_paths
from components.search.problem import PointSampler, Problem, Told, keys_of, ranked, unseen
from components.search.supernet import Derived, derived_of

if TYPE_CHECKING:
    from components.search.supernet_data import Data, Forward

DRAWS, WIDTH, ROUNDS = 500, 40, 20  # the search for the points of highest score: where it starts, how wide, how long
BEST, TRIES = 5, 10  # trials whose changes are proposed, and changes compared by the supernet
FROM_BEST = 0.7  # of the suggestions take their hyper-parameters from one of the best trials
JUDGED_BATCH = 128  # rows whose statistics normalise each other when candidates are judged
ARCHITECTURE = "arch."  # how the names of a space's parameters begin


# ---- deriving, in the process that trained the supernet ----


def derive(
    supernet: Any,
    space: Any,
    data: Data,
    *,
    views: int,
    count: int,
    seed: int,
    allowed: Callable[[Point], bool] = lambda point: True,
) -> Derived:
    """What each choice is worth, and the `count` candidates that are worth most, as the parameters the supernet knows."""

    def program(trial: Suggest) -> Any:
        return space.sample(trial, data.dataset)

    found = judge(data, lambda point: lambda *inputs: supernet(point.value, *inputs), program, views=views, seed=seed)
    known = getattr(supernet, "choices", None)  # the others (width, length) are those of the skeleton in every candidate
    effects = effects_of(found if known is None else found.restricted(known))
    points = highest(program, Derived(effects.by_value, ()).score, count, key=_key_of(space), known=known, allowed=allowed)
    return Derived(effects.by_value, tuple(_known(point, known) for point in points), effects.figures())


def _known(point: Point, known: Sequence[str] | None) -> dict[str, Any]:
    return {name: value for name, value in point.params.items() if known is None or name in known}


def _key_of(space: Any) -> Callable[[Any], Hashable]:
    return space.key if hasattr(space, "key") else canonical_json


def judge(data: Data, forward_of: Callable[[Point], Forward], program: Callable[[Suggest], Any], *, views: int, seed: int) -> Judgements:
    """Every judged row seen by `views` candidates, each of them with a batch of rows."""
    import torch

    from components.training.batches import seed_of

    found, count = Judgements(), len(data.judged)
    chunks = math.ceil(count / JUDGED_BATCH)
    generator = torch.Generator().manual_seed(seed_of(seed, "judged rows"))
    points = fair_paths(program, views * chunks, Random(seed_of(seed, "judges")))
    for _ in range(views):
        for rows in torch.randperm(count, generator=generator).tensor_split(chunks):
            point = next(points)
            with torch.no_grad():
                worth = data.worth(forward_of(point), *data.judged.at(rows))
            found.add(point, rows.numpy(), worth.numpy())
    return found


def highest(
    program: Callable[[Suggest], Any],
    score: Callable[[Mapping[str, Any]], float],
    count: int,
    *,
    key: Callable[[Any], Hashable],
    known: Sequence[str] | None = None,
    allowed: Callable[[Point], bool] = lambda point: True,
) -> list[Point]:
    """The `count` points of highest score with different keys (of what the program makes of them), the best first.

    Starts from the best of many draws and walks over their neighbours. Parameters that are not `known` keep the values of
    one first draw.
    """
    rng = Random(0)
    fixed = {name: value for name, value in Points(program).draw(rng).params.items() if known is not None and name not in known}
    points = Points(lambda trial: program(_Fixed(trial, fixed)))
    best: dict[Hashable, Point] = {}
    _keep(best, (points.draw(rng) for _ in range(DRAWS)), score, key, allowed, WIDTH + count)
    expanded: set[Hashable] = set()
    for _ in range(ROUNDS):
        fresh = [point for name, point in best.items() if name not in expanded]
        expanded.update(best)
        if not fresh:
            break
        _keep(best, (n for point in fresh for n in points.neighbours(point, rng)), score, key, allowed, WIDTH + count)
    return list(best.values())[:count]


class _Fixed:
    """A `Suggest` in which some parameters have a value already and are not drawn."""

    def __init__(self, trial: Suggest, fixed: Mapping[str, Any]) -> None:
        self._trial, self._fixed = trial, fixed

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._fixed[name] if name in self._fixed else self._trial.suggest_categorical(name, choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        found: int = self._fixed[name] if name in self._fixed else self._trial.suggest_int(name, low, high, step=step, log=log)
        return found

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        found: float = self._fixed[name] if name in self._fixed else self._trial.suggest_float(name, low, high, step=step, log=log)
        return found


def _keep(
    best: dict[Hashable, Point],
    points: Iterable[Point],
    score: Callable[[Mapping[str, Any]], float],
    key: Callable[[Any], Hashable],
    allowed: Callable[[Point], bool],
    most: int,
) -> None:
    """Takes points into `best` and leaves the `most` best of it, in order; of equals with one key the better."""
    for point in points:
        name = key(point.value)
        if allowed(point) and (name not in best or score(point.params) > score(best[name].params)):
            best[name] = point
    ordered = sorted(best.items(), key=lambda item: -score(item[1].params))[:most]
    best.clear()
    best.update(ordered)


# ---- suggesting, from the file alone ----


class DerivedSampler(PointSampler):
    """Suggests the derived candidates in their order, then changes of the best trials."""

    def next_point(self, problem: Problem, told: Sequence[Told], rng: Random) -> Point:
        derived = derived_of(problem.supernet) if problem.supernet else Derived({}, ())
        best = ranked(told)[:BEST]
        given = next((given for given in derived.candidates if not _was_tried(given, told)), None)
        if given is not None:
            return unseen(problem, told, lambda: problem.points.draw(rng, {**_hyperparameters(best, rng), **given}))
        if not best:
            return unseen(problem, told, lambda: problem.points.draw(rng))
        seen = keys_of(problem, told)
        changed = [problem.points.mutate(rng.choice(best).point, rng) for _ in range(TRIES)]
        fresh = [point for point in changed if problem.key(point) not in seen]
        if not fresh:
            return unseen(problem, told, lambda: problem.points.mutate(rng.choice(best).point, rng, 2))
        return max(fresh, key=lambda point: derived.score(point.params))


def _was_tried(given: Mapping[str, Any], told: Sequence[Told]) -> bool:
    return any(all(row.point.params.get(name) == value for name, value in given.items()) for row in told)


def _hyperparameters(best: Sequence[Told], rng: Random) -> dict[str, Any]:
    """Those of one of the best trials, mostly; else none, so that they are drawn."""
    if not best or rng.random() >= FROM_BEST:
        return {}
    chosen = rng.choice(best).point.params
    return {name: value for name, value in chosen.items() if not name.startswith(ARCHITECTURE)}
