"""Prefect's server of a home: when it leaves, and that whoever comes just then gets another one."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import NoReturn

import pytest

from flows import server


class Left(Exception):
    """In the place of the end of the process."""


@pytest.fixture
def leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def leave(code: int) -> NoReturn:
        raise Left(code)

    monkeypatch.setenv("ATHANOR_HOME", str(tmp_path))
    monkeypatch.setattr(server.os, "_exit", leave)
    (tmp_path / "prefect.json").write_text('{"pid": 1, "port": 1}')
    return tmp_path


def test_its_address_is_forgotten_before_it_ends(leaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins while the process ends must not wait for a server that will never answer."""
    monkeypatch.setattr(server.time, "sleep", lambda seconds: None)
    with pytest.raises(Left):
        server._leave_when_unneeded()
    assert not (leaving / "prefect.json").exists()


def test_it_stays_for_a_client_that_comes_last(leaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for one that comes between the last look and the end; it leaves when that one has gone."""
    looks = 0
    client = (leaving / "prefect.clients").open("a+")

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            fcntl.flock(client.fileno(), fcntl.LOCK_SH)
        if looks == 5:
            assert (leaving / "prefect.json").exists()
            client.close()

    monkeypatch.setattr(server.time, "sleep", sleep)
    with pytest.raises(Left):
        server._leave_when_unneeded()
    assert looks >= 6
