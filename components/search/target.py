"""A target that is not met gets a diagnosis, and another round that is aimed by it.

`target.accuracy=0.99 rounds=3`: after each round the best trial's validation metrics are compared with the target. What
stands in the way is read from its learning curve and its classes; the next round changes what that calls for (larger
or smaller networks, longer training, more or less regularisation, weights for a class) and starts from the best
candidates so far. The time that is left is shared among the rounds that are left.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import metrics
from components.artifacts import JSON, DatasetVersion, SearchResult, Trial
from components.errors import StageFailedError, UnknownNameError, UsageError
from components.search.failures import NoTimeError
from components.search.plan import Plan, direction_of
from components.search.ranking import best_of, chosen_of, front_of, violation
from components.workspace import Workspace

GROWTH = 1.5  # factor from round to round on what makes networks larger
GAP = 2.0  # validation loss over training loss from which a trial counts as over-fitted
STILL_FALLING = 0.05  # share by which the training loss fell over the last third of an unfinished training
BAD_CLASS = 0.6  # share of the errors that one class has where it counts as the one bad class


@dataclass(frozen=True)
class Diagnosis:
    """What stands in the way: `under-fit`, `over-fit`, `one bad class` or `too slow`, in a sentence, and the changes it calls for."""

    kind: str
    words: str
    aim: str
    changes: Callable[[JSON], JSON]


def targets_of(config: JSON, task: str) -> dict[str, float]:
    """The targets that are set. Raises `UsageError`."""
    targets, found = config.get("target"), {}
    if not isinstance(targets, Mapping | None):
        raise UsageError(f"target holds values by the metric's name, got {targets!r}; write target.{metrics.names(task)[0]}={targets}")
    for name, value in (targets or {}).items():
        if value is None:
            continue
        if name not in metrics.names(task):
            raise UnknownNameError("target", name, metrics.names(task))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"target.{name} must be a number, got {value!r}")
        if value > 1.0 if metrics.direction(name) == "maximize" else value < 0.0:
            raise UsageError(f"target.{name} must be {'at most 1' if value > 1.0 else 'at least 0'}, which is perfect, got {value!r}")
        found[name] = float(value)
    return found


def num_rounds(config: JSON) -> int:
    """`rounds`, at least 1. Raises `UsageError`."""
    rounds = config.get("rounds", 1)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise UsageError(f"rounds must be a whole number of at least 1, got {rounds!r}")
    return rounds


def in_rounds(plan: Plan, folder: Path, work: Workspace, run: Callable[[Plan, Path], SearchResult]) -> SearchResult:
    """Runs one study, or several until the target is met or the rounds are used up; the trials of all, and the best of them.

    A round that comes to nothing takes nothing from those before it. If it is the first, and for want of time, the next
    one asks the same again. Raises what `run` raises where nothing was found.
    """
    targets, most = targets_of(plan.config, plan.dataset.task), num_rounds(plan.config)
    if not targets:
        return run(plan, folder)
    total, found, told = work.seconds, [], []  # type: tuple[float | None, list[SearchResult], list[JSON]]
    for number in range(1, most + 1):
        _share_out(work, total, most - number + 1)
        try:
            found.append(_as_candidates(run(plan, place_of(folder, number)), plan))
        except (StageFailedError, NoTimeError) as error:
            if not found and (number == most or not isinstance(error, NoTimeError)):
                raise
            told.append(_came_to_nothing(number, targets, sum(len(result.trials) for result in found), error))
            work.emit("search.round", **told[-1])
            if found:
                break
            plan = plan.aimed(plan.config, number + 1)
            continue
        best = merged(found, plan).best_trial
        row: JSON = {"round": number, "target": targets, "reached": {name: best.values.get(name) for name in targets}}
        row |= {"met": met(best, targets), "first": sum(len(result.trials) for result in found[:-1])}
        told.append(row)
        if not row["met"]:
            diagnosis = diagnose(best, plan)
            row |= {"diagnosis": diagnosis.kind, "words": diagnosis.words, "aim": diagnosis.aim if number < most else ""}
        work.emit("search.round", **row)
        if row["met"] or number == most:
            break
        plan = plan.aimed(diagnosis.changes(plan.config), number + 1)
    return merged(found, plan).replace(rounds=tuple(told))


def _came_to_nothing(number: int, targets: dict[str, float], first: int, error: Exception) -> JSON:
    return {
        "round": number, "target": targets, "reached": {}, "met": False, "first": first, "diagnosis": "no result",
        "words": str(error), "aim": "",
    }  # fmt: skip


def _as_candidates(result: SearchResult, plan: Plan) -> SearchResult:
    """A round's result whose candidates say what their round changed of the training, so that the full one does the same."""
    weights = (plan.config.get("training") or {}).get("class_weights")
    if plan.round == 1 or not weights:
        return result
    trials = [
        trial.replace(candidate=trial.candidate.replace(hyperparameters={**trial.candidate.hyperparameters, "class_weights": weights}))
        for trial in result.trials
    ]
    return result.replace(trials=tuple(trials))


def place_of(folder: Path, number: int) -> Path:
    """Where the study of a round lies: the first in the folder itself, the others below it."""
    return folder if number == 1 else folder / f"round{number}"


def shelf_of(folder: Path) -> Path:
    """The folder that studies lie in, from that of any round."""
    return folder.parent.parent if re.fullmatch(r"round\d+", folder.name) else folder.parent


def _share_out(work: Workspace, total: float | None, rounds_left: int) -> None:
    if total is not None:
        gone = time.monotonic() - work.started
        work.seconds = gone + max(0.0, total - gone) / rounds_left


def met(trial: Trial, targets: dict[str, float]) -> bool:
    """Whether a trial's validation metrics reach every target."""
    return not violation(trial) and all(
        name in trial.values and (trial.values[name] <= value if metrics.direction(name) == "minimize" else trial.values[name] >= value)
        for name, value in targets.items()
    )


def merged(found: list[SearchResult], plan: Plan) -> SearchResult:
    """One result of several rounds: trials are numbered on."""
    if len(found) == 1:
        return found[0]
    trials: list[Trial] = []
    for result in found:
        offset = len(trials)
        trials += [trial.replace(number=offset + place) for place, trial in enumerate(result.trials)]
    first = found[0]
    best = best_of(trials, first.objective, first.direction)
    assert best is not None
    if not first.objectives or violation(best):
        return first.replace(trials=tuple(trials), best_number=best.number)
    front = front_of(trials, first.objectives, first.directions)
    best = chosen_of(front, first.objectives, first.directions)
    return first.replace(trials=tuple(trials), best_number=best.number, front=tuple(trial.number for trial in front))


def diagnose(trial: Trial, plan: Plan) -> Diagnosis:
    """What stands in the way of the target, from the best trial's limits, classes and learning curve."""
    return _too_slow(trial, plan) or _one_bad_class(trial, plan) or _over_fit(trial, plan) or _under_fit(trial, plan)


def _too_slow(trial: Trial, plan: Plan) -> Diagnosis | None:
    from_above = [name for name in trial.constraints if direction_of(name) == "minimize"]
    near = [name for name in from_above if trial.constraints[name] > -0.05 * plan.constraints[name]]
    if not near:
        return None
    if missed := [name for name in near if trial.constraints[name] > 0]:
        words = f"no trial meets constraint.{missed[0]}={plan.constraints[missed[0]]:g}, the closest has {trial.values[missed[0]]:.4g}"
        return Diagnosis("too slow", words, "smaller networks", lambda c: sized(c, 1 / GROWTH))
    words = f"the best trial is at the limit of constraint.{near[0]}={plan.constraints[near[0]]:g}"
    return Diagnosis("too slow", words, "smaller networks, trained longer", lambda c: longer(sized(c, 1 / GROWTH), plan))


def _one_bad_class(trial: Trial, plan: Plan) -> Diagnosis | None:
    bad = _bad_class(trial, plan.dataset)
    if bad is None:
        return None
    name, recall, share = bad
    words = f"class {name} has {share:.0%} of the errors (recall {recall:.3f})"
    index = plan.dataset.classes.index(name)
    return Diagnosis("one bad class", words, f"twice the weight for class {name} in the loss", lambda c: weighted(c, index))


def _over_fit(trial: Trial, plan: Plan) -> Diagnosis | None:
    train, validation = _losses(trial)
    if train is None or validation is None or validation <= GAP * train:
        return None
    words = f"validation loss {validation:.4g} is {validation / max(train, 1e-9):.1f} times the training loss {train:.4g}"
    aim = "smaller networks, more dropout and label smoothing"
    return Diagnosis("over-fit", words, aim, lambda c: regularised(sized(c, 1 / GROWTH)))


def _under_fit(trial: Trial, plan: Plan) -> Diagnosis:
    (train, validation), falls = _losses(trial), _falling(trial)
    words = "training and validation do not come apart"
    if train is not None and validation is not None:
        words = f"training loss {train:.4g} is no better than validation loss {validation:.4g}" if train >= validation else (
            f"training loss {train:.4g} is close to validation loss {validation:.4g}"
        )  # fmt: skip
    words += f", and it still fell by {falls:.0%} over the last third" if falls > STILL_FALLING else ""
    aim = "larger networks, trained longer, less dropout"
    return Diagnosis("under-fit", words, aim, lambda c: longer(relaxed(sized(c, GROWTH)), plan))


def _losses(trial: Trial) -> tuple[float | None, float | None]:
    last = trial.history[-1] if trial.history else {}
    validation = last.get("log_loss", trial.values.get("log_loss"))
    return last.get("train_loss"), validation


def _falling(trial: Trial) -> float:
    curve = [row["train_loss"] for row in trial.history if "train_loss" in row]
    if len(curve) < 3 or curve[-len(curve) // 3] <= 0:
        return 0.0
    start = curve[-(len(curve) // 3) - 1]
    return float((start - curve[-1]) / start) if start > 0 else 0.0


def _bad_class(trial: Trial, dataset: DatasetVersion) -> tuple[str, float, float] | None:
    """The class that has most of the errors, its recall and its share of them; None if no class stands out."""
    rows = trial.history[-1].get("classes") if trial.history else None
    if not rows or len(rows) < 3:
        return None
    errors = [row["rows"] * (1.0 - row["recall"]) for row in rows]
    worst = max(range(len(errors)), key=lambda k: errors[k])
    if sum(errors) < 3 or errors[worst] < BAD_CLASS * sum(errors):
        return None
    return dataset.classes[worst], float(rows[worst]["recall"]), errors[worst] / sum(errors)


# ---- what a round changes: each takes a configuration and returns another ----


def sized(config: JSON, factor: float) -> JSON:
    """The space's settings that make networks larger (its `grows`), times `factor`: whole numbers stay whole, no list empties."""
    from components.build import build

    space = dict(config["space"])
    for name in getattr(build(space), "grows", ()):
        values = space.get(name) or list(getattr(build(space), name))
        space[name] = sorted({_scaled(value, factor) for value in values})
    return {**config, "space": space}


def _scaled(value: Any, factor: float) -> Any:
    if not isinstance(value, int):
        return value * factor
    changed = round(value * factor)
    return max(1, changed if changed != value or (value == 1 and factor < 1) else value + (1 if factor > 1 else -1))


def longer(config: JSON, plan: Plan) -> JSON:
    """Twice the epochs of a trial."""
    return {**config, "search": {**config["search"], "epochs": 2 * plan.rungs[-1]}}


def regularised(config: JSON) -> JSON:
    """Wider ranges of dropout and label smoothing."""
    return _bounded(config, {"dropout": (1.5, 0.6), "label_smoothing": (1.5, 0.2)})


def relaxed(config: JSON) -> JSON:
    """A narrower range of dropout."""
    return _bounded(config, {"dropout": (0.5, 0.6)})


def _bounded(config: JSON, factors: dict[str, tuple[float, float]]) -> JSON:
    space = {**config["space"]}
    for name, (factor, most) in factors.items():
        if name in space:
            space[name] = round(min(most, max(0.02, float(space[name])) * factor), 4)
    return {**config, "space": space}


def weighted(config: JSON, index: int) -> JSON:
    """Twice the weight of a class in the training loss."""
    training = dict(config.get("training") or {})
    weights = dict(training.get("class_weights") or {})
    weights[str(index)] = 2.0 * float(weights.get(str(index), 1.0))
    return {**config, "training": {**training, "class_weights": weights}}
