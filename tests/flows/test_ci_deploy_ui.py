"""What runs beside a person: CI's Markdown, a schedule that fires, and the two web pages; each ends without a trace."""

from __future__ import annotations

import asyncio
import json
import logging
import select
import signal
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.deployments import _is_no_cancellation, check
from tests.flows.conftest import SMALL, Athanor
from tests.flows.test_bad_input import nothing_lives_in


def test_ci_prints_markdown_with_the_metrics_beside_the_champions(copy_of_finished: Callable[[], Athanor]) -> None:
    """On a home that has a champion: its figures in a column of their own."""
    athanor = copy_of_finished()
    markdown = athanor("ci", *SMALL[1:], "quantization=none")
    assert markdown.startswith("#")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")]
    heads = [row for row in rows if any("champion" in cell.lower() for cell in row)]
    assert heads, markdown
    (accuracy,) = [row for row in rows if row[0].strip("*` ") == "accuracy"]
    figures = [cell for cell in accuracy[1:] if cell[:2] in ("0.", "1.")]
    assert len(figures) >= 2, accuracy
    assert "Traceback" not in markdown
    assert nothing_lives_in(athanor.home)


def test_both_pages_answer_and_leave_nothing(copy_of_finished: Callable[[], Athanor]) -> None:
    """One JSON document with two loopback addresses; Ctrl-C ends both with 0."""
    athanor = copy_of_finished()
    process = athanor.start("ui", "--json")
    pages = json.loads(line_of(process, 150))
    assert set(pages) == {"prefect", "mlflow"}
    for address in pages.values():
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}/", timeout=30) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read().lower()
    with urllib.request.urlopen(f"{pages['prefect']}/ui-settings", timeout=30) as answer:
        assert json.load(answer)["api_url"] in ("/api", f"{pages['prefect']}/api")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert err == ""
    assert nothing_lives_in(athanor.home)


def line_of(process: subprocess.Popen[str], seconds: float) -> str:
    """The first line on standard output, waited for."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    assert ready, "nothing was printed"
    return process.stdout.readline()


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/5 0-6/2 * jan-mar mon-fri", "0,30 8-18 1,15 * 7"])
def test_a_cron_that_is_one_passes(cron: str) -> None:
    """What Prefect takes, we take (the refusals are in test_bad_input)."""
    from prefect.client.schemas.schedules import CronSchedule

    check(cron)
    CronSchedule(cron=cron)


def test_a_connection_that_ends_with_the_process_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio of Python 3.11 logs a task that was cancelled in a callback; other errors stay."""
    logger = logging.getLogger("asyncio")
    logger.addFilter(_is_no_cancellation)
    try:
        for error in (asyncio.CancelledError(), ValueError("a bug")):
            logger.error("Exception in callback", exc_info=error)
    finally:
        logger.removeFilter(_is_no_cancellation)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_schedule_fires_and_a_signal_ends_it(copy_of_finished: Callable[[], Athanor], ending: signal.Signals) -> None:
    """Every minute: within a minute and a half a scheduled flow run completes; a signal ends the process and all it started."""
    athanor = copy_of_finished()
    process = athanor.start("deploy", "cron=* * * * *", *SMALL)
    until = time.monotonic() + 150
    while not fired(athanor.home) and time.monotonic() < until and process.poll() is None:
        time.sleep(1)
    found = fired(athanor.home)
    process.send_signal(ending)
    _, err = process.communicate(timeout=60)
    assert found, err
    assert process.returncode == 0, err
    assert "Traceback" not in err, err
    assert nothing_lives_in(athanor.home, 15)


def fired(home: Path) -> bool:
    """Whether a scheduled flow run has completed."""
    try:
        with sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True) as database:
            return bool(database.execute("select 1 from flow_run where auto_scheduled and state_type = 'COMPLETED'").fetchall())
    except sqlite3.Error:
        return False
