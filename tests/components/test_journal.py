"""The journal: append-only, checksummed, never fatal."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from components.journal import Journal, read


def test_events_are_read_back_in_order_and_told_to_listeners(tmp_path: Path) -> None:
    """What is written is heard and read."""
    heard: list[str] = []
    journal = Journal(tmp_path / "j", (lambda row: heard.append(row["event"]),))
    journal.write("a", x=1)
    journal.write("b", text="ä → ö")
    assert heard == ["a", "b"]
    assert [(row["event"], row.get("x"), row.get("text")) for row in journal.events()] == [("a", 1, None), ("b", None, "ä → ö")]


def test_a_torn_last_line_is_cut_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    """A kill in the middle of a write costs that event only."""
    path = tmp_path / "j"
    Journal(path).write("a")
    with path.open("ab") as file:
        file.write(b'0badcafe {"event": "to')
    journal = Journal(path)
    journal.write("b")
    assert [row["event"] for row in journal.events()] == ["a", "b"]


def test_a_damaged_line_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    """A flipped bit loses one event, not the journal."""
    path = tmp_path / "j"
    journal = Journal(path)
    for name in "abc":
        journal.write(name)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"event": "b"', b'"event": "x"'))
    assert [row["event"] for row in read(path)] == ["a", "c"]


def test_seconds_spent_add_up_over_sessions_and_skip_the_time_between(tmp_path: Path, monkeypatch) -> None:
    """A killed session counts up to its last event; the pause before the next one does not."""
    now = [0.0]
    monkeypatch.setattr("components.journal.time.time", lambda: now[0])
    journal = Journal(tmp_path / "j")
    for moment, event in [(100, "run.started"), (130, "trial.finished"), (500, "run.started"), (520, "run.finished")]:
        now[0] = float(moment)
        journal.write(event)
    assert journal.seconds_spent() == 50.0


def _write_many(path: Path, name: str) -> None:
    journal = Journal(path)
    for number in range(200):
        journal.write(name, number=number, padding="x" * 500)


def test_concurrent_writers_never_mix_their_lines(tmp_path: Path) -> None:
    """Three processes, six hundred lines, all whole."""
    context = multiprocessing.get_context("fork")
    Journal(tmp_path / "j").write("first")
    children = [context.Process(target=_write_many, args=(tmp_path / "j", name)) for name in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert len(list(read(tmp_path / "j"))) == 601
