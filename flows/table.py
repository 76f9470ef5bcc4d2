"""The table of stages: each one's verb, what it takes, what it reads, how it shares the budget and where it runs.

`STAGES` is the whole pipeline as data. Prefect's tasks, `athanor plan`, the stage door and dvc.yaml all read it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from components.artifacts import JSON, Candidate, SearchResult
from components.errors import UnknownNameError


@dataclass(frozen=True)
class Stage:
    """One stage: its verb (`module:function`), the stages whose records it takes, the configuration it reads.

    `ignores` are keys of that configuration which say where or how long but not what. `elastic` stages can use any
    amount of time and share the budget by that weight; `extent` are the keys that say how much was asked for.
    `seeded` stages depend on the seed. `process` says where the verb runs: in the caller, or in one of a run's two
    workers, `learning` and `serving`; a stage that `warms` the latter lets it import what it needs meanwhile.
    """

    name: str
    verb: str
    takes: tuple[str, ...]
    reads: tuple[str, ...]
    ignores: tuple[str, ...] = ()
    extent: tuple[str, ...] = ()
    elastic: float = 0.0
    seeded: bool = False
    process: str = "learning"
    warms: str = ""
    words: str = field(default="", compare=False)

    @property
    def module(self) -> str:
        return self.verb.partition(":")[0]


PLACES = ("training.data", "training.workers")  # where rows are kept while training, which never changes a bit
FULL_ONLY = ("trainer.devices", "trainer.compile")  # what a search's trials do without

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("version", "components.data.version:version", (), ("dataset", "split"), words="pins the data and its splits"),
        Stage("validate", "components.quality.validate:validate", ("version",), ("check",), words="checks that the data is fit"),
        Stage("augment", "components.augmentation.augment:augment", ("version",), ("augmentation",), words="sets the augmentation policy"),
        Stage(
            "search", "components.search.search:search", ("version", "augment"),
            (
                "space", "strategy", "scheduler", "evaluator", "runner", "trainer", "optimizer", "schedule", "loss", "training", "search",
                "metrics", "objective",
                "constraint", "target", "rounds", "parent", "inherit", "growth", "finetune",
            ),
            ignores=(
                "runner", "search.workers", "search.trial_seconds", "search.warm_start", "search.storage", "training.epochs", *PLACES,
                *FULL_ONLY,
            ),
            extent=("search.trials", "search.keep", "target", "rounds"),
            elastic=0.3, seeded=True, process="caller", words="tries candidates",
        ),
        Stage(
            "train", "components.training.train:train", ("version", "augment", "search"),
            (
                "space", "trainer", "optimizer", "schedule", "loss", "training", "metrics", "constraint", "parent", "inherit", "growth",
                "finetune",
            ),
            ignores=PLACES, elastic=0.45, seeded=True, warms="serving", words="trains the best candidate",
        ),
        Stage(
            "fuse", "components.fusion.fuse:fuse", ("version", "augment", "search", "train"),
            ("fusion", "space", "trainer", "optimizer", "schedule", "loss", "training", "metrics", "parent", "inherit", "growth"),
            ignores=PLACES, elastic=0.05, seeded=True, words="makes one model of the teacher and the trials",
        ),
        Stage(
            "distill", "components.compression.distill:distill", ("version", "augment", "fuse"),
            ("distillation", "space", "trainer", "optimizer", "schedule", "loss", "training", "metrics", "parent", "inherit", "growth"),
            ignores=PLACES, elastic=0.25, seeded=True, words="trains a smaller student from the teacher",
        ),
        Stage(
            "export", "components.export.export:export", ("version", "train", "fuse", "distill"), ("exporter",),
            process="serving", words="writes ONNX and proves parity",
        ),
        Stage(
            "quantize", "components.compression.quantize:quantize", ("version", "export"), ("quantization", "metrics"),
            process="serving", words="makes INT8 twins",
        ),
        Stage(
            "evaluate", "components.evaluation.evaluate:evaluate", ("version", "export", "quantize"),
            ("metrics", "selection", "constraint"),
            process="serving", words="measures what would be served",
        ),
        Stage(
            "register", "components.registry.register:register", ("evaluate",), ("model",), process="caller",
            words="files the model version",
        ),
        Stage(
            "promote", "components.registry.promote:promote", ("register",), ("gate", "model"), process="caller",
            words="lets the gates decide",
        ),
    )
}  # fmt: skip


def stage_named(name: str) -> Stage:
    """Raises `UnknownNameError` for a stage that does not exist."""
    if name not in STAGES:
        raise UnknownNameError("stage", name, STAGES)
    return STAGES[name]


def arguments(stage: Stage, records: dict[str, Any]) -> tuple[Any, ...]:
    """The verb's record arguments, in its order, out of the records of the stages before it."""
    given = [records[name] for name in stage.takes]
    if stage.name == "train":
        return (*given[:2], given[2].best if isinstance(given[2], SearchResult) else given[2])
    if stage.name == "export":
        dataset, *models = given
        return dataset, tuple({model.identity: model for model in models}.values())
    if stage.name == "evaluate":
        return given[0], (*given[1], *given[2])
    return tuple(given)


def candidate_of(value: SearchResult | Candidate) -> Candidate:
    """The candidate to train: a search's best, or the candidate itself."""
    return value.best if isinstance(value, SearchResult) else value


def drop(section: JSON, names: tuple[str, ...]) -> JSON:
    """A copy of nested containers without the dotted `names`."""
    heads = {name.partition(".")[0]: name.partition(".")[2] for name in names if "." not in name}
    result: JSON = {}
    for key, value in section.items():
        if key in heads:
            continue
        below = tuple(name.partition(".")[2] for name in names if name.startswith(f"{key}."))
        result[key] = drop(value, below) if below and isinstance(value, dict) else value
    return result


def pick(section: JSON, names: tuple[str, ...]) -> JSON:
    """The dotted `names` of nested containers, by name."""
    return {name: functools.reduce(lambda node, part: node[part], name.split("."), section) for name in names}
