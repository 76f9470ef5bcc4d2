"""A finished run, from every side: what it says, what it left behind, and that there is nothing left to do."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.fingerprint import ROOT
from flows.table import STAGES
from tests.flows.conftest import SMALL, Athanor

Finished = tuple[Athanor, dict[str, Any]]


def test_the_document_has_the_promised_keys_and_only_json_on_standard_output(finished: Finished) -> None:
    """run, model, version, promoted, metrics, deployable, seconds, stages: {name: {state, seconds}}."""
    _, document = finished
    assert {"run", "model", "version", "promoted", "metrics", "deployable", "seconds", "stages"} <= set(document)
    assert list(document["stages"]) == list(STAGES)
    assert all(row["state"] == "ran" and row["seconds"] >= 0 for row in document["stages"].values())
    assert document["model"] == "digits"
    assert (document["version"], document["promoted"], document["champion"]) == (1, True, 1)
    accuracy = document["metrics"]["accuracy"]
    assert 0.5 < accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1.0


def test_the_same_command_again_has_nothing_to_do_and_loads_nothing_heavy(finished: Finished) -> None:
    """All stages cached, the same version, and torch, mlflow, prefect, hydra are not even imported."""
    athanor, document = finished
    program = (
        "import sys; from flows.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'mlflow', 'prefect', 'hydra', 'pandas', 'sklearn', 'lightning'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "run", *SMALL, "--json"], cwd=athanor.home.parent, env=athanor.environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    again = json.loads(done.stdout)
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert {row["state"] for row in again["stages"].values()} == {"cached"}
    assert (again["version"], again["metrics"]) == (document["version"], document["metrics"])
    assert "nothing to do: data, configuration, code, library versions and seed are as they were" in athanor("run", *SMALL)


def test_prefect_knows_one_task_run_for_each_stage(finished: Finished) -> None:
    """The server's own database, after the run: eleven completed task runs in one completed flow run, with artifacts."""
    athanor, _ = finished
    with sqlite3.connect(athanor.home / "prefect.db") as database:
        tasks = database.execute("select name, state_type, state_name from task_run").fetchall()
        flows = database.execute("select state_type from flow_run").fetchall()
        artifacts = {row[0] for row in database.execute("select key from artifact")}
    assert sorted(name.rpartition("-")[0] for name, _, _ in tasks) == sorted(STAGES)
    assert {state for _, state, _ in tasks} == {"COMPLETED"}
    assert flows == [("COMPLETED",)]
    assert {"summary", "trials", "search"} <= artifacts


def test_mlflow_holds_the_run_its_trials_and_the_champion(finished: Finished) -> None:
    """One parent run with two nested ones; version 1 with its lineage in tags; the alias."""
    athanor, document = finished
    with sqlite3.connect(athanor.home / "mlflow.db") as database:
        parents = [row[0] for row in database.execute("select run_uuid from tags where key = 'athanor.kind' and value = 'trial'")]
        aliases = dict(database.execute("select alias, version from registered_model_aliases where name = 'digits'").fetchall())
        tags = dict(database.execute("select key, value from model_version_tags where name = 'digits' and version = 1").fetchall())
    assert len(parents) == 2
    assert aliases == {"champion": 1}
    named = " ".join(tags)
    for word in ("data", "config", "code", "git", "seed"):
        assert word in named, f"no tag says {word!r}: {sorted(tags)}"
    assert document["run"] in tags.values()


def test_the_report_is_one_file_that_loads_nothing(finished: Finished) -> None:
    """No address, no script or picture from elsewhere."""
    _, document = finished
    text = Path(document["report"]).read_text()
    assert len(text) > 20_000
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*["']""", text)
    assert "default-src 'none'" in text


def test_predict_uses_onnx_runtime_alone_and_outlives_the_artifact_store(copy_of_finished: Callable[[], Athanor], tmp_path: Path) -> None:
    """With the store and the pointer gone and MLflow left: the same predictions, and lineage still walks."""
    from sklearn.datasets import load_digits

    athanor = copy_of_finished()
    np.savetxt(tmp_path / "rows.csv", load_digits().data[:20], delimiter=",", fmt="%d")
    first = athanor.json("predict", str(tmp_path / "rows.csv"), f"out={tmp_path / 'a.csv'}")
    assert first["rows"] == 20
    import shutil

    for name in ("artifacts", "champions", "models", "studies", "scratch", "runs"):
        shutil.rmtree(athanor.home / name, ignore_errors=True)
    athanor("predict", str(tmp_path / "rows.csv"), f"out={tmp_path / 'b.csv'}")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    kinds = [row["kind"] for row in athanor.json("lineage", "digits")["lineage"]]
    assert {"ModelVersion", "TrainedModel", "DatasetVersion"} <= set(kinds)


def test_predict_never_imports_torch_or_mlflow(finished: Finished, tmp_path: Path) -> None:
    """An edge machine needs ONNX Runtime and numpy."""
    athanor, _ = finished
    (tmp_path / "rows.csv").write_text(",".join(["3"] * 64) + "\n")
    program = (
        "import sys; from flows.cli import main; code = main(sys.argv[1:]);"
        "print(sorted({'torch', 'mlflow', 'prefect', 'onnx', 'lightning'} & set(sys.modules)))"
    )
    words = ["predict", str(tmp_path / "rows.csv"), f"out={tmp_path / 'out.csv'}"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, env=athanor.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", ["status", "leaderboard", "report", "doctor", "plan", "verify"])
def test_the_verbs_that_look_give_one_json_document(finished: Finished, verb: str) -> None:
    """And a text for people without --json."""
    athanor, document = finished
    found = athanor.json(verb, *(SMALL if verb == "plan" else ()))
    assert isinstance(found, dict)
    if verb in ("leaderboard", "report"):
        assert found["run"] == document["run"]
    if verb == "verify":
        assert found == {"artifacts": len(STAGES), "damaged": []}


def test_a_flipped_bit_in_the_store_is_found_and_computed_again(copy_of_finished: Callable[[], Athanor]) -> None:
    """verify says which artifact, plan says which stage, and a run mends exactly that."""
    athanor = copy_of_finished()
    victim = next(athanor.home.glob("artifacts/quantize/*/*.onnx"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    assert athanor.json("plan", *SMALL)["stages"]["quantize"]["state"] == "run"
    assert "damaged" in athanor("verify", code=65)
    mended = athanor.json("run", *SMALL)
    assert {name: row["state"] for name, row in mended["stages"].items() if row["state"] == "ran"} == {"quantize": "ran"}
    assert mended["version"] == 1
    assert "are intact" in athanor("verify")
    with sqlite3.connect(athanor.home / "prefect.db") as database:
        states = dict(database.execute("select state_name, count(*) from task_run group by 1").fetchall())
    assert states == {"Cached": len(STAGES) - 1, "Completed": 1}


def test_what_no_run_refers_to_is_freed(copy_of_finished: Callable[[], Athanor]) -> None:
    """clean keeps what the last runs and models use, and removes the rest."""
    athanor = copy_of_finished()
    stray = athanor.home / "artifacts" / "train" / ("0" * 64)
    stray.mkdir()
    (stray / "weights.bin").write_bytes(b"x" * 1000)
    assert athanor.json("clean") == {"removed": 1, "bytes": 1000}
    assert {row["state"] for row in athanor.json("plan", *SMALL)["stages"].values()} == {"cached"}


def test_the_same_in_three_lines_of_python(copy_of_finished: Callable[[], Athanor]) -> None:
    """`synthesize` returns the Decision; every stage is a task run in the state Cached; no process is left behind."""
    athanor = copy_of_finished()
    script = f"from flows.pipeline import synthesize\ndecision = synthesize({list(SMALL)!r})\nprint(decision.promoted, decision.version)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=athanor.home.parent, env=athanor.environment, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.split() == ["True", "1"], done.stderr
    with sqlite3.connect(athanor.home / "prefect.db") as database:
        assert database.execute("select distinct state_name from task_run").fetchall() == [("Cached",)]
