"""Why a trial left no result, told apart: out of memory, over its time, killed from outside, or a bug of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from components.artifacts import Trial
from components.errors import UsageError
from components.processes import WorkerBug, WorkerDied
from components.search.interface import Outcome
from components.training.failure import cause_of
from components.training.failure import oom_kills as oom_kills


class NoTimeError(UsageError):
    """The time was too short for a single trial."""


LIVES = 3  # times that a trial's process is killed from outside before the trial is given up


def was_killed(exitcode: int | None) -> bool:
    """Whether a process was ended from outside, rather than by a fault of its own."""
    return exitcode is None or exitcode in (-9, -15)


def explain(outcome: Outcome, *, out_of_memory: bool = False) -> tuple[str, str, str]:
    """State, cause and reason of a trial whose process left no result."""
    if out_of_memory or outcome.kind == "oom":
        return "failed", "oom", "out of memory: the kernel killed its process"
    if outcome.kind == "timeout":
        return "failed", "timeout", f"stopped after {outcome.seconds:.1f} s: it did not keep to its limit"
    if outcome.kind == "died" and was_killed(outcome.value):
        return "killed", "killed", f"{WorkerDied(outcome.value)} {LIVES} times"
    if outcome.kind == "died":
        return "failed", "bug", str(WorkerDied(outcome.value))
    if isinstance(outcome.value, WorkerBug) and (outcome.value.kind == "MemoryError" or cause_of(outcome.value) == "oom"):
        return "failed", "oom", f"out of memory: {outcome.value.message or 'MemoryError'}"
    return "failed", "bug", str(outcome.value) if outcome.kind == "error" else "its process left no result"


def tally(trials: Sequence[Trial]) -> str:
    """How many trials failed of what, each cause with the reason given first.

    >>> tally([])
    'no trial was run'
    """
    counts = Counter(t.cause for t in trials)
    first = {t.cause: t.reason for t in reversed(trials)}
    return ", ".join(f"{count} × {cause} ({first[cause]})" for cause, count in counts.most_common()) or "no trial was run"
