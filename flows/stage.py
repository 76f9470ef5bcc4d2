"""What a stage is: its verb, what it reads, how its key is made, and the one way it is run.

`STAGES` is the whole table. Prefect's tasks (`flows.tasks`), `athanor plan` and the stage door all go through
`run_stage`, so a stage is the same work under the same key wherever it is called from.

    python -m flows.stage NAME [key=value ...]     the door: one stage on saved records (dvc.yaml calls it)
    python -m flows.stage                          prints the dvc.yaml that fits this table
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import artifacts
from components.artifacts import JSON, Candidate, QualityReport, Record, SearchResult, digest_of
from components.build import expose_plugins
from components.errors import DataError, StageFailedError, UnknownNameError
from components.fingerprint import NUMERIC, SourceCache, closure, cpu, targets, versions
from components.home import home
from components.store import KeyParts, Store, write_atomically
from components.workspace import Workspace

if TYPE_CHECKING:
    from flows.run import Run


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


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("version", "components.data.version:version", (), ("dataset", "split"), words="pins the data and its splits"),
        Stage("validate", "components.quality.validate:validate", ("version",), ("check",), words="checks that the data is fit"),
        Stage("augment", "components.augmentation.augment:augment", ("version",), ("augmentation",), words="sets the augmentation policy"),
        Stage(
            "search", "components.search.search:search", ("version", "augment"),
            ("space", "strategy", "optimizer", "training", "search", "metrics"),
            ignores=("search.workers", "search.trial_seconds", "training.epochs"), extent=("search.trials",),
            elastic=0.5, seeded=True, process="caller", words="tries candidates",
        ),
        Stage(
            "train", "components.training.train:train", ("version", "augment", "search"),
            ("space", "optimizer", "training", "metrics"), elastic=0.25, seeded=True, warms="serving",
            words="trains the best candidate",
        ),
        Stage(
            "distill", "components.compression.distill:distill", ("version", "augment", "train"),
            ("distillation", "space", "optimizer", "training", "metrics"), elastic=0.25, seeded=True,
            words="trains a smaller student from the teacher",
        ),
        Stage(
            "export", "components.export.export:export", ("version", "train", "distill"), ("exporter",),
            process="serving", words="writes ONNX and proves parity",
        ),
        Stage(
            "quantize", "components.compression.quantize:quantize", ("version", "export"), ("quantization", "metrics"),
            process="serving", words="makes INT8 twins",
        ),
        Stage(
            "evaluate", "components.evaluation.evaluate:evaluate", ("version", "export", "quantize"), ("metrics", "selection"),
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


@dataclass(frozen=True)
class Outcome:
    """A stage's record, whether it `ran` or was `cached`, in how many seconds, and why it ran."""

    record: Any
    state: str
    seconds: float
    why: tuple[str, ...] = ()


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
        dataset, teacher, student = given
        return dataset, (teacher,) if teacher.identity == student.identity else (teacher, student)
    if stage.name == "evaluate":
        return given[0], (*given[1], *given[2])
    return tuple(given)


def key_parts(
    stage: Stage, inputs: tuple[Any, ...] | None, section: JSON, seed: int, cache: SourceCache, packages: tuple[str, ...] = ()
) -> KeyParts:
    """The parts of a stage's key without its extent; `inputs=None` where they are not known yet."""
    decided = _decided(stage, section)
    code, libraries = closure([stage.module, *targets(section)], cache, ("components", *packages))
    return KeyParts(
        stage=stage.name,
        inputs={} if inputs is None else _input_identities(stage, inputs, section),
        config=decided,
        code=code,
        libraries=versions(libraries),
        seed=seed if stage.seeded else 0,
        cpu=cpu() if libraries & NUMERIC else "",
    )


def _decided(stage: Stage, section: JSON) -> JSON:
    if stage.name == "version":
        from components.data.sources import key_config

        return key_config(section)
    return drop(section, (*stage.ignores, *stage.extent))


def _input_identities(stage: Stage, inputs: tuple[Any, ...], section: JSON) -> dict[str, str]:
    if stage.name == "version":
        from components.data.sources import source_digests

        return source_digests(section)
    return {f"{i}:{_kind(value)}": _identity(value) for i, value in enumerate(inputs)}


def _kind(value: Any) -> str:
    return _kind(value[0]) + "s" if isinstance(value, tuple) and value else type(value).__name__


def _identity(value: Any) -> str:
    return digest_of([_identity(item) for item in value]) if isinstance(value, tuple) else str(value.identity)


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


def with_extent(stage: Stage, parts: KeyParts, section: JSON, budget: float | None) -> KeyParts:
    """The key of a result that a trial count or the clock ended."""
    asked = {**pick(section, stage.extent), "budget": budget}
    return KeyParts(**{**parts.to_json(), "extent": asked})


def find(stage: Stage, parts: KeyParts, section: JSON, budget: float | None, store: Store) -> KeyParts | None:
    """The key under which an intact result lies (by size, mtime and inode), if there is one: a complete one first."""
    tries = [parts, with_extent(stage, parts, section, budget)] if stage.elastic else [parts]
    return next((found for found in tries if store.has(found)), None)


def run_stage(name: str, inputs: tuple[Any, ...], section: JSON, run: Run, *, lineage: JSON | None = None) -> Outcome:
    """Finds a stage's result or computes and publishes it, once even if asked twice at the same time."""
    stage = stage_named(name)
    started = time.monotonic()
    parts = run.key_parts(stage, inputs, section)
    flight = parts.key
    with run.store.single_flight(flight, lambda: run.journal.write("stage.waiting", stage=name, why="another process computes it")):
        known = find(stage, parts, section, run.budget_asked, run.store)
        record = run.store.lookup(known) if known else None
        if record is not None:
            run.remember(stage, known or parts)
            run.journal.write("stage.cached", stage=name, key=(known or parts).key, seconds=round(time.monotonic() - started, 3))
            return run.note(stage, Outcome(record, "cached", time.monotonic() - started))
        why = run.why(stage, parts, section)
        run.journal.write("stage.started", stage=name, why=list(why))
        record, parts = _compute(stage, inputs, section, run, parts, lineage)
        run.remember(stage, parts)
    seconds = time.monotonic() - started
    run.journal.write("stage.finished", stage=name, key=parts.key, seconds=round(seconds, 3))
    return run.note(stage, Outcome(record, "ran", seconds, tuple(why)))


def _compute(stage: Stage, inputs: tuple[Any, ...], section: JSON, run: Run, parts: KeyParts, lineage: JSON | None) -> tuple[Any, KeyParts]:
    asked = with_extent(stage, parts, section, run.budget_asked)
    scratch = run.study_folder(parts.key) if stage.name == "search" else run.store.scratch(asked.key)
    extra = {"lineage": lineage} if stage.name == "register" else {}
    try:
        with run.store.workspace() as out:
            work = {"out": out, "seed": run.seed, "scratch": scratch, "seconds": run.allot(stage)}
            record = run.execute(stage, inputs, section, work, extra)
            complete = not stage.elastic or (stage.name != "search" and not getattr(record, "truncated", False))
            filed = parts if complete else asked
            run.journal.write("stage.publishing", stage=stage.name, key=filed.key)
            return run.store.publish(filed, record, out), filed
    except Exception as error:
        run.journal.write("stage.failed", stage=stage.name, kind=type(error).__name__, why=str(error))
        raise
    finally:
        if (out_of := run.store.home / "scratch" / asked.key).exists() and run.store.has(parts):
            import shutil

            shutil.rmtree(out_of, ignore_errors=True)


def call_verb(verb: str, inputs: tuple[Any, ...], section: JSON, work: JSON, extra: JSON, *, emit: Callable[..., Any]) -> Any:
    """Imports a stage's verb and calls it: what a worker process is asked to do."""
    expose_plugins(section.get("plugins", ()))
    module, _, function = verb.partition(":")
    return getattr(importlib.import_module(module), function)(*inputs, section, Workspace(**work, emit=emit), **extra)


def require_fit(report: QualityReport) -> QualityReport:
    """The report itself if it passed. Raises `DataError` with the failing rows otherwise."""
    if not report.passed:
        failing = "; ".join(f"{row.name}: {row.reason}" for row in report.rows if row.status == "fail")
        raise DataError(f"the data is not fit for training: {failing}")
    return report


# ---- the door -------------------------------------------------------------------------------------------------


def saved(name: str) -> Path:
    """Where the door keeps a stage's record for the next one."""
    return home() / "stages" / f"{name}.json"


def enter(name: str, overrides: list[str]) -> Outcome:
    """Runs one stage on the saved records of the stages before it, in this process, and saves its own."""
    from flows.config import load
    from flows.run import Run

    stage = stage_named(name)
    config = load(overrides)
    with Run.open(config, listeners=()) as run:
        run.inline = True
        records = {needed: _load_saved(needed) for needed in stage.takes}
        outcome = run_stage(name, arguments(stage, records), config.section(stage.reads), run, lineage=run.lineage())
    if isinstance(outcome.record, QualityReport):
        require_fit(outcome.record)
    _save(name, outcome.record)
    return outcome


def _load_saved(name: str) -> Any:
    try:
        return artifacts.load(json.loads(saved(name).read_text()), home())
    except FileNotFoundError:
        raise StageFailedError(f"stage {name!r} has not run yet; run `athanor stage {name}` first") from None


def _save(name: str, record: Record | tuple[Record, ...]) -> None:
    saved(name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(saved(name), json.dumps(artifacts.dump(record, home()), indent=1, sort_keys=True))
    if not isinstance(record, tuple):
        from flows.dvc import write_extras

        write_extras(name, record)


def candidate_of(value: SearchResult | Candidate) -> Candidate:
    """The candidate to train: a search's best, or the candidate itself."""
    return value.best if isinstance(value, SearchResult) else value


def main(words: list[str]) -> int:
    from flows.cli import main as command

    if not words:
        from flows.dvc import render

        print(render(), end="")
        return 0
    return command(["stage", *words])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
