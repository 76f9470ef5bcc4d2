"""What a user sees while a run works: a live view in a terminal, plain lines elsewhere. Both only listen to the journal.

Everything here goes to standard error; results (a summary, `--json`) go to standard output.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from components.journal import Event, Listener

_quiet = False


def use(*, quiet: bool) -> None:
    """Chooses once, before a run, whether progress is shown."""
    global _quiet
    _quiet = quiet


def listeners() -> tuple[Listener, ...]:
    """The listeners that a run's journal should have in this process."""
    if _quiet:
        return ()
    return (Live() if sys.stderr.isatty() else Lines(),)


def say(text: str) -> None:
    """One line for a person."""
    print(text, file=sys.stderr, flush=True)


def tell_waiting() -> None:
    """Said once when the same run is open in another process."""
    say("the same run is at work in another process; waiting for it")


class Progress:
    """What the journal has told so far: where the run is, the best trial, the last failure."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.budget: float | None = None
        self.stage, self.stage_started = "", self.started
        self.trials = self.failed = 0
        self.best: float | None = None
        self.objective = ""
        self.trouble = ""

    def hear(self, row: Event) -> str | None:
        """Takes one event; returns the line it deserves in a log, or None."""
        handler = getattr(self, "_on_" + row["event"].replace(".", "_"), None)
        return handler(row) if handler else None

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> str:
        """Time left of the budget in words, empty without one."""
        return "" if self.budget is None else f"{clock(max(0.0, self.budget - self.elapsed))} left"

    def _on_run_started(self, row: Event) -> str:
        self.started -= float(row.get("launch_seconds") or 0.0)
        earlier = float(row.get("spent") or 0.0) - float(row.get("launch_seconds") or 0.0)
        self.budget = row["budget"] - earlier if row.get("budget") else None
        within = f", budget {clock(row['budget'])}" if self.budget else ""
        within += f", {clock(earlier)} spent before" if earlier > 1 else ""
        return f"run {row['run']}: model {row['model']}{within}"

    def _on_stage_started(self, row: Event) -> str:
        self.stage, self.stage_started = row["stage"], time.monotonic()
        return f"{row['stage']:<9} runs: {', '.join(row['why'][:3])}" + (" ..." if len(row["why"]) > 3 else "")

    def _on_stage_cached(self, row: Event) -> str:
        return f"{row['stage']:<9} cached"

    def _on_stage_finished(self, row: Event) -> str:
        return f"{row['stage']:<9} done in {row['seconds']:.1f} s"

    def _on_stage_failed(self, row: Event) -> str:
        return f"{row['stage']:<9} failed: {row['why'].splitlines()[0] if row['why'] else row['kind']}"

    def _on_stage_waiting(self, row: Event) -> str:
        return f"{row['stage']:<9} waits: {row['why']}"

    def _on_trial_finished(self, row: Event) -> str:
        self.trials += 1
        self.best = row.get("best", self.best)
        value = row.get("value")
        best = f", best {self.best:.4f}" if isinstance(self.best, float) else ""
        shown = f"{value:.4f}" if isinstance(value, float) else row.get("state", "")
        return f"{'trial':<9} {row['number']:>3} {shown}{best}  {row.get('architecture', '')} in {row.get('seconds', 0):.1f} s"

    def _on_trial_failed(self, row: Event) -> str:
        self.failed += 1
        self.trouble = f"trial {row['number']}: {row.get('reason', row.get('state', 'failed'))}"
        return f"{'trial':<9} {row['number']:>3} {row.get('state', 'failed')}: {row.get('reason', '')}"

    def _on_run_finished(self, row: Event) -> None:
        return None


class Lines:
    """Plain lines, one an event worth one: for logs and CI."""

    def __init__(self) -> None:
        self.progress = Progress()

    def __call__(self, row: Event) -> None:
        line = self.progress.hear(row)
        if line:
            say(f"{clock(self.progress.elapsed):>6}  {line}")


class Live:
    """The same lines with a status line below them that is redrawn: stage, trials, best so far, time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status

        self.console = Console(stderr=True, highlight=False)
        self.status = Status("starting", console=self.console, spinner="dots")
        self.progress = Progress()
        self.epoch: dict[str, Any] = {}
        self.status.start()

    def __call__(self, row: Event) -> None:
        line = self.progress.hear(row)
        if row["event"] == "epoch":
            self.epoch = row
        if row["event"] in ("stage.started", "stage.finished"):
            self.epoch = {}
        if line:
            self.console.print(f"[dim]{clock(self.progress.elapsed):>6}[/dim]  {_coloured(line)}", soft_wrap=True)
        if row["event"].startswith("run.") and row["event"] != "run.started":
            self.status.stop()
        else:
            self.status.update(self._now())

    def _now(self) -> str:
        progress = self.progress
        parts = [f"[bold]{progress.stage or 'starting'}[/bold]"]
        if progress.stage == "search" and progress.trials:
            parts.append(f"{progress.trials} trials" + (f", {progress.failed} failed" if progress.failed else ""))
            parts.append(f"best {progress.best:.4f}" if isinstance(progress.best, float) else "")
            parts.append(f"[yellow]{progress.trouble}[/yellow]" if progress.trouble else "")
        if self.epoch and progress.stage != "search":
            value = self.epoch.get("value")
            parts.append(
                f"epoch {self.epoch.get('epoch')}/{self.epoch.get('epochs')}" + (f", {value:.4f}" if isinstance(value, float) else "")
            )
        parts.append(progress.left())
        return " · ".join(part for part in parts if part)


def _coloured(line: str) -> str:
    from rich.markup import escape

    head, _, rest = line.partition(" ")
    colour = "red" if "failed" in rest else "green" if "done" in rest or "cached" in rest else "cyan"
    return f"[{colour}]{escape(head)}[/{colour}] {escape(rest)}"


def clock(seconds: float) -> str:
    """Seconds as `42 s`, `3:05` or `1:02:03`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
