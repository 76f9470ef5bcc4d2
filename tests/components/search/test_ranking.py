"""Which trial is best, and what a trial without a result died of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import Candidate, Trial
from components.processes import WorkerBug
from components.search.failures import explain, oom_kills, tally
from components.search.interface import Outcome
from components.search.ranking import best_of, violation, without_nan

CANDIDATE = Candidate(space="s", architecture={}, hyperparameters={})


def trial(number: int, accuracy: float, log_loss: float = 1.0, state: str = "complete", num_parameters: int = 10) -> Trial:
    values = {"accuracy": accuracy, "log_loss": log_loss}
    return Trial(number=number, candidate=CANDIDATE, state=state, values=values, num_parameters=num_parameters)


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([trial(0, 0.8), trial(1, 0.9), trial(2, 0.7)], 1),
        ([trial(0, 0.9, 0.5), trial(1, 0.9, 0.3)], 1),
        ([trial(0, 0.9, 0.3, num_parameters=20), trial(1, 0.9, 0.3, num_parameters=10)], 1),
        ([trial(1, 0.9), trial(0, 0.9)], 0),
        ([trial(0, math.nan), trial(1, 0.1)], 1),
        ([trial(0, math.inf), trial(1, 0.1)], 1),
        ([trial(0, 0.9, math.nan), trial(1, 0.9, 5.0)], 1),
        ([trial(0, 0.99, state="killed"), trial(1, 0.98, state="failed"), trial(2, 0.1)], 2),
    ],
)
def test_best_is_by_objective_then_log_loss_then_size_then_age(trials: list[Trial], best: int) -> None:
    """NaN, infinity and trials that did not complete never win."""
    found = best_of(trials, "accuracy", "maximize")
    assert found is not None
    assert found.number == best


def test_direction_is_heeded_and_nothing_is_best_of_nothing() -> None:
    """The same trials, minimised; and None where no trial is complete."""
    lowest = best_of([trial(0, 0.8), trial(1, 0.9)], "accuracy", "minimize")
    assert lowest is not None
    assert lowest.number == 0
    assert best_of([trial(0, math.nan), trial(1, 1.0, state="killed")], "accuracy", "maximize") is None


def test_complete_trial_without_a_finite_objective_is_a_failed_one() -> None:
    """NaN is told from a value that is missing by our own mistake; an honest trial is left alone."""
    diverged, forgotten, fine = without_nan(trial(0, math.nan), "accuracy"), without_nan(trial(0, 0.5), "rmse"), trial(0, 0.5)
    assert (diverged.state, diverged.cause, diverged.values) == ("failed", "nan", {})
    assert (forgotten.state, forgotten.cause) == ("failed", "bug")
    assert without_nan(fine, "accuracy") is fine


@pytest.mark.parametrize(
    ("kind", "value", "out_of_memory", "expected"),
    [
        ("timeout", 3.0, False, ("failed", "timeout", "stopped after 4.0 s: it did not keep to its limit")),
        ("died", -9, True, ("failed", "oom", "out of memory: the kernel killed its process")),
        ("died", -9, False, ("killed", "killed", "worker process died (SIGKILL) 3 times")),
        ("died", -15, False, ("killed", "killed", "worker process died (SIGTERM) 3 times")),
        ("died", -11, False, ("failed", "bug", "worker process died (SIGSEGV)")),
        ("error", WorkerBug("MemoryError", "", ""), False, ("failed", "oom", "out of memory: MemoryError")),
        ("error", WorkerBug("RuntimeError", "can't allocate memory", ""), False, ("failed", "oom", "out of memory: can't allocate memory")),
        ("error", WorkerBug("KeyError", "'x'", ""), False, ("failed", "bug", "KeyError: 'x'")),
        ("done", 0, False, ("failed", "bug", "its process left no result")),
    ],
)
def test_each_end_has_its_cause(kind: str, value: Any, out_of_memory: bool, expected: tuple[str, str, str]) -> None:
    """Time, memory, a kill and a bug are told apart."""
    assert explain(Outcome(key=0, kind=kind, value=value, seconds=4.0), out_of_memory=out_of_memory) == expected


def test_kernels_count_of_memory_kills_is_read(tmp_path: Path) -> None:
    """From the line `oom_kill` of vmstat; 0 where there is none."""
    file = tmp_path / "vmstat"
    file.write_text("nr_free_pages 12\noom_kill 3\nthp 0\n")
    assert oom_kills(file) == 3
    file.write_text("nr_free_pages 12\n")
    assert oom_kills(file) == 0
    assert oom_kills(tmp_path / "absent") == 0


def test_tally_counts_causes_and_gives_the_first_reason_of_each() -> None:
    """The most frequent cause first."""
    failed = [
        trial(n, 0.0, state="failed").replace(cause=cause, reason=reason)
        for n, (cause, reason) in enumerate([("nan", "loss is nan"), ("oom", "first"), ("oom", "second")])
    ]
    assert tally(failed) == "2 × oom (first), 1 × nan (loss is nan)"


def test_the_closest_to_several_limits_is_told_by_shares_of_them() -> None:
    """One parameter too many (of 100) is nearer than twice the time allowed, though 1 is more than 0.01."""

    def measured(missed: dict[str, float], **values: float) -> float:
        return violation(trial(0, 0.9).replace(values=values, constraints=missed))

    assert measured({"latency_ms": 0.01, "num_parameters": -10.0}, latency_ms=0.02, num_parameters=90.0) == pytest.approx(1.0)
    assert measured({"latency_ms": 0.0, "num_parameters": 1.0}, latency_ms=0.01, num_parameters=101.0) == pytest.approx(0.01)
    assert measured({"accuracy": 0.2}, accuracy=0.6) == pytest.approx(0.25)
