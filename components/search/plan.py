"""What is searched for, read from the configuration and judged, apart from how long and on how many processes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components import metrics
from components.artifacts import JSON, AugmentationPolicy, DatasetVersion, digest_of
from components.budget import seconds_of
from components.build import allow, build
from components.errors import UnknownNameError, UsageError
from components.models.parent import Parent, require_kin
from components.search.compatibility import name_of
from components.search.kept import most_kept

if TYPE_CHECKING:
    from components.search.interface import Scheduler, Strategy

# What a trial costs: minimised as an objective, bounded from above as a constraint (components/search/costs.py measures it).
COSTS = ("num_parameters", "macs", "size_kb", "latency_ms")
FAMILIES = ("space", "strategy", "scheduler", "evaluator", "optimizer", "schedule", "loss", "constraint")  # that change the question
HOW = ("trials", "workers", "trial_seconds", "warm_start", "storage", "keep")  # settings of `search` that do not change the question


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`objectives` and `directions` name what is pursued, the first being `objective`; `constraints` bound values by
    name; `rungs` are the epochs at which trials are compared; `name` is the same for the same question."""

    dataset: DatasetVersion
    policy: AugmentationPolicy
    config: JSON
    seed: int
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    constraints: dict[str, float]
    num_trials: int
    trial_seconds: float | None
    rungs: tuple[int, ...]
    name: str
    round: int = 1

    @classmethod
    def of(cls, dataset: DatasetVersion, policy: AugmentationPolicy, config: JSON, seed: int) -> Plan:
        """Reads and checks the settings. Raises `UsageError`."""
        for package in config.get("plugins") or ():
            allow(package)
        settings = config["search"]
        check_rows(config, dataset)
        if config.get("parent"):
            require_kin(Parent.from_json(config["parent"]), dataset)
        most_kept(config)
        objectives, constraints = settled_objectives(config, dataset.task)
        scores = scores_of(config)
        return cls(
            dataset=dataset, policy=policy, config={**config, "seed": seed}, seed=seed, objectives=objectives,
            directions=tuple(scores.get(name) or direction_of(name) for name in objectives), constraints=constraints,
            num_trials=_whole("search.trials", settings.get("trials")), trial_seconds=seconds_of(settings.get("trial_seconds")),
            rungs=_rungs(config, dataset), name=_study_name(dataset, policy, config, seed, objectives),
        )  # fmt: skip

    @property
    def objective(self) -> str:
        return self.objectives[0]

    @property
    def direction(self) -> str:
        return self.directions[0]

    @functools.cached_property
    def scheduler(self) -> Scheduler:
        found: Scheduler = build(self.config["scheduler"])
        return found

    @property
    def storage(self) -> str | None:
        """The database of a study that several machines work on; None: a file of this one's own."""
        found: str | None = self.config["search"].get("storage")
        return found

    @functools.cached_property
    def strategy(self) -> Strategy:
        found: Strategy = build(self.config["strategy"])
        return found

    @functools.cached_property
    def keeps_weights(self) -> bool:
        return bool(getattr(build(self.config["evaluator"]), "keeps_weights", False))

    @property
    def runner(self) -> Callable[..., Any]:
        """Makes the runner from a listener to its events and the folder that every machine sees."""
        found: Callable[..., Any] = build({**self.config["runner"], "_partial_": True})
        return found

    def aimed(self, config: JSON, round_number: int) -> Plan:
        """The plan of a later round: another configuration, and a study of its own."""
        again = Plan.of(self.dataset, self.policy, config, self.seed)
        return dataclasses.replace(again, name=f"{again.name}-round{round_number}", round=round_number)


def check_rows(config: JSON, dataset: DatasetVersion | None = None) -> None:
    """What a trial sees of the data: `rows`, `folds` and `proxies`. Raises `UsageError`."""
    settings = config["search"]
    if settings.get("rows") is not None:
        _whole("search.rows", settings["rows"])
    if settings.get("proxies", False) not in (True, False):
        raise UsageError(f"search.proxies must be true or false, got {settings['proxies']!r}")
    if _are_asked(settings.get("folds"), dataset) and not getattr(build(config["evaluator"]), "judges_on_folds", True):
        name = name_of(config, "evaluator")
        raise UsageError(
            f"search.folds={settings['folds']} cross-validates trials, evaluator={name} cannot; choose evaluator=train or search.folds=null"
        )


def _are_asked(folds: Any, dataset: DatasetVersion | None) -> bool:
    """Whether trials are judged on folds, as far as it can be told without the data set."""
    from components.training.extent import num_folds

    if dataset:
        return num_folds(folds, dataset.splits["train"] + dataset.splits["validation"]) is not None
    if folds in (None, "auto"):
        return False
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise UsageError(f"search.folds must be null, auto or a whole number of at least 2, got {folds!r}")
    return True


def settled_objectives(config: JSON, task: str) -> tuple[tuple[str, ...], dict[str, float]]:
    """The objectives and the limits of a configuration for a task. Raises `UsageError`."""
    scores = scores_of(config)
    return objectives_of(config, task, scores), constraints_of(config, () if scores else metrics.names(task))


def scores_of(config: JSON) -> dict[str, str]:
    """What an evaluator that does not train gives a candidate instead of metrics: each score's name and direction."""
    return dict(getattr(build(config["evaluator"]), "scores", None) or {})


def objectives_of(config: JSON, task: str, scores: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """`objective`: a metric of the task, or a list of one and more metrics and costs; an evaluator that does not train
    gives `scores` instead of metrics. Raises `UsageError`."""
    asked = config.get("objective")
    values = tuple(scores) if scores else metrics.names(task)
    default = values[0] if scores else metrics.objective((config.get("metrics") or {}).get("objective"), task)
    names = [default] if asked is None else list(asked) if isinstance(asked, list | tuple) else [asked]
    if any(not isinstance(name, str) for name in names):
        raise UsageError(f"objective must be a name or a list of names that begins with a metric, got {asked!r}; set objective={default}")
    known = tuple(dict.fromkeys((*values, *COSTS)))
    for name in names:
        if name not in known:
            if not scores and name in metrics.METRICS:
                metrics.objective(name, task)
            raise UnknownNameError("objective", name, known)
    if not names or names[0] not in values:
        raise UsageError(f"objective must begin with one of {', '.join(values)}, got {', '.join(names) or 'nothing'}")
    if len(set(names)) < len(names):
        raise UsageError(f"objective names {next(n for n in names if names.count(n) > 1)} twice")
    return tuple(names)


def direction_of(name: str) -> str:
    return "minimize" if name in COSTS else metrics.direction(name)


def constraints_of(config: JSON, values: Collection[str]) -> dict[str, float]:
    """The limits that are set, on costs and on the metrics in `values`: from above for costs and errors, from below for
    what is maximised. Raises `UsageError`."""
    limits, found = config.get("constraint"), {}
    if not isinstance(limits, Mapping | None):
        raise UsageError(f"constraint holds limits by name, got {limits!r}; write constraint.{COSTS[0]}={limits}")
    for name, bound in (limits or {}).items():
        if bound is None:
            continue
        if name not in (*COSTS, *values):
            raise UnknownNameError("constraint", name, (*COSTS, *values))
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound) or bound <= 0:
            raise UsageError(f"constraint.{name} must be a positive number, got {bound!r}")
        found[name] = float(bound)
    return found


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _rungs(config: JSON, dataset: DatasetVersion) -> tuple[int, ...]:
    from components.training.extent import trial_epochs

    settings = config["search"]
    rows = min(settings.get("rows") or dataset.splits["train"], dataset.splits["train"])
    full = trial_epochs(settings.get("epochs"), rows)
    rungs: tuple[int, ...] = build(config["scheduler"]).rungs(full)
    return rungs


def _study_name(dataset: DatasetVersion, policy: AugmentationPolicy, config: JSON, seed: int, objectives: tuple[str, ...]) -> str:
    sections = {name: config.get(name) for name in FAMILIES}
    sections["trainer"] = {name: value for name, value in (config.get("trainer") or {}).items() if name not in ("devices", "compile")}
    settings = {name: value for name, value in config["search"].items() if name not in HOW}
    training = {name: value for name, value in (config.get("training") or {}).items() if name != "epochs"}
    decided = [dataset.identity, policy.identity, sections, settings, training, seed, objectives]
    if config.get("parent"):
        decided += [Parent.from_json(config["parent"]).identity, config["finetune"]]
    return f"{dataset.name}-{digest_of(decided)[:16]}"
