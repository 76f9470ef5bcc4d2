"""What of a training is searched beside its space's own hyper-parameters: the schedule, the loss, how a parent is fine-tuned,
and settings with several values.

A family with one choice, or a setting with one value, is no parameter of the search. A list is a choice of its entries,
a mapping with `low`, `high` and perhaps `log: true` a range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from components.artifacts import JSON, DatasetVersion
from components.build import build
from components.errors import UnknownNameError, UsageError
from components.models.interface import Suggest, choose
from components.settings import number

# By setting of `training`: the least, the most, and whether these ends are left out; None is allowed where it says `none`.
SEARCHED: dict[str, JSON] = {
    "ema": {"low": 0, "high": 1, "below": True},
    "clip": {"low": 0, "high": float("inf")},
    "l1": {"low": 0, "high": float("inf")},
    "stochastic_depth": {"low": 0, "high": 1, "below": True},
}


WEIGHTS_RULE = "training.class_weights maps class indices to positive numbers"


def training_program(dataset: DatasetVersion, config: JSON) -> Callable[[Suggest], JSON]:
    """What draws the hyper-parameters, as a strategy does many times a suggestion: what there is to choose is settled once.

    Raises `UsageError`.
    """
    families = {"schedule": sorted(config.get("schedule") or {})}
    families["loss"] = fitting(config["loss"], dataset.task) if config.get("loss") else []
    families["finetune"] = sorted(config["finetune"]) if config.get("parent") else []
    settings = {name: value for name, value in (config.get("training") or {}).items() if name in SEARCHED and is_searched(value)}

    def program(trial: Suggest) -> JSON:
        found: JSON = {family: choose(trial, f"hp.{family}", names) for family, names in families.items() if names}
        return found | {name: _drawn(trial, name, settings[name]) for name in SEARCHED if name in settings}

    return program


def fitting(losses: Mapping[str, JSON], task: str) -> list[str]:
    """The losses for a task, by name. Raises `UsageError` if there is none."""
    found = sorted(name for name, node in losses.items() if build(node).task == task)
    if not found:
        raise UsageError(f"loss must list one for {task}, got {', '.join(sorted(losses)) or 'none'}")
    return found


def is_searched(value: Any) -> bool:
    """Whether a setting names several values."""
    return isinstance(value, list | tuple | Mapping)


def _drawn(trial: Suggest, name: str, value: Any) -> float:
    if not isinstance(value, Mapping):
        return choose(trial, f"hp.{name}", list(value))
    return trial.suggest_float(f"hp.{name}", float(value["low"]), float(value["high"]), log=bool(value.get("log", False)))


def settled(training: JSON, hyperparameters: JSON) -> JSON:
    """The settings of one training: a candidate's own where they were searched, else the one value. Raises `UsageError`."""
    own = (*SEARCHED, "class_weights")  # those of a round of a search that was aimed at a class
    found = {**training, **{name: hyperparameters[name] for name in own if name in hyperparameters}}
    for name, rule in SEARCHED.items():
        if is_searched(found.get(name)):
            raise UsageError(f"training.{name} names several values and the candidate none of them; give one value, got {found[name]}")
        if name in found:
            found[name] = number(f"training.{name}", found[name], **rule)
    return found


def mistakes(training: JSON) -> list[str]:
    """What is wrong with the searched settings, a sentence each."""
    found = []
    for name, rule in SEARCHED.items():
        try:
            for value in _values(name, training.get(name, rule["low"])):
                number(f"training.{name}", value, **rule)
        except UsageError as error:
            found.append(str(error))
    weights = (training.get("class_weights") or {}).items()
    return found + [f"{WEIGHTS_RULE}, got {index}: {weight}" for index, weight in weights if not is_weight(index, weight)]


def is_weight(index: Any, weight: Any) -> bool:
    """Whether this can be the weight of a class in the loss, by its index."""
    return str(index).isdigit() and isinstance(weight, int | float) and not isinstance(weight, bool) and weight > 0


def _values(name: str, value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        wrong = set(value) - {"low", "high", "log"}
        if wrong:
            raise UnknownNameError(f"training.{name}", sorted(wrong)[0], ["low", "high", "log"])
        if not {"low", "high"} <= set(value) or not value["low"] < value["high"] or (value.get("log") and not value["low"] > 0):
            raise UsageError(f"training.{name} as a range needs low below high, above 0 with log, got {dict(value)}")
        return [value["low"], value["high"]]
    if isinstance(value, list | tuple):
        if not value:
            raise UsageError(f"training.{name} must be a number, a list of some or a range, got an empty list")
        return list(value)
    return [value]
