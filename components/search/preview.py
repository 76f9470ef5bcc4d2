"""What can be said of a search's settings before anything is started: in well under a second, without torch.

A search judges its settings itself when it begins. Before that a server is started, torch is imported and data are
read: a mistake that needs none of them should not cost the user that wait.
"""

from __future__ import annotations

from components.artifacts import JSON, DatasetVersion
from components.budget import seconds_of
from components.build import allow, build
from components.data.target import TASKS
from components.errors import UsageError
from components.models.choices import listed
from components.search.compatibility import check, name_of
from components.search.kept import most_kept
from components.search.partners import url_of
from components.search.plan import check_rows, scores_of, settled_objectives
from components.search.target import num_rounds, targets_of
from components.search.warm_start import most_starts


def preview(config: JSON, dataset: DatasetVersion | None = None) -> None:
    """Raises `UsageError` for a mistake in what a search reads; without its data set, for what is wrong whatever the task."""
    for package in config.get("plugins") or ():
        allow(package)
    tasks = (dataset.task,) if dataset else TASKS
    mistakes = [mistake for task in tasks if (mistake := _mistake_for(task, config))]
    if len(mistakes) == len(tasks):
        raise mistakes[0]
    check_rows(config, dataset)
    _check_choices(config["space"])
    _check_rounds(config)
    most_starts(config)
    most_kept(config)
    seconds_of(config["search"].get("trial_seconds"))
    if config["search"].get("storage"):
        url_of(config["search"]["storage"])


def _check_choices(space: JSON) -> None:
    """A space of ours whose lists are empty or name a choice twice; what may stand in them it says itself, with torch."""
    if str(space.get("_target_", "")).startswith("components.models.space."):
        for name, values in space.items():
            if isinstance(values, list):
                listed(f"space.{name}", values)


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
