"""Runs in MLflow, mirrored from the journal in the background, so that tracking never slows or stops the work.

    journal ─listener▶ Tracker ─queue▶ thread ─batches▶ MLflow: one run per Athanor run, one nested run per trial

The journal is the memory: how many of its events MLflow has is noted beside the queue in `untracked/<run>.json`, so
while MLflow is away, and after a kill, nothing is lost; the rest is mirrored by the next tracker of the state folder.
Mirroring an event twice changes nothing: runs are found by tag and metrics carry the event's own time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import store
from components.artifacts import JSON, TrainedModel
from components.errors import TryAgainError
from components.home import home
from components.journal import Event, read
from components.registry.connection import connect, experiment, parent_run, told_in_one_line, warm

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

__all__ = ["Mirror", "Tracker", "catch_up", "warm"]

PAUSE_SECONDS = 0.3
"""Events are gathered for so long before they are sent together."""
LOCK_SECONDS = 2.0
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000  # MLflow's limits
LONGEST_VALUE = 6000  # characters of a parameter's value in MLflow
NOT_IN_NAMES = re.compile(r"[^\w\-. /:]")
STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "killed": "KILLED"}

_log = logging.getLogger(__name__)


class Tracker:
    """Mirrors one run. Use it as a listener of the run's journal and close it at the end.

    `params` is the composed configuration. Events that the journal already holds and MLflow lacks are sent first."""

    def __init__(self, run: str, *, model: str, params: JSON, journal: Path | None = None) -> None:
        path = journal or home() / "runs" / run / "journal.jsonl"
        self._note = _Note(home() / "untracked" / f"{run}.json", {"run": run, "model": model, "params": params, "journal": str(path)})
        self._mirror = Mirror(run, model=model, params=params, folder=path.parent)
        self._held = contextlib.ExitStack()
        with contextlib.suppress(TryAgainError):  # held: someone is catching up on this run; sending twice does no harm
            self._held.enter_context(store.locked(self._note.path.with_suffix(".lock"), timeout=LOCK_SECONDS))
        self._sent = self._note.load()
        self._waiting: list[Event] = list(read(path))[self._sent :]
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"tracking-{run}", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Takes one event of the journal; returns at once."""
        with self._changed:
            self._waiting.append(event)
            self._changed.notify()

    def close(self, timeout: float = 5.0) -> bool:
        """Sends what is left and ends. False when MLflow did not take all of it in `timeout` seconds: it is sent later."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        self._note.save(self._sent)
        done = not self._thread.is_alive() and not self._waiting
        if done:
            self._note.remove()
        else:
            _log.info("MLflow lacks %d events of run %s; they are kept and sent later", len(self._waiting), self._mirror.run)
        self._held.close()
        return done

    def _work(self) -> None:
        try:
            if self._send_until_closed():
                _attempt(self._mirror.attach_report, f"the report of run {self._mirror.run}")
        except Exception as error:  # whatever it is, it is not worth the run: the events stay in the journal
            _log.warning("tracking of run %s ended early (%s: %s)", self._mirror.run, type(error).__name__, error)

    def _send_until_closed(self) -> bool:
        """Whether everything was sent when the run ended."""
        failures, others_sent = 0, False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing and not self._waiting:
                    return True
            if not self._closing:
                time.sleep(PAUSE_SECONDS)
            failures = 0 if self._send() else failures + 1
            if failures and self._give_up(failures):
                return False
            if not (failures or others_sent or self._closing):
                catch_up()
                others_sent = True

    def _send(self) -> bool:
        events = list(self._waiting)
        if not _sent_or_refused(self._mirror, events):
            return False
        with self._changed:
            del self._waiting[: len(events)]
            self._sent += len(events)
        self._note.save(self._sent)
        return True

    def _give_up(self, failures: int) -> bool:
        """Waits before another attempt; True when the run ends meanwhile, which leaves the rest for later."""
        pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, pause)


def _sent_or_refused(mirror: Mirror, events: list[Event]) -> bool:
    """Sends events together; where MLflow refuses one for good, that one is passed over and the others are sent singly.

    False when MLflow is away or busy: the same events are to be sent again."""
    try:
        return _attempt(lambda: mirror.apply(events), f"events of run {mirror.run}")
    except Exception as error:
        if len(events) == 1:
            _log.warning("MLflow refuses the event %s of run %s (%s)", events[0]["event"], mirror.run, error)
            return True
    return all(_sent_or_refused(mirror, [event]) for event in events)


def _attempt(action: Callable[[], None], what: str) -> bool:
    """Whether MLflow took it; False while it is away or busy, which is logged and no more. Raises what is wrong for good."""
    try:
        with told_in_one_line():
            action()
    except TryAgainError as error:
        _log.debug("MLflow did not take %s yet: %s", what, error)
        return False
    return True


def catch_up() -> list[str]:
    """Sends what earlier runs could not; returns the runs that are complete now. Runs that are at work are left alone."""
    sent = []
    for path in sorted((home() / "untracked").glob("*.json")):
        with contextlib.suppress(TryAgainError), store.locked(path.with_suffix(".lock"), timeout=0.0):
            if path.exists() and _catch_up_one(path):
                sent.append(path.stem)
    return sent


def _catch_up_one(path: Path) -> bool:
    note = _Note(path, {})
    done = note.load()
    if not {"run", "model", "params", "journal"} <= set(note.about):
        return False
    journal = Path(note.about["journal"])
    mirror = Mirror(note.about["run"], model=note.about["model"], params=note.about["params"], folder=journal.parent)
    events = list(read(journal))[done:]
    if not (_sent_or_refused(mirror, events) and _attempt(mirror.attach_report, f"the report of run {mirror.run}")):
        return False
    note.remove()
    return True


class _Note:
    """How many events of a run MLflow has, on disk as long as it lacks any."""

    def __init__(self, path: Path, about: JSON) -> None:
        self.path, self.about = path, about

    def load(self) -> int:
        """The number sent so far; 0 without a note or with a torn one."""
        try:
            found = json.loads(self.path.read_text())
            self.about = {**found["about"], **self.about}
            return int(found["sent"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def save(self, sent: int) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.write_atomically(self.path, json.dumps({"sent": sent, "about": self.about}, default=str))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)


class Mirror:
    """What each event of a run's journal becomes in MLflow. `folder` holds the run's journal and report."""

    def __init__(self, run: str, *, model: str, params: JSON, folder: Path) -> None:
        self.run, self.model, self.params, self.folder = run, model, params, folder
        self._id = self._experiment = ""
        self._trials: dict[tuple[int, int], str] = {}  # by round, each with a study of its own, and number
        self._metrics: list[Metric] = []
        self._tags: dict[str, str] = {}

    def apply(self, events: list[Event]) -> None:
        """Sends events, oldest first. Raises what MLflow raises; the same events may be sent again."""
        if not events:
            return
        client = connect()
        self._metrics, self._tags = [], {}
        if not self._id:
            self._open(client, events[0])
        for event in events:
            handle = HANDLERS.get(event["event"])
            if handle:
                handle(self, client, event)
        self._flush(client)

    def attach_report(self) -> None:
        """Adds the run's HTML report to its MLflow run."""
        report = self.folder / "report.html"
        if report.exists() and self._id:
            connect().log_artifact(self._id, str(report))

    def _open(self, client: MlflowClient, first: Event) -> None:
        self._experiment = experiment(client, self.model)
        run_id = parent_run(client, self.model, self.run, start_ms=_milliseconds(first))
        known = client.get_run(run_id).data.params
        rows = dict(_flat(self.params))
        for batch in _batches([(name, value) for name, value in rows.items() if name not in known], PARAMS_PER_BATCH):
            client.log_batch(run_id, params=_params(batch))
        # MLflow's parameters never change; a run continued with, say, a longer budget shows the new value as a tag.
        self._tags |= {f"athanor.now.{name}": value for name, value in rows.items() if name in known and known[name] != value}
        self._trials = _nested_runs(client, self._experiment, run_id)
        self._id = run_id

    def _flush(self, client: MlflowClient) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value) for name, value in self._tags.items()]
        batches = list(_batches(self._metrics, METRICS_PER_BATCH)) or [[]]
        for number, metrics in enumerate(batches):
            first = tags if number == 0 else []
            if metrics or first:
                client.log_batch(self._id, metrics=metrics, tags=first)

    def _add(self, event: Event, values: Mapping[str, Any], *, step: int = 0, prefix: str = "") -> None:
        self._metrics += _metrics(values, _milliseconds(event), step, prefix)

    # ---- one method per kind of event ----

    def _on_run_started(self, client: MlflowClient, event: Event) -> None:
        client.update_run(self._id, status="RUNNING")
        self._tags |= {f"athanor.{name}": _text(event[name]) for name in ("model", "budget", "overrides") if event.get(name) is not None}

    def _on_run_ended(self, client: MlflowClient, event: Event) -> None:
        status = {"run.finished": "FINISHED", "run.failed": "FAILED", "run.interrupted": "KILLED"}[event["event"]]
        self._tags["athanor.why"] = _text(event.get("why") or "")
        client.set_terminated(self._id, status, end_time=_milliseconds(event))

    def _on_stage(self, client: MlflowClient, event: Event) -> None:
        stage, state = str(event["stage"]), event["event"].partition(".")[2]
        self._tags[f"athanor.stage.{stage}"] = _text(event.get("why") or state) if state == "failed" else state
        self._add(event, {"seconds": event.get("seconds")}, prefix=f"{stage}.")
        if state in ("finished", "cached"):
            self._add_history(event, stage)

    def _add_history(self, event: Event, stage: str) -> None:
        """The learning curves of a model that was trained, or taken from the store."""
        record = _record(stage, str(event.get("key", ""))) if stage in ("train", "fuse", "distill") else None
        if isinstance(record, TrainedModel):
            for number, row in enumerate(record.history):
                step = int(row.get("epoch", number))
                self._add(event, {k: v for k, v in row.items() if k != "epoch"}, step=step, prefix=f"{stage}.")
            self._add(event, record.metrics, step=len(record.history), prefix=f"{stage}.final.")

    def _on_epoch(self, client: MlflowClient, event: Event) -> None:
        self._add(event, {"value": event.get("value")}, step=int(event.get("epoch", 0)), prefix=f"{event.get('stage', 'train')}.")

    def _on_evaluated(self, client: MlflowClient, event: Event) -> None:
        name = str(event.get("name", "model"))
        self._add(event, event.get("metrics") or {}, prefix=f"validation.{name}.")
        self._add(event, {key: event.get(key) for key in ("size_kb", "latency_ms")}, prefix=f"{name}.")

    def _on_decided(self, client: MlflowClient, event: Event) -> None:
        self._tags["athanor.decision"] = _text(event.get("words", ""))
        self._tags["athanor.version"] = _text(event.get("version", ""))

    def _on_trial_started(self, client: MlflowClient, event: Event) -> None:
        self._trial(client, event)

    def _on_trial_ended(self, client: MlflowClient, event: Event) -> None:
        from mlflow.entities import RunTag

        run_id, trial = self._trial(client, event), event.get("trial") or {}
        candidate, now = trial.get("candidate") or {}, _milliseconds(event)
        params = [*_flat(candidate.get("architecture"), "arch."), *_flat(candidate.get("hyperparameters"), "hp.")]
        metrics = _metrics(trial.get("values") or {str(event.get("objective", "value")): event.get("value")}, now, 0)
        metrics += _metrics({"num_parameters": event.get("num_parameters"), "seconds": event.get("seconds")}, now, 0)
        for number, row in enumerate(trial.get("history") or ()):
            metrics += _metrics({k: v for k, v in row.items() if k != "epoch"}, now, int(row.get("epoch", number)), "epoch.")
        tags = [RunTag(f"athanor.{name}", _text(event.get(name) or "")) for name in ("state", "cause", "reason")]
        client.log_batch(run_id, params=_params(params[:PARAMS_PER_BATCH]), metrics=metrics[:METRICS_PER_BATCH], tags=tags)
        client.set_terminated(run_id, STATUS.get(str(event.get("state")), "FAILED"), end_time=now)
        self._add(event, {"search.value": event.get("value"), "search.best": event.get("best")}, step=self._place(event))

    def _place(self, event: Event) -> int:
        """A trial's number, counted on from round to round."""
        return sum(1 for earlier, _ in self._trials if earlier < int(event.get("round", 1))) + int(event["number"])

    def _trial(self, client: MlflowClient, event: Event) -> str:
        round_number, number = place = int(event.get("round", 1)), int(event["number"])
        if place not in self._trials:
            started = _milliseconds(event) - int(1000 * float(event.get("seconds") or 0.0))
            tags = {
                "mlflow.parentRunId": self._id, "athanor.kind": "trial", "athanor.trial": str(number),
                "athanor.round": str(round_number), "athanor.run": self.run,
            }  # fmt: skip
            name = f"trial {number}" if round_number == 1 else f"round {round_number} trial {number}"
            made = client.create_run(self._experiment, start_time=started, run_name=name, tags=tags)
            self._trials[place] = made.info.run_id
        return self._trials[place]


HANDLERS: dict[str, Callable[[Mirror, MlflowClient, Event], None]] = {
    "run.started": Mirror._on_run_started,
    "run.finished": Mirror._on_run_ended,
    "run.failed": Mirror._on_run_ended,
    "run.interrupted": Mirror._on_run_ended,
    "stage.cached": Mirror._on_stage,
    "stage.finished": Mirror._on_stage,
    "stage.failed": Mirror._on_stage,
    "trial.started": Mirror._on_trial_started,
    "trial.finished": Mirror._on_trial_ended,
    "trial.failed": Mirror._on_trial_ended,
    "epoch": Mirror._on_epoch,
    "evaluated": Mirror._on_evaluated,
    "decided": Mirror._on_decided,
}


def _nested_runs(client: MlflowClient, experiment_id: str, parent: str) -> dict[tuple[int, int], str]:
    """The nested runs that are there already, by round and trial number."""
    found = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=10_000)
    tagged = [(run.data.tags, run.info.run_id) for run in found if "athanor.trial" in run.data.tags]
    return {(int(tags.get("athanor.round", 1)), int(tags["athanor.trial"])): run_id for tags, run_id in tagged}


def _record(stage: str, key: str) -> Any:
    try:
        return store.read_record(home() / "artifacts" / stage / key)
    except (OSError, ValueError, KeyError):
        return None  # cleaned away since: its epochs were mirrored live


def _milliseconds(event: Event) -> int:
    return int(1000 * float(event["time"]))


def _metrics(values: Mapping[str, Any], now: int, step: int, prefix: str = "") -> list[Metric]:
    from mlflow.entities import Metric

    numbers = {name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    return [Metric(NOT_IN_NAMES.sub("_", f"{prefix}{name}"), float(value), now, step) for name, value in numbers.items()]


def _params(rows: list[tuple[str, str]]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, value) for name, value in rows]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings by dotted name, as text MLflow takes."""
    for name, item in (value or {}).items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield NOT_IN_NAMES.sub("_", f"{prefix}{name}"), _text(item)[:LONGEST_VALUE]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _batches(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
