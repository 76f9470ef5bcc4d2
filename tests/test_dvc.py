"""dvc.yaml fits the stage table, and after each one-key edit `dvc repro --dry` and `athanor plan` name the same stages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.fingerprint import ROOT
from flows import plan
from flows.config import load
from flows.dvc import render
from flows.table import STAGES

SMALL = {
    r"^budget: .*$": "budget: null", r"^  trials: .*$": "  trials: 2", r"^  workers: auto      # trials.*$": "  workers: 1",
    r"^  epochs: auto       # a trial.*$": "  epochs: 1",
    r"^  epochs: auto       # the winner.*$": "  epochs: 2", r"^  memory_format: auto.*$": "  memory_format: contiguous",

}  # fmt: skip
EDITS = [
    ("conf/pipeline.yaml", r"^seed: 0", "seed: 1"),
    ("conf/pipeline.yaml", r"^budget: null", "budget: 9h"),
    ("conf/pipeline.yaml", r"^  trials: 2", "  trials: 3"),
    ("conf/pipeline.yaml", r"^  epochs: 2", "  epochs: 3"),
    ("conf/pipeline.yaml", r"^  tolerance: 0.005", "  tolerance: 0.01"),
    ("conf/pipeline.yaml", r"^  validation: 0.15", "  validation: 0.2"),
    ("conf/pipeline.yaml", r"  - strategy: surrogate", "  - strategy: random"),
    ("conf/pipeline.yaml", r"  - quantization: static", "  - quantization: dynamic"),
    ("conf/augmentation/affine.yaml", r"^degrees: .*$", "degrees: 5.0"),
    ("conf/fusion/ensemble.yaml", r"^members: .*$", "members: 3        # fewer"),
    ("conf/distillation/logits.yaml", r"^temperature: .*$", "temperature: 2.5"),
    ("conf/exporter/onnx.yaml", r"^opset: .*$", "opset: 19"),
    ("conf/gate/beats_champion.yaml", r"^saving: .*$", "saving: 0.3"),
    ("conf/space/mlp.yaml", r"^dropout: .*$", "dropout: 0.2"),
]


def test_dvc_yaml_is_what_the_stage_table_says() -> None:
    """Renewed by: python -m flows.stage > dvc.yaml."""
    assert (ROOT / "dvc.yaml").read_text() == render()


def test_every_stage_stands_in_five_places() -> None:
    """Component function, Prefect task, configuration, stage door, dvc.yaml."""
    from components.build import OWN_PACKAGES
    from flows import tasks

    assert OWN_PACKAGES == ("components",)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    values = load([]).values
    for stage in STAGES.values():
        module, _, function = stage.verb.partition(":")
        assert function == stage.name
        assert f"def {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert getattr(tasks, stage.name).name == stage.name
        assert set(stage.reads) <= set(values)
        assert stages[stage.name]["cmd"].endswith(f"flows.stage {stage.name}")


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project, small, whose stages have all run through the stage door and are in dvc.lock."""
    root = tmp_path_factory.mktemp("dvc") / "project"
    root.mkdir()
    for name in ("components", "flows", "conf", ".dvc"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "site_cache", "tmp", "cache"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    (root / ".dvc" / "config").write_text((ROOT / ".dvc" / "config").read_text() + "    no_scm = true\n    site_cache_dir = site_cache\n")
    pipeline = root / "conf" / "pipeline.yaml"
    text = pipeline.read_text()
    for pattern, line in SMALL.items():
        text, count = re.subn(pattern, line, text, flags=re.MULTILINE)
        assert count == 1, pattern
    pipeline.write_text(text)
    (root / ".venv").mkdir()
    (root / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    door = "import sys; from flows.stage import enter; from flows.table import STAGES; [enter(name, []) for name in STAGES]"
    subprocess.run([sys.executable, "-c", door], cwd=root, env=environment(root), check=True, capture_output=True)
    dvc(root, "commit", "--force", "--quiet")
    return root


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "ATHANOR_HOME"}
    return {**kept, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1"}


def dvc(root: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, env=environment(root), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def would_run(root: Path) -> set[str]:
    """The stages that `dvc repro --dry` names."""
    return set(re.findall(r"Running stage '(\w+)'", dvc(root, "repro", "--dry")))


def test_dry_repro_and_plan_agree_after_each_one_key_edit(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both name the stages whose own configuration changed; what follows from them is decided by their results. An edit that
    nobody reads names none; neither does a choice that is not taken."""
    monkeypatch.setenv("ATHANOR_HOME", str(pinned / ".athanor"))
    monkeypatch.chdir(pinned)

    def planned() -> dict[str, str]:
        return {step.stage: step.state for step in plan.make(load([], conf=pinned / "conf"), pinned)}

    assert set(planned().values()) == {"cached"}
    assert would_run(pinned) == set()
    named: set[str] = set()
    for name, pattern, line in EDITS:
        file = pinned / name
        before = file.read_text()
        after, count = re.subn(pattern, line, before, flags=re.MULTILINE)
        assert count == 1, (name, pattern)
        file.write_text(after)
        found = {stage for stage, state in planned().items() if state == "run"}
        assert would_run(pinned) == found, f"{name}: {line}"
        named |= found
        file.write_text(before)
    assert named == set(STAGES) - {"validate", "register"}


def test_metrics_and_plots_are_shown(pinned: Path) -> None:
    """`dvc metrics show` and `dvc plots show`."""
    metrics = json.loads(dvc(pinned, "metrics", "show", "--json"))
    assert 0 < metrics[""]["data"][".athanor/stages/metrics.json"]["data"]["test"]["accuracy"] <= 1
    dvc(pinned, "plots", "show", "--out", "plots")
    page = (pinned / "plots" / "index.html").read_text()
    assert "Learning curve" in page
    assert "predicted" in page


@pytest.mark.slow
def test_pins_are_made_pushed_and_pulled_with_a_local_remote(tmp_path: Path) -> None:
    """`athanor data add`, `push`, `pull` in a repository of one's own: the bytes come back."""
    root, remote = tmp_path / "repository", tmp_path / "remote"
    (root / "data").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    source = tmp_path / "churn.csv"
    source.write_text("x,left\n1,yes\n2,no\n")

    def athanor(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATHANOR_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "data", *words], cwd=root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    athanor("add", "churn", str(source))
    assert (root / "data" / "churn.csv.dvc").is_file()
    athanor("push", f"remote={remote}")
    (root / "data" / "churn.csv").unlink()
    shutil.rmtree(root / ".dvc" / "cache")
    athanor("pull")
    assert (root / "data" / "churn.csv").read_text() == source.read_text()
