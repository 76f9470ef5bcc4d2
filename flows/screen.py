"""What a user sees while a run works: a live view in a terminal, plain lines elsewhere. Both only listen to the journal.

Everything here goes to standard error; results (a summary, `--json`) go to standard output.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.journal import Event, Listener

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from components.search.leader import Leader

REDRAW_SECONDS = 0.125
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


@dataclass
class Attempt:
    """A trial at work: how far it is, and its value there."""

    architecture: str
    since: float
    state: str = "starting"
    value: float | None = None


class Progress:
    """What the journal has told so far: where the run is, its trials, the best of them, the last failure."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.budget: float | None = None
        self.stage, self.stage_started = "", self.started
        self.trials = self.failed = 0
        self.round = 1
        self.leader: Leader | None = None
        self.trouble = ""
        self.detail = ""
        self._forget_search()

    def _forget_search(self) -> None:
        self.asked = self.done = self.done_before = self.quarters = 0
        self.opened = time.monotonic()
        self.objective = ""
        self.running: dict[int, Attempt] = {}
        self.resting: set[int] = set()

    def hear(self, row: Event) -> str | None:
        """Takes one event; returns the line it deserves in a log, or None."""
        handler = getattr(self, "_on_" + row["event"].replace(".", "_"), None)
        return handler(row) if handler else None

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> str:
        """Time left of the budget in words; without one, about how long the trials that are left will take; else empty."""
        if self.budget is not None:
            return f"{clock(max(0.0, self.budget - self.elapsed))} left"
        ended = self.done - self.done_before
        if self.stage != "search" or ended < 1:
            return ""
        each = (time.monotonic() - self.opened) / ended
        return f"about {clock(each * (self.asked - self.done))} of trials left"

    # ---- the run and its stages ----

    def _on_run_started(self, row: Event) -> str:
        self.started = time.monotonic() - float(row.get("launch_seconds") or 0.0)  # which holds what was waited for another run
        earlier = float(row.get("spent") or 0.0) - float(row.get("launch_seconds") or 0.0)
        self.budget = row["budget"] - earlier if row.get("budget") else None
        within = f", budget {clock(row['budget'])}" if self.budget else ""
        within += f", {clock(earlier)} spent before" if earlier > 1 else ""
        return f"run {row['run']}: model {row['model']}{within}"

    def _on_stage_started(self, row: Event) -> str:
        self.stage, self.stage_started, self.detail = row["stage"], time.monotonic(), ""
        self.round, self.leader = 1, None
        return f"{row['stage']:<9} runs: {', '.join(row['why'][:3])}" + (" ..." if len(row["why"]) > 3 else "")

    def _on_stage_cached(self, row: Event) -> str:
        return f"{row['stage']:<9} cached"

    def _on_stage_finished(self, row: Event) -> str:
        self.detail = ""
        self.running.clear()
        return f"{row['stage']:<9} done in {row['seconds']:.1f} s"

    def _on_stage_failed(self, row: Event) -> str:
        self.running.clear()
        return f"{row['stage']:<9} failed: {row['why'].splitlines()[0] if row['why'] else row['kind']}"

    def _on_stage_waiting(self, row: Event) -> str:
        return f"{row['stage']:<9} waits: {row['why']}"

    def _on_epoch(self, row: Event) -> None:
        value = row.get("value")
        self.detail = f"epoch {row.get('epoch')}/{row.get('epochs')}" + (f", {value:.4f}" if isinstance(value, float) else "")

    def _on_batch_halved(self, row: Event) -> str:
        return f"{row['stage']:<9} memory ran out at step {row['step']}: from now on {row['rows']} rows are taken in {row['parts']} parts"

    def _on_group_restarted(self, row: Event) -> str:
        return f"{row['stage']:<9} starts its processes again: {row['reason']}"

    # ---- the search ----

    def _on_search_opened(self, row: Event) -> str | None:
        self._forget_search()
        self._follow(row)
        self.asked, self.done, self.objective = int(row["trials"]), int(row["finished"]), str(row.get("objective") or "")
        self.done_before, open_before = self.done, int(row.get("interrupted") or 0)
        if not (self.done or open_before):
            return None
        were = "was" if open_before == 1 else "were"
        return f"{'search':<9} goes on: {self.done} of {self.asked} trials are done, {open_before} {were} interrupted"

    def _on_search_runner(self, row: Event) -> str | None:
        """Other machines, or a cluster on this one, take their time to answer; processes are there."""
        return None if row["name"] == "process" else f"{'search':<9} waits for its {row['name']} cluster"

    def _on_search_short(self, row: Event) -> str:
        return f"{'search':<9} has {row['seconds']:.0f} s, too little for a trial: one gets up to {row['grace']:.0f} s; raise the budget"

    def _on_search_waiting(self, row: Event) -> str:
        return f"{'search':<9} waits: another process is at work on this study"

    def _on_search_warm_started(self, row: Event) -> str:
        counted = Counter(str(origin) for origin in row.get("origins") or ())
        origins = ", ".join(origin + (f" ({count} studies)" if count > 1 else "") for origin, count in counted.items())
        return f"{'search':<9} begins with {row['count']} of the best of earlier studies" + (f": {origins}" if origins else "")

    def _on_search_exhausted(self, row: Event) -> str:
        return f"{'search':<9} ends early: the space holds nothing new after {row['trials']} trials"

    def _on_search_round(self, row: Event) -> str:
        self.round = int(row["round"]) + 1
        reached = ", ".join(f"{name} {value:.4f}" for name, value in row["reached"].items() if isinstance(value, float))
        if row["met"]:
            return f"{'round':<9} {row['round']:>3} meets the target with {reached}"
        aim = f"; next: {row['aim']}" if row.get("aim") else ""
        return f"{'round':<9} {row['round']:>3} {reached}, target not met, {row['diagnosis']}: {row['words']}{aim}"

    # ---- fusion ----

    def _on_fused(self, row: Event) -> str:
        was = f", the teacher {_figure(row.get('teacher'))}" if row["role"] != "teacher" else ""
        if row["models"] == 1 and not row.get("members"):
            return f"{'fuse':<9} {row['role']} alone: no trial has left weights"
        members = row.get("members") or []
        alone = members[0] if members and row["role"] == "member" else row["role"]
        made = f"{row['role']} of {', '.join(members)}" if len(members) > 1 else f"{alone} alone"
        return f"{'fuse':<9} {made} of {max(row['models'], len(members))} models: {row['objective']} {_figure(row.get('value'))}{was}"

    def _on_fuse_left_out(self, row: Event) -> str:
        return f"{'fuse':<9} leaves out {row['what']}: {row['reason']}"

    # ---- a supernet, and trials ----

    def _on_supernet_progress(self, row: Event) -> str | None:
        """A line for each quarter: a supernet is trained for minutes before there is a first trial."""
        self.detail = f"supernet {row['share']:.0%} trained, loss {row['loss']:.3f}"
        quarters, self.quarters = self.quarters, int(4 * row["share"])
        return f"{'search':<9} {self.detail}" if self.quarters > quarters else None

    def _on_trial_started(self, row: Event) -> None:
        self.detail = ""
        self.resting.discard(row["number"])
        self.running[row["number"]] = Attempt(str(row.get("architecture") or ""), time.monotonic())

    def _on_trial_epoch(self, row: Event) -> None:
        if attempt := self.running.get(row["number"]):
            attempt.state = f"epoch {row['epoch']}/{row['epochs']}"
            attempt.value = row["value"] if isinstance(row.get("value"), float) else attempt.value

    def _on_trial_batch_halved(self, row: Event) -> str:
        return f"{self._trial(row)} takes {row['rows']} rows in {row['parts']} parts: memory ran out"

    def _on_trial_retried(self, row: Event) -> str:
        self.running.pop(row["number"], None)
        return f"{self._trial(row)} runs again: {row['reason']}"

    def _on_trial_rested(self, row: Event) -> str:
        self._ended(row)
        self.resting.add(row["number"])
        epochs = (row.get("trial") or {}).get("fidelity", {}).get("epochs")
        return f"{self._trial(row)} {_figure(row.get('value'))} rests" + (f" after epoch {epochs:g}" if epochs else "")

    def _on_trial_finished(self, row: Event) -> str:
        self._ended(row)
        self.trials += 1
        best = f", {found}" if (found := self.best()) else ""
        shown = _figure(row.get("value")) or row.get("state", "")
        return f"{self._trial(row)} {shown}{_verdict(row)}{best}  {row.get('architecture', '')} in {row.get('seconds', 0):.1f} s"

    def _on_trial_failed(self, row: Event) -> str:
        self._ended(row)
        self.failed += 1
        reason = " ".join(str(row.get("reason") or row.get("state") or "failed").split())
        self.trouble = f"trial {row['number']}{self._of_round(self.round)}: {reason}"
        return f"{self._trial(row)} {row.get('state', 'failed')}: {reason}"

    def _ended(self, row: Event) -> None:
        self.running.pop(row["number"], None)
        self.resting.discard(row["number"])
        self.asked, self.done = int(row.get("trials") or self.asked), int(row.get("finished") or self.done)
        self.objective = str(row.get("objective") or self.objective)
        self._follow(row)

    def _follow(self, row: Event) -> None:
        from components.search.leader import Leader

        self.leader = self.leader or Leader()
        self.leader.hear(row, self.round)

    def best(self, name: str = "") -> str:
        """The best value of all rounds in words, `closest` where no trial keeps the constraints; empty without one."""
        if self.leader is None or self.leader.trial is None:
            return ""
        value = self.leader.trial.values[self.leader.objective]
        return " ".join(word for word in ("best" if self.leader.is_feasible else "closest", name, f"{value:.4f}") if word)

    def best_place(self) -> str:
        """Which trial that is."""
        if self.leader is None or self.leader.place is None:
            return ""
        round_number, number = self.leader.place
        return f"trial {number}{self._of_round(round_number)}"

    def _trial(self, row: Event) -> str:
        """How the line of a trial begins."""
        return f"{'trial':<9} {row['number']:>3}{self._of_round(self.round)}"

    def _of_round(self, number: int) -> str:
        """Each round counts its trials from 0."""
        return f" of round {number}" if self.round > 1 else ""

    def _on_run_finished(self, row: Event) -> None:
        return None


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""


def _verdict(row: Event) -> str:
    """What keeps a trial that ended from being compared: it was not carried on, or misses a constraint."""
    if row.get("state") == "pruned":
        return " not carried on"
    missed = [name for name, by in ((row.get("trial") or {}).get("constraints") or {}).items() if by > 0]
    return f" misses {', '.join(missed)}" if missed else ""


class Lines:
    """Plain lines, one an event worth one: for logs and CI."""

    def __init__(self) -> None:
        self.progress = Progress()

    def __call__(self, row: Event) -> None:
        line = self.progress.hear(row)
        if line:
            say(f"{clock(self.progress.elapsed):>6}  {line}")


class Live:
    """The same lines with a picture below them that is redrawn: where the run is, the trials at work, the last failure."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live as Region
        from rich.spinner import Spinner

        self.console = console or Console(stderr=True, highlight=False)
        self.progress = Progress()
        self.spinner = Spinner("dots", style="cyan")
        self.region = Region(console=self.console, get_renderable=self.picture, auto_refresh=False, transient=True)
        # Rich's own refreshing thread may draw between the two halves of a line's printing, which then overwrites a line
        # when the region's height has changed: so both are done under one lock here.
        self.lock, self.over = threading.Lock(), threading.Event()
        self.region.start()
        threading.Thread(target=self._redraw, name="screen", daemon=True).start()

    def __call__(self, row: Event) -> None:
        with self.lock:
            if line := self.progress.hear(row):
                self._print(line, is_long=row["event"] == "trial.finished")
            if row["event"].startswith("run.") and row["event"] != "run.started":
                self.over.set()
                self.region.stop()
            elif not self.over.is_set():
                self.region.refresh()

    def _print(self, line: str, *, is_long: bool) -> None:
        """A trial's line names its architecture, which is long: it ends at the window's edge. All else is told whole."""
        edge: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"} if is_long else {"soft_wrap": True}
        self.console.print(f"[dim]{clock(self.progress.elapsed):>6}[/dim]  {_coloured(line)}", **edge)

    def _redraw(self) -> None:
        """Clocks run while nothing happens."""
        while not self.over.wait(REDRAW_SECONDS):
            with self.lock:
                if not self.over.is_set():
                    self.region.refresh()

    def picture(self) -> RenderableType:
        """The region as it is now."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        status = Table.grid(padding=(0, 1))
        status.add_column()
        status.add_column(no_wrap=True, overflow="ellipsis")
        status.add_row(self.spinner, Text.from_markup(self._status()))
        parts: list[Any] = [status]
        if self.progress.running:
            parts.append(self._attempts())
        if self.progress.trouble:
            parts.append(Text(f"  last failure: {self.progress.trouble}", style="yellow", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _status(self) -> str:
        progress = self.progress
        parts = [f"[bold]{progress.stage or 'starting'}[/bold]", *(self._trials() if progress.stage == "search" else [])]
        return " · ".join(part for part in [*parts, progress.detail, progress.left()] if part)

    def _trials(self) -> list[str]:
        progress = self.progress
        told = [f"{progress.done} of {progress.asked} trials"] if progress.asked else []
        told += [f"{progress.failed} failed"] if progress.failed else []
        told += [f"{len(progress.resting)} resting"] if progress.resting else []
        best = progress.best(progress.objective)
        number = f"round {progress.round}" if progress.round > 1 else ""
        return [number, ", ".join(told), f"{best} ({progress.best_place()})" if best else ""]

    def _attempts(self) -> RenderableType:
        """One row a trial at work, as many as a third of the window holds."""
        from rich.table import Table

        table = Table.grid(padding=(0, 2), expand=True)
        for width in (10, 12, 7, 6, None):
            table.add_column(no_wrap=True, overflow="ellipsis", min_width=width, ratio=1 if width is None else None, justify="left")
        most, now = max(2, self.console.height // 3), time.monotonic()
        attempts = sorted(self.progress.running.items())
        for number, found in attempts[:most]:
            table.add_row(
                f"  trial {number}", found.state, _figure(found.value), clock(now - found.since), found.architecture, style="cyan"
            )
        if len(attempts) > most:
            table.add_row(f"  and {len(attempts) - most} more")
        return table


def _coloured(line: str) -> str:
    from rich.markup import escape

    head, _, rest = line.partition(" ")
    colour = "red" if "failed" in rest or "killed" in rest else "green" if "done" in rest or "cached" in rest else "cyan"
    return f"[{colour}]{escape(head)}[/{colour}] {escape(rest)}"


def clock(seconds: float) -> str:
    """Seconds as `42 s`, `3:05` or `1:02:03`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
