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

from components.models.interface import Suggest
from components.models.points import Point, Points
from components.search.effects import Judgements
from components.search.paths import fair_paths
from components.search.problem import PointSampler, Problem, Told, keys_of, ranked, unseen
from components.search.supernet import Derived, derived_of

if TYPE_CHECKING:
    from components.search.supernet_training import Data, Forward

DRAWS, WIDTH, ROUNDS = 500, 40, 20  # the search for the points of highest score: where it starts, how wide, how long
BEST, TRIES = 5, 10  # trials whose changes are proposed, and changes compared by the supernet
FROM_BEST = 0.7  # of the suggestions take their hyper-parameters from one of the best trials
ARCHITECTURE = "arch."  # how the names of a space's parameters begin


# ---- deriving, in the process that trained the supernet ----


def judge(data: Data, forward_of: Callable[[Point], Forward], program: Callable[[Suggest], Any], *, views: int, seed: int) -> Judgements:
    """Every judged row seen by `views` candidates, each of them with a batch of rows."""
    import torch

    from components.search.supernet_training import JUDGED_BATCH
    from components.training.batches import seed_of

    found, count = Judgements(), len(data.judged)
    chunks = math.ceil(count / JUDGED_BATCH)
    generator = torch.Generator().manual_seed(seed_of(seed, "judged rows"))
    points = fair_paths(program, views * chunks, Random(seed_of(seed, "judges")))
    for _ in range(views):
        for rows in torch.randperm(count, generator=generator).tensor_split(chunks):
            point = next(points)
            found.add(point, rows.numpy(), data.worth(forward_of(point), rows).numpy())
    return found


def highest(
    program: Callable[[Suggest], Any],
    score: Callable[[Mapping[str, Any]], float],
    count: int,
    *,
    key: Callable[[Any], Hashable],
    allowed: Callable[[Point], bool] = lambda point: True,
) -> list[Point]:
    """The `count` points of highest score with different keys (of what the program makes of them), the best first.

    Starts from the best of many draws and walks over their neighbours; exact for a sum of effects of single choices.
    """
    rng, points = Random(0), Points(program)
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
