"""One run: its identity, journal, budget, store and worker, and how it comes back after a kill.

A run is found again by its configuration: the same command after a kill continues the same run folder, and a second
one at the same time waits for the first.

    ATHANOR_HOME/runs/<id>/   run.json  journal.jsonl  report.html
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import processes
from components.artifacts import JSON, EvaluationReport, TrainedModel
from components.budget import Budget
from components.errors import StageFailedError
from components.export.warm import warm
from components.fingerprint import ROOT, SourceCache, installed
from components.home import home
from components.journal import Journal, Listener
from components.registry.lineage import models_of, parent_of
from components.store import KeyParts, Store, explain, locked, read_record, write_atomically
from components.training.extent import full_epochs
from components.workspace import Workspace
from flows.config import Config, load
from flows.keys import key_parts, with_extent
from flows.parents import find, members_of
from flows.table import STAGES, Stage, drop
from flows.verbs import call_verb, load_verb

TAIL = ("export", "quantize", "evaluate", "register", "promote")
FIRST_TAIL_SECONDS = 15.0  # what the tail of digits takes on two slow cores, and half as much again; measured afterwards
TRAININGS = 1.8  # the teacher's training and its smaller student's, in trainings of the best trial's cost
_begun: float | None = None
_current: contextvars.ContextVar[Run | None] = contextvars.ContextVar("run", default=None)


@dataclass(frozen=True)
class Outcome:
    """A stage's record, whether it `ran` or was `cached`, in how many seconds, and why it ran."""

    record: Any
    state: str
    seconds: float
    why: tuple[str, ...] = ()


class Run:
    """What a stage needs of its surroundings. Open one with `Run.open`; it is a context manager."""

    def __init__(self, config: Config, folder: Path, listeners: tuple[Listener, ...]) -> None:
        self.config, self.folder, self.id = config, folder, folder.name
        self.store = Store(home())
        self.journal = Journal(folder / "journal.jsonl", listeners)
        self.inline = False
        self.sources = SourceCache(home() / "code.json")
        self.timings = Timings(home() / "timings.json")
        self.launch_seconds = _seconds_since_begun()
        spent = self.journal.seconds_spent() + self.launch_seconds
        self.budget = budget_of(config, self.timings, spent)
        self._workers: dict[str, processes.Worker] = {}
        self._done: list[str] = []
        self.started = time.time() - self.launch_seconds
        self.records: dict[str, Any] = {}
        self.stages: dict[str, JSON] = {}
        self.champion_before: EvaluationReport | None = None

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: Config, *, listeners: tuple[Listener, ...], on_wait: Callable[[], None] | None = None) -> Iterator[Run]:
        """Opens the run of a configuration, continuing an unfinished one; waits while another process has it open."""
        store = Store(home())
        store.prepare()
        with locked(home() / "locks" / f"run-{config.identity[:16]}.lock", on_wait):
            store.sweep()
            run = cls(config, _folder_for(config), listeners)
            run.journal.write(
                "run.started", run=run.id, model=config.model, budget=config.budget, overrides=list(config.overrides),
                launch_seconds=round(run.launch_seconds, 3), spent=round(run.budget.spent, 3), pid=os.getpid(),
            )  # fmt: skip
            token = _current.set(run)
            try:
                yield run
            finally:
                _current.reset(token)
                run.close()

    @property
    def seed(self) -> int:
        return int(self.config.values["seed"])

    @property
    def budget_asked(self) -> float | None:
        """Seconds that the user gave to the whole run, or None."""
        return self.config.budget

    def key_parts(self, stage: Stage, inputs: tuple[Any, ...], section: JSON) -> KeyParts:
        """The stage's key, but for its extent."""
        return key_parts(stage, inputs, section, self.seed, self.sources, tuple(self.config.values["plugins"]))

    def study_folder(self, key: str) -> Path:
        """Where a study lives: under the key of its search, whatever its length, and longer than any artifact."""
        path = home() / "studies" / key
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def allot(self, stage: Stage) -> float | None:
        """Seconds for this stage now (None: no limit)."""
        return self.budget.allot(stage.name, done=tuple(self._done)) if stage.elastic else None

    def execute(self, stage: Stage, inputs: tuple[Any, ...], section: JSON, work: JSON, extra: JSON) -> Any:
        """Calls the stage's verb, here if it is an inline stage, else in the run's worker process."""
        plugins = self.config.values["plugins"]
        section = {**section, "plugins": plugins} if plugins else section
        try:
            if stage.process == "caller" or self.inline:
                return self._execute_here(stage, inputs, section, Workspace(**work), extra)
            worker = self.worker(stage.process)
            if stage.warms:
                self.worker(stage.warms).prepare(warm)
            return worker.call(call_verb, stage.verb, inputs, section, work, extra, on_event=self.emitter(stage))
        except processes.WorkerDied as error:
            self.drop_worker(stage.process)
            raise StageFailedError(f"stage {stage.name}: {error}") from error
        finally:
            self._done.append(stage.name)

    def _execute_here(self, stage: Stage, inputs: tuple[Any, ...], section: JSON, work: Workspace, extra: JSON) -> Any:
        told = self.emitter(stage)

        def emit(event: str, **fields: Any) -> None:
            told(event, **fields)
            if stage.name == "search" and event == "trial.finished":
                self._lengthen(work, fields)

        work.emit = emit
        return load_verb(stage.verb)(*inputs, section, work, **extra)

    def _lengthen(self, work: Workspace, told: JSON) -> None:
        """Gives the search the seconds that training will not need, once trials have shown what an epoch costs."""
        targets, rounds = self.config.values["target"], self.config.values["rounds"]
        if any(value is not None for value in targets.values()) and told.get("round", 1) < rounds:
            return  # what is over is for the rounds to come
        left, trial = self.budget.left(), told.get("trial") or {}
        epoch = _epoch_seconds(trial.get("history") or ())
        if left is None or work.seconds is None or epoch is None or told.get("value") != told.get("best"):
            return
        demand = TRAININGS * epoch * full_epochs(self.config.values["training"]["epochs"], int(trial["fidelity"]["rows"]))
        work.seconds = max(work.seconds, time.monotonic() - work.started + left - self.budget.reserve - demand)

    def emitter(self, stage: Stage) -> Callable[..., Any]:
        """Writes a verb's progress to the journal under its stage's name."""
        return lambda event, **fields: self.journal.write(event, stage=stage.name, **fields)

    def worker(self, name: str) -> processes.Worker:
        """The process that some of the run's stages share; a new one after it died."""
        worker = self._workers.get(name)
        if worker is None or not worker.process.is_alive():
            worker = self._workers[name] = processes.Worker()
            self.journal.write("worker.started", name=name, pid=worker.process.pid)
        return worker

    def drop_worker(self, name: str) -> None:
        """Ends a shared worker; the next stage gets a new one."""
        worker = self._workers.pop(name, None)
        if worker:
            worker.kill()

    def why(self, stage: Stage, parts: KeyParts, section: JSON) -> list[str]:
        """Which parts of the key changed since this model's last run of the stage."""
        return why_it_runs(stage, last_parts(self.config.model, stage.name), parts, section, self.budget_asked)

    def last(self, stage: Stage) -> JSON | None:
        """Key parts of this model's last result of a stage."""
        return last_parts(self.config.model, stage.name)

    def remember(self, stage: Stage, parts: KeyParts) -> None:
        """Notes which result of a stage this model used last."""
        path = home() / "last" / self.config.model / f"{stage.name}.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, json.dumps(parts.to_json()))

    def note(self, stage: Stage, outcome: Outcome) -> Outcome:
        """Keeps a stage's outcome for the report, and returns it."""
        self.records[stage.name] = outcome.record
        self.stages[stage.name] = {"state": outcome.state, "seconds": round(outcome.seconds, 3), "why": list(outcome.why)}
        return outcome

    def lineage(self) -> JSON:
        """Where a model comes from besides its records: configuration, code, git revision, seed and versions."""
        keys = {stage.name: self.last(stage) for stage in STAGES.values()}
        code = {file: sha for parts in keys.values() if parts for file, sha in parts["code"].items()}
        return {
            "run": self.id, "config": self.config.values, "overrides": list(self.config.overrides), "seed": self.seed,
            "git": git_revision(), "code": dict(sorted(code.items())), "versions": library_versions(),
            "stages": {name: KeyParts(**parts).key for name, parts in keys.items() if parts},
            "models": models_of(self._networks(keys)), "networks": list(self._networks(keys)), "parent": self._parent(),
            "joining": [parent_of(find(name, self.folder), "member") for name in members_of(self.config.values)],
        }  # fmt: skip

    def _parent(self) -> JSON | None:
        """The model that this run's trainings began from."""
        reference = self.config.values.get("parent")
        return parent_of(find(reference, self.folder)) if reference else None

    def _networks(self, keys: dict[str, JSON | None]) -> Iterator[TrainedModel]:
        """The networks that this model's stages made last, as far as the store has them."""
        for name, parts in keys.items():
            folder = self.store.folder(name, KeyParts(**parts).key) if parts else None
            record = read_record(folder) if folder and (folder / "record.json").exists() else None
            if isinstance(record, TrainedModel):
                yield record

    def finish(self, state: str, why: str = "") -> None:
        """Writes how the run ended: finished, failed, staged (by a flow of one's own) or door (one stage). It is not continued."""
        self.journal.write(f"run.{state}", why=why, seconds=round(time.time() - self.started, 3))
        summary = {"id": self.id, "identity": self.config.identity, "model": self.config.model, "state": state, "why": why}
        write_atomically(self.folder / "run.json", json.dumps(summary))

    def close(self) -> None:
        """Ends the worker and saves what was measured."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self.sources.save()
        self.timings.learn(self.config.model, self.journal.events())


def budget_of(config: Config, timings: Timings, spent: float = 0.0) -> Budget:
    """The run's seconds and how its stages share them. Raises `UsageError` for fewer than its tail needs."""
    reserve = timings.tail(config.model) if config.budget else 0.0
    return Budget(config.budget, shares={s.name: s.elastic for s in STAGES.values() if s.elastic}, reserve=reserve, spent=spent)


def _epoch_seconds(history: Sequence[JSON]) -> float | None:
    """Seconds of a trial's quickest whole epoch; None if it had none. The last one may have been cut short."""
    ends = [0.0, *(row["seconds"] for row in history)]
    whole = [after - before for before, after in itertools.pairwise(ends)][:-1]
    return min(whole, default=None)


def begin(at: float | None = None) -> None:
    """Notes when this process began to work towards a run (monotonic seconds, now by default): its budget counts from there."""
    global _begun
    _begun = _begun or at or time.monotonic()


def _seconds_since_begun() -> float:
    global _begun
    seconds = 0.0 if _begun is None else time.monotonic() - _begun
    _begun = None
    return seconds


def current_or_detached(config: JSON) -> Run:
    """The run that is open in this context; in a flow of one's own, one without a budget that lasts as long as the process."""
    run = _current.get()
    return run if run is not None else _detached(json.dumps({**config, "budget": None}, sort_keys=True))


@functools.cache
def _detached(given: str) -> Run:
    config = Config(values={**load(["budget=null"]).values, **json.loads(given)}, choices={}, overrides=())
    Store(home()).prepare()
    run = Run(config, _folder_for(config), ())
    run.journal.write("run.started", run=run.id, model=config.model, budget=None, overrides=[])
    atexit.register(_put_down, run)
    return run


def _put_down(run: Run) -> None:
    run.finish("staged")
    run.close()


def last_parts(model: str, stage: str) -> JSON | None:
    """Key parts of a model's last result of a stage, if there is one."""
    return _read(home() / "last" / model / f"{stage}.json") or None


def changed_parts(last: JSON | None, parts: KeyParts) -> list[str]:
    """Which parts of the key changed, in words, the extent left aside."""
    if last is None:
        return ["never ran for this model"]
    return explain(drop(last, ("extent",)), KeyParts(**drop(parts.to_json(), ("extent",))))


def why_it_runs(stage: Stage, last: JSON | None, parts: KeyParts, section: JSON, budget: float | None) -> list[str]:
    """Why a stage whose inputs are known has no result: what changed, how much more was asked, or that it is gone."""
    changes = changed_parts(last, parts)
    if not changes and stage.elastic:
        changes = explain(last, with_extent(stage, parts, section, budget))
    return changes or ["its result is missing or damaged"]


def unfinished(config: Config) -> Path | None:
    """The folder of a run of this configuration that was begun and has not ended."""
    for folder in sorted((home() / "runs").glob("*"), reverse=True):
        note = _read(folder / "run.json")
        if note.get("identity") == config.identity and note.get("state") == "running":
            return folder
    return None


def _folder_for(config: Config) -> Path:
    runs = home() / "runs"
    if (begun := unfinished(config)) is not None:
        return begun
    folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{config.model}-{config.identity[:4]}"
    number = 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{folder.name.partition('~')[0]}~{number}")
    folder.mkdir(mode=0o700, parents=True)
    note = {"id": folder.name, "identity": config.identity, "model": config.model, "state": "running"}
    write_atomically(folder / "run.json", json.dumps(note))
    return folder


def _read(path: Path) -> JSON:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


class Timings:
    """Seconds that each stage took here, by model, so that `plan` can say how long and the budget keep a reserve."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, _read(path)

    def seconds(self, model: str, stage: str) -> float | None:
        """What the stage took last time for this model."""
        found: float | None = self.rows.get(model, {}).get(stage)
        return found

    def tail(self, model: str) -> float:
        """Seconds to keep for the stages after the elastic ones: half more than was measured, or a first guess."""
        known = [self.seconds(model, stage) for stage in TAIL]
        if any(seconds is None for seconds in known):
            return FIRST_TAIL_SECONDS
        return max(5.0, 1.5 * sum(seconds or 0.0 for seconds in known))

    def learn(self, model: str, events: list[JSON]) -> None:
        """Remembers the durations of stages that ran."""
        ran = {row["stage"]: row["seconds"] for row in events if row["event"] == "stage.finished"}
        if ran:
            self.rows.setdefault(model, {}).update(ran)
            write_atomically(self.path, json.dumps(self.rows))


def git_revision() -> str:
    """The checkout's revision, with `+` when it has uncommitted changes; empty outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


def library_versions() -> dict[str, str]:
    """The versions that matter for doing it again."""
    names = ("torch", "lightning", "optuna", "onnx", "onnxruntime", "mlflow", "prefect", "numpy", "scikit-learn", "kornia")
    known = installed()
    found = {name: known[name] for name in names if name in known}
    return {"python": platform.python_version(), **found}


def machine() -> JSON:
    """Where this ran: CPU type and how many cores."""
    from components.fingerprint import cpu

    return {"cpu": cpu(), "cores": os.cpu_count() or 1, "platform": sys.platform}
