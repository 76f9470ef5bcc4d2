"""Warm start: the best candidates of earlier studies on the same or a similar dataset are tried first.

Every study leaves `best.json` in its folder when it ends. A new one looks through those beside it: studies of the same
modality, task and objective count, the nearer their dataset the more (Feurer, Springenberg and Hutter, "Initializing
Bayesian Hyperparameter Optimization via Meta-Learning", AAAI 2015). A candidate is taken over parameter by parameter, so
that a space which has changed since takes what it still knows and draws the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import JSON, DatasetVersion, Trial
from components.errors import UsageError
from components.search.ranking import values_of, violation
from components.store import write_atomically

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from components.search.plan import Plan

KEPT = 5  # candidates that a study leaves
FARTHEST = 2.0  # datasets farther apart than this have nothing to say to each other; 1 is a factor of ten in their rows


@dataclass(frozen=True)
class Start:
    """Parameters to try first, and where they come from."""

    params: dict[str, Any]
    origin: str


def leave(folder: Path, plan: Plan, trials: Iterable[Trial], suggested: Mapping[int, FrozenTrial]) -> None:
    """Writes the study's best candidates for later studies."""
    fit = [t for t in trials if t.state == "complete" and not violation(t)]
    best = sorted(fit, key=lambda t: (values_of(t, plan.objectives, plan.directions), t.number))[:KEPT]
    rows = [{"params": suggested[t.number].params, "number": t.number, "value": t.values[plan.objective]} for t in best]
    body = {
        "study": plan.name, "name": plan.dataset.name, "dataset": plan.dataset.identity, "features": meta_features(plan.dataset),
        "question": _question(plan), "best": rows,
    }  # fmt: skip
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / "best.json", json.dumps(body))


def starts(plan: Plan, folder: Path, emit: Callable[..., Any]) -> list[Start]:
    """What a study begins with: decided when it is first asked, and kept for its resumes. Raises `UsageError`."""
    most = most_starts(plan.config)
    kept = folder / "warm_start.json"
    if (known := _read(kept)) is not None:
        return [Start(**row) for row in known["starts"]]
    found = find(plan, folder, most) if most else []
    write_atomically(kept, json.dumps({"starts": [{"params": s.params, "origin": s.origin} for s in found]}))
    if found:
        emit("search.warm_started", count=len(found), origins=[start.origin for start in found])
    return found


def most_starts(config: JSON) -> int:
    """`search.warm_start`: how many candidates of earlier studies are tried at most. Raises `UsageError`."""
    most = config["search"].get("warm_start", 0)
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise UsageError(f"search.warm_start is a number of candidates (0: none), got {most!r}")
    return most


def find(plan: Plan, folder: Path, most: int) -> list[Start]:
    """The best candidates of the nearest studies: each study's best before any study's second."""
    here = meta_features(plan.dataset)
    near: list[tuple[float, str, JSON]] = []
    for path in _places(folder.parent):
        left = _read(path) if path.parent != folder else None
        if left is None or left.get("question") != _question(plan) or left.get("study") == plan.name:
            continue
        away = 0.0 if left["dataset"] == plan.dataset.identity else meta_distance(here, left["features"])
        if away <= FARTHEST:
            near.append((away, str(left["study"]), left))
    near.sort(key=lambda row: row[:2])
    rows = [(place, order, row, left) for order, (_, _, left) in enumerate(near) for place, row in enumerate(left["best"])]
    rows.sort(key=lambda row: row[:2])
    return _distinct(Start(row["params"], f"trial {row['number']} of a study on {left['name']}") for _, _, row, left in rows)[:most]


def _places(studies: Path) -> list[Path]:
    """Where studies leave their best: beside each other, later rounds in folders of their study, a round's first study above it."""
    return [studies / "best.json", *sorted(studies.glob("*/best.json")), *sorted(studies.glob("*/round*/best.json"))]


def meta_features(dataset: DatasetVersion) -> dict[str, float]:
    """What two datasets are compared by, on logarithmic scales: rows, classes, inputs."""
    numbers = sum(math.prod(field.shape) for field in dataset.inputs)
    return {
        "rows": math.log10(max(dataset.splits["train"], 1)),
        "outputs": math.log10(max(dataset.num_outputs, 1)),
        "inputs": math.log10(max(numbers, 1)),
        "categorical": float(any(field.dtype == "int64" for field in dataset.inputs)),
    }


def meta_distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Sum of the differences; infinite if they do not list the same.

    >>> meta_distance({"rows": 3.0}, {"rows": 4.0})
    1.0
    """
    return sum(abs(one[name] - other[name]) for name in one) if set(one) == set(other) else math.inf


def _question(plan: Plan) -> JSON:
    return {"modality": plan.dataset.modality, "task": plan.dataset.task, "objective": plan.objective}


def _distinct(found: Iterable[Start]) -> list[Start]:
    """Each candidate once, where it comes first."""
    kept: dict[str, Start] = {}
    for start in found:
        kept.setdefault(json.dumps(start.params, sort_keys=True), start)
    return list(kept.values())


def _read(path: Path) -> JSON | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
