"""A flow of one's own: README's script as it stands, in a folder of its own, on a machine where nothing was started before."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components import journal
from components.fingerprint import ROOT
from flows.table import STAGES
from tests.flows.conftest import SMALL, Athanor
from tests.flows.test_bad_input import nothing_lives_in

TINY = ["experiment=ci", "search.trials=1", "search.epochs=1", "training.epochs=1", "seed=3"]
REST = """

@flow
def again(words):
    config = load(words).values
    state = version(config, return_state=True)
    print(state.name)
    policy = augment(state.result(), config)
    return search(state.result(), policy, config)

print(len(again(WORDS).trials))
"""


def readme_script() -> str:
    """The Python text between README's markers, with the words of a tiny run."""
    block = (ROOT / "README.md").read_text().split("<!-- own-flow -->")[1]
    text = block.split("```python\n")[1].split("```")[0]
    assert text.count('["experiment=ci"]') == 1
    return text.replace('["experiment=ci"]', repr(TINY))


def test_every_task_works_in_a_script_without_a_guard(fresh: Athanor) -> None:
    """Records and a plain dict; this home's own server; what was computed is cached; no process is left."""
    script = fresh.home.parent / "script.py"
    script.write_text(readme_script() + REST.replace("WORDS", repr(TINY)))
    environment = {name: value for name, value in fresh.environment.items() if not name.startswith("PREFECT_API")}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=script.parent, env=environment, capture_output=True, text=True, timeout=250
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, cached, second = done.stdout.splitlines()
    assert "version 1 of digits" in first
    assert cached == "Cached"
    assert second == "1"
    assert "Traceback" not in done.stderr
    assert "temporary server" not in done.stderr
    with sqlite3.connect(fresh.home / "prefect.db") as database:
        flows = dict(database.execute("select f.name, r.state_type from flow_run r join flow f on f.id = r.flow_id").fetchall())
        tasks = database.execute("select name, state_name from task_run").fetchall()
    assert flows == {"mine": "COMPLETED", "again": "COMPLETED"}
    assert {name.rpartition("-")[0] for name, _ in tasks} == set(STAGES)
    assert sum(state == "Cached" for _, state in tasks) == 3
    assert seed_of_version_one(fresh.home) == "3"
    assert nothing_lives_in(fresh.home)
    assert [row["state"] for row in fresh.json("status")["runs"]] == ["staged"]


def seed_of_version_one(home: Path) -> str:
    with sqlite3.connect(home / "mlflow.db") as database:
        rows = dict(database.execute("select key, value from model_version_tags where version = 1").fetchall())
    return next(value for key, value in rows.items() if key.endswith("seed"))


@pytest.mark.slow
def test_a_killed_worker_is_tried_again_and_prefect_knows(copy_of_finished: Callable[[], Athanor]) -> None:
    """SIGKILL to the process that trains: the run ends well, and the train task has a second attempt and no other has."""
    athanor = copy_of_finished()
    process = athanor.start("run", *SMALL, "training.epochs=6", "--json")
    os.kill(worker_at_work(athanor.home, process), signal.SIGKILL)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert "train     failed: stage train: worker process died (SIGKILL)" in err
    document = json.loads(out)
    assert document["stages"]["train"]["state"] == "ran"
    with sqlite3.connect(athanor.home / "prefect.db") as database:
        attempts = {name.rpartition("-")[0]: count for name, count in database.execute("select name, run_count from task_run")}
        states = [name for (name,) in database.execute("select s.name from task_run_state s join task_run t on t.id = s.task_run_id "
                                                       "where t.name like 'train-%' order by s.timestamp")]  # fmt: skip
    assert attempts == {name: 2 if name == "train" else 1 for name in STAGES}
    assert any("Retry" in name for name in states), states
    assert nothing_lives_in(athanor.home)


def worker_at_work(home: Path, process: subprocess.Popen[str]) -> int:
    """The learning worker's process, once the run's journal says that training has begun."""
    known = set(home.glob("runs/*/journal.jsonl"))
    while process.poll() is None:
        for file in set(home.glob("runs/*/journal.jsonl")) - known:
            rows = list(journal.read(file))
            pids = [row["pid"] for row in rows if row["event"] == "worker.started" and row["name"] == "learning"]
            if pids and any(row["event"] == "epoch" and row.get("stage") == "train" for row in rows):
                return int(pids[-1])
        time.sleep(0.02)
    raise AssertionError(f"the run ended before it trained: {process.communicate()[1]}")
