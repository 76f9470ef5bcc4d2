"""What can be said of a search's settings before anything is started: in well under a second, without torch.

A search judges its settings itself when it begins. Before that a server is started, torch is imported and data are
read: a mistake that needs none of them should not cost the user that wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from components.artifacts import JSON, DatasetVersion
from components.budget import seconds_of
from components.build import allow, build
from components.data.target import TASKS
from components.errors import UsageError
from components.models.choices import listed, share
from components.models.declared import declared
from components.search.compatibility import check, name_of
from components.search.kept import most_kept
from components.search.partners import url_of
from components.search.plan import check_rows, scores_of, settled_objectives
from components.search.target import num_rounds, targets_of
from components.search.warm_start import most_starts

SHARES = ("dropout", "label_smoothing")  # settings of every network space, shares of 1
TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
    "str": ("a name", (str,)),
}


def preview(config: JSON, dataset: DatasetVersion | None = None) -> None:
    """Raises `UsageError` for a mistake in what a search reads; without its data set, for what is wrong whatever the task."""
    for package in config.get("plugins") or ():
        allow(package)
    _check_partner(config["strategy"])
    tasks = (dataset.task,) if dataset else TASKS
    mistakes = [mistake for task in tasks if (mistake := _mistake_for(task, config))]
    if len(mistakes) == len(tasks):
        raise mistakes[0]
    check_rows(config, dataset)
    _check_settings(config["space"])
    _check_rounds(config)
    most_starts(config)
    most_kept(config)
    seconds_of(config["search"].get("trial_seconds"))
    if config["search"].get("storage"):
        url_of(config["search"]["storage"])


def _check_partner(strategy: JSON) -> None:
    """The strategy that searches for another one (`strategy.by`): it names its settings as if it were the only one."""
    node = strategy.get("by")
    if isinstance(node, Mapping) and "_target_" in node:
        try:
            build(node)
        except UsageError as mistake:
            raise UsageError(re.sub(r"(?<![\w.])strategy\.", "strategy.by.", str(mistake))) from mistake


def _check_settings(space: JSON) -> None:
    """The settings of a space of ours by their types; which names and numbers it can do with it says itself, with torch."""
    found = declared(str(space.get("_target_")))
    for name, kind in found.settings.items() if found else ():
        if name in SHARES and name in space:
            share(f"space.{name}", space[name])
        elif name in space:
            _check_type(f"space.{name}", space[name], kind)


def _check_type(key: str, value: Any, annotation: str) -> None:
    """Of a type, or of a sequence of it, whose choices are there once each; of other annotations nothing is known."""
    sequence = re.fullmatch(r"Sequence\[(\w+)\]", annotation)
    words, types = TYPES.get(sequence[1] if sequence else annotation, ("", ()))
    for one in listed(key, value) if sequence else [value]:
        if types and type(one) not in types:
            raise UsageError(f"{f'each of {key}' if sequence else key} must be {words}, got {one!r}")


def _check_rounds(config: JSON) -> None:
    """`rounds`, and that there is what they aim at."""
    rounds = num_rounds(config)
    if rounds > 1 and all(value is None for value in (config.get("target") or {}).values()):
        raise UsageError(f"rounds={rounds} aim at a target and none is set; add one, such as target.accuracy=0.99, or set rounds=1")


def _check_targets(config: JSON, targets: JSON) -> None:
    """That the evaluator measures what is to be reached."""
    scores = scores_of(config)
    if unmeasured := [name for name in targets if scores and name not in scores]:
        given = f"evaluator={name_of(config, 'evaluator')} gives {', '.join(scores)}"
        raise UsageError(f"target.{unmeasured[0]} can never be met: {given}; choose evaluator=train or target.{unmeasured[0]}=null")


def _mistake_for(task: str, config: JSON) -> UsageError | None:
    try:
        objectives, _ = settled_objectives(config, task)
        _check_targets(config, targets_of(config, task))
        build(config["scheduler"])
        check(config, num_objectives=len(objectives))
    except UsageError as mistake:
        return mistake
    return None
