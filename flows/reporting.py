"""How a run is opened and closed: tracked while it works, and at its end reported as HTML, Markdown and artifacts.

A run that is interrupted stays open, so that the same command continues it; one that fails on its data or by a bug
says so in its journal and still gets a report of what there is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.artifacts import JSON, EvaluationReport
from components.home import home
from components.journal import Event
from flows.config import Config
from flows.run import Run, git_revision, library_versions
from flows.screen import listeners, tell_waiting
from flows.stopping import listen_again

TRACKING_PATIENCE_SECONDS = 5.0
finished: list[Run] = []  # the runs that ended well in this process, for whoever called the flow


@contextlib.contextmanager
def open_reported(config: Config) -> Iterator[JSON]:
    """Opens the configuration's run, tracks it in MLflow, and reports it when it ends; yields the plain configuration."""
    from components.tracking import Tracker

    listen_again()
    with Run.open(config, listeners=listeners(), on_wait=tell_waiting) as run:
        run.champion_before = _champion_report(config.model)
        tracker = Tracker(run.id, model=config.model, params=config.values)
        run.journal.listeners += (tracker, SearchProgress())
        try:
            yield config.values
        except KeyboardInterrupt:
            run.journal.write("run.interrupted")
            raise
        except BaseException as error:
            run.finish("failed", str(error))
            raise
        else:
            run.finish("finished")
            finished.append(run)
        finally:
            write(run)
            tracker.close(TRACKING_PATIENCE_SECONDS)


class SearchProgress:
    """Shows how far the search is as a progress artifact of its task run, where one is active."""

    def __init__(self) -> None:
        self.artifact: Any = None
        self.asked = self.done = 0

    def __call__(self, row: Event) -> None:
        if row["event"] == "search.opened":
            self._open(row)
        elif self.artifact and row["event"] in ("trial.finished", "trial.failed"):
            from prefect.artifacts import update_progress_artifact

            self.done += 1
            update_progress_artifact(self.artifact, progress=min(100.0, 100.0 * self.done / self.asked))

    def _open(self, row: Event) -> None:
        from prefect.artifacts import create_progress_artifact
        from prefect.context import TaskRunContext

        self.asked, self.done = int(row["trials"]), int(row["finished"])
        if TaskRunContext.get() is not None:
            share = 100.0 * self.done / self.asked
            self.artifact = create_progress_artifact(progress=share, key="search", description=f"{self.asked} trials of {row['study']}")


def write(run: Run) -> Path:
    """The run's HTML report, below its folder, and its Markdown summary among Prefect's artifacts."""
    from components.report.html import write_report
    from components.report.strategies import find

    path = write_report(
        run.folder / "report.html", run=facts(run), records=run.records, config=run.config.values,
        events=run.journal.events(), champion=run.champion_before,
        comparison=find(home() / "strategies", run.records.get("version")),
    )  # fmt: skip
    publish_artifacts(run)
    return path


def _champion_report(model: str) -> EvaluationReport | None:
    from components.registry.champions import find_champion

    found = find_champion(model)
    return found.report if found else None


def facts(run: Run) -> JSON:
    """A run in plain figures: identity, state, seconds and what each stage did."""
    ended = next((row for row in reversed(run.journal.events()) if row["event"] in ("run.finished", "run.failed")), None)
    return {
        "id": run.id, "model": run.config.model, "state": ended["event"].partition(".")[2] if ended else "running",
        "started": run.started, "finished": time.time(), "seconds": round(run.budget.spent, 1), "budget": run.config.budget,
        "stages": run.stages, "git": git_revision(), "versions": library_versions(), "overrides": list(run.config.overrides),
    }  # fmt: skip


def publish_artifacts(run: Run) -> None:
    """The summary as Markdown and the trials as a table among Prefect's artifacts, where a flow run is active."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None or not run.records:
        return
    from components.report.leaderboard import trial_rows
    from components.report.markdown import summary

    create_markdown_artifact(summary(facts(run), run.records), key="summary", description=f"run {run.id}")
    if "search" in run.records:
        create_table_artifact(trial_rows(run.records["search"]), key="trials", description="every trial of the search")


def deliver(timeout: float = 3.0) -> None:
    """Waits until Prefect's client has handed its task-run events over, so that the server knows every state."""
    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=timeout)
