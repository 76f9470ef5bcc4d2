"""How many trials run at once: asked for, measured, remembered, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components import processes
from components.errors import UsageError
from components.search import workers


def silent(event: str, **fields: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 195.0}, 2),
        ({1: 100.0, 2: 80.0}, 2),  # noise: somebody else was busy for a moment
        ({1: 100.0, 2: 50.0}, 1),  # they block each other
        ({1: 100.0, 2: 200.0, 4: 390.0, 8: 400.0, 16: 400.0}, 8),  # four real cores behind sixteen
    ],
)
def test_as_many_processes_as_still_run_at_a_fair_speed(rates: dict[int, float], expected: int) -> None:
    """One more core is used unless it slows the others to less than a third."""
    assert workers.choose(rates) == expected


def test_number_asked_for_is_taken_but_never_more_than_there_are_trials(tmp_path: Path) -> None:
    """Nothing is measured for it."""
    assert [workers.count_workers(n, 3, tmp_path / "notes", silent) for n in (1, 2, 8)] == [1, 2, 3]
    assert workers.count_workers("auto", 1, tmp_path / "notes", silent) == 1
    assert workers.count_workers("auto", 0, tmp_path / "notes", silent) == 1
    assert not (tmp_path / "notes").exists()


@pytest.mark.parametrize("asked", [0, -1, 1.5, True, "all", None])
def test_anything_else_is_refused(tmp_path: Path, asked: Any) -> None:
    """The key, the rule and the value in one line."""
    with pytest.raises(UsageError, match=r"search\.workers must be auto or a whole number of at least 1"):
        workers.count_workers(asked, 4, tmp_path / "notes", silent)


def test_what_was_measured_is_kept_for_these_cores_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed study does not measure again; on another number of cores, or from a damaged note, it does."""
    notes = tmp_path / "workers.json"
    measured: list[int] = []

    def measure(cores: int) -> dict[int, float]:
        measured.append(cores)
        return {1: 100.0, cores: 150.0}

    monkeypatch.setattr(workers, "measure", measure)
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    assert [workers.count_workers("auto", 9, notes, silent) for _ in range(2)] == [2, 2]
    assert measured == [2]
    monkeypatch.setattr(workers, "available_cores", lambda: 4)
    assert workers.count_workers("auto", 9, notes, silent) == 4
    notes.write_text(notes.read_text()[:-9])
    assert workers.count_workers("auto", 9, notes, silent) == 4
    assert measured == [2, 4, 4]
    assert json.loads(notes.read_text())["cores"] == 4


def test_quota_of_a_control_group_counts(tmp_path: Path) -> None:
    """`150000 100000` is one and a half cores; `max` and a missing file are no limit."""
    file = tmp_path / "cpu.max"
    file.write_text("150000 100000\n")
    assert processes._quota(file) == 1.5
    file.write_text("max 100000\n")
    assert processes._quota(file) is None
    assert processes._quota(tmp_path / "absent") is None


def test_steps_are_counted_in_the_time_given() -> None:
    """A real, if short, measurement gives a plausible figure."""
    assert 1 < workers.steps_per_second(0.05) < 1e5


def test_a_node_of_our_own_that_did_not_come_up_is_started_once_more() -> None:
    """As Ray's does on a busy machine; a second failure is told, and a cluster that does not answer at once."""
    from components.search.runner.ray import _start

    class Ray:
        def __init__(self, *fails: Exception | None) -> None:
            self.fails, self.calls = list(fails), list[str]()

        def init(self, **options: object) -> None:
            self.calls.append("init")
            if error := self.fails.pop(0):
                raise error

        def shutdown(self) -> None:
            self.calls.append("shutdown")

    once = Ray(TypeError("expected bytes, NoneType found"), None)
    _start(once, address="local")
    assert once.calls == ["init", "shutdown", "init"]
    for fails, error in ([[TypeError(), ValueError("again")], ValueError], [[ConnectionError(), None], OSError]):
        with pytest.raises(error):  # type: ignore[arg-type]
            _start(Ray(*fails), address="local")  # type: ignore[misc]
