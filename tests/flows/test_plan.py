"""`athanor plan` names exactly the stages that hold what changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import grimp
import pytest

from components import fingerprint
from components.fingerprint import ROOT, targets
from flows import plan
from flows.config import load
from flows.table import STAGES
from tests.flows.conftest import SMALL, Athanor

Finished = tuple[Athanor, dict[str, Any]]


@pytest.fixture
def at_home(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process in the finished run's state folder."""
    monkeypatch.setenv("ATHANOR_HOME", str(finished[0].home))
    monkeypatch.chdir(finished[0].home.parent)
    return finished[0].home


def states(*words: str, root: Path = ROOT) -> dict[str, str]:
    return {step.stage: step.state for step in plan.make(load([*SMALL, *words]), root)}


def changed(found: dict[str, str]) -> set[str]:
    return {name for name, state in found.items() if state == "run"}


def expected_stages(config: dict[str, Any]) -> dict[str, set[str]]:
    """Which stages run each module, by an import graph that is not ours."""
    graph = grimp.build_graph("components", exclude_type_checking_imports=True)
    found: dict[str, set[str]] = {}
    for stage in STAGES.values():
        roots = {stage.module, *(t for t in targets({k: config[k] for k in stage.reads}) if t.startswith("components."))}
        modules = set(roots)
        for root in roots:
            modules |= graph.find_upstream_modules(root)
        modules |= {".".join(name.split(".")[: i + 1]) for name in modules for i in range(name.count("."))}
        for module in modules:
            found.setdefault(module, set()).add(stage.name)
    return found


def test_a_constant_in_any_file_names_exactly_its_stages_and_a_comment_none(at_home: Path, tmp_path: Path) -> None:
    """Each file of components in turn, against grimp's import graph."""
    root = tmp_path / "root"
    shutil.copytree(ROOT / "components", root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    config = load(SMALL).values
    expected = expected_stages(config)
    files = sorted((root / "components").rglob("*.py"))
    assert len(files) > 80
    assert changed(states(root=root)) == set()
    for file in files:
        module = str(file.relative_to(root)).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        text = file.read_text()
        file.write_text(text + "\n# a comment\n")
        assert changed(states(root=root)) == set(), f"a comment in {module}"
        file.write_text(text + "\nA_CONSTANT = 1\n")
        assert changed(states(root=root)) == expected.get(module, set()), f"a constant in {module}"
        file.write_text(text)


def test_a_changed_library_version_names_all_stages_that_import_it(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy is in every numeric stage."""
    known = dict(fingerprint.installed())
    monkeypatch.setattr(fingerprint, "installed", lambda: {**known, "numpy": "9.9.9"})
    numeric = {step.stage for step in plan.make(load(SMALL)) if any("numpy" in why for why in step.why)}
    assert {"version", "validate", "augment", "search", "train", "fuse", "distill", "export", "quantize", "evaluate"} <= numeric


@pytest.mark.parametrize(
    ("word", "stages"),
    [
        ("split.validation=0.2", {"version"}),
        ("check.size=null", {"validate"}),
        ("augmentation.degrees=5", {"augment"}),
        ("strategy=random", {"search"}),
        ("search.trials=3", {"search"}),
        ("search.workers=2", set()),
        ("training.epochs=3", {"train", "fuse", "distill"}),
        ("training.clip=2", {"search", "train", "fuse", "distill"}),
        ("space.dropout=0.1", {"search", "train", "fuse", "distill"}),
        ("fusion.members=3", {"fuse"}),
        ("distillation.temperature=2", {"distill"}),
        ("quantization=dynamic", {"quantize"}),
        ("selection.tolerance=0.1", {"evaluate"}),
        ("model=other", set(STAGES)),
        ("seed=1", {"search", "train", "fuse", "distill"}),
        ("budget=10h", {"search"}),
        ("gate=[beats_baseline]", {"promote"}),
    ],
)
def test_one_setting_names_the_stages_that_read_it(at_home: Path, word: str, stages: set[str]) -> None:
    """And says which part of the key changed; what comes after follows."""
    steps = {step.stage: step for step in plan.make(load([*SMALL, word]))}
    if word.startswith("model="):
        assert steps["register"].state == "run"
        assert steps["train"].state == "cached"
        return
    assert changed({name: step.state for name, step in steps.items()}) == stages
    for name in stages:
        assert any(part in " ".join(steps[name].why) for part in ("config", "extent", "seed", "space", "code")), steps[name].why


def test_a_changed_byte_of_the_data_is_a_changed_input(at_home: Path, tmp_path: Path) -> None:
    """The version stage's inputs are the digests of its sources."""
    first = tmp_path / "a.csv"
    first.write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(50)))
    words = ("dataset=csv", f"dataset.path={first}", "dataset.target=y")
    before = plan.make(load([*SMALL, *words]))[0]
    from flows.keys import key_parts

    stage = STAGES["version"]
    config = load([*SMALL, *words])
    key = key_parts(stage, (), config.section(stage.reads), 0, fingerprint.SourceCache()).key
    first.write_text(first.read_text() + "50,0\n")
    assert before.state == "run"
    assert key_parts(stage, (), config.section(stage.reads), 0, fingerprint.SourceCache()).key != key
