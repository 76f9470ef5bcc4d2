"""`parent=` by its three names leads to one and the same model, is pinned for a run, and shows in the lineage."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from components.artifacts import StoredFile, TrainedModel
from components.build import build
from components.errors import DataError, UnknownNameError, UsageError
from components.models.enlarged import enlarged
from components.models.parent import Parent, pack
from components.registry import versions
from components.registry.lineage import ancestors, parent_of
from flows import parents, plan
from flows.config import load
from flows.parents import adopted, find, judge, resolve
from flows.status import records_of
from flows.table import STAGES, candidate_of
from flows.verbs import call_verb
from tests.flows.conftest import SMALL, Athanor

Finished = tuple[Athanor, dict[str, Any]]
MODEL = "mlflow:models:/digits"


@pytest.fixture
def at_home(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process in the finished run's state folder."""
    monkeypatch.setenv("ATHANOR_HOME", str(finished[0].home))
    monkeypatch.chdir(finished[0].home.parent)
    return finished[0].home


@pytest.fixture
def filed(at_home: Path) -> Path:
    """The folder that was filed with version 1."""
    folder = versions.local_folder("digits", 1)
    assert folder is not None
    return folder / versions.RECORDS / "parent"


def names(finished: Finished, filed: Path) -> dict[str, str]:
    return {
        "run": f"run:{finished[1]['run']}", "file": f"file:{filed}", "alias": f"{MODEL}@champion", "version": f"{MODEL}/1",
    }  # fmt: skip


def test_every_name_leads_to_the_model_that_the_champion_was_made_from(finished: Finished, filed: Path, at_home: Path) -> None:
    """Without MLflow, torch or a second copy; its identity is the one in the report."""
    found = {kind: resolve(name) for kind, name in names(finished, filed).items()}
    assert len({parent.identity for parent in found.values()}) == 1
    report = records_of(at_home / "runs" / finished[1]["run"])["evaluate"]
    assert {parent.model.identity for parent in found.values()} == {report.best.model.model}
    assert found["alias"].origin == {"reference": f"{MODEL}@champion", "model": "digits", "version": 1}
    assert found["run"].origin["run"] == finished[1]["run"]


def test_a_stages_key_takes_the_parent_not_its_name(finished: Finished, filed: Path) -> None:
    """plan says the same of search and train under each name, and what a run without a parent has done stays as it is."""
    keys = set()
    for name in names(finished, filed).values():
        steps = {step.stage: step for step in plan.make(load([*SMALL, f"parent={name}"]))}
        assert {stage for stage, step in steps.items() if step.state == "run"} == {"search", "train", "fuse", "distill"}
        keys.add(tuple(why for stage in ("search", "train") for why in steps[stage].why))
    assert len(keys) == 1
    assert {step.state for step in plan.make(load(SMALL))} == {"cached"}


@pytest.mark.parametrize("kind", ["run", "file", "alias"])
def test_the_train_stage_begins_from_each(finished: Finished, filed: Path, at_home: Path, tmp_path: Path, kind: str) -> None:
    """On the digits, as the stage's worker is called: half of the network rests, the rest has learned on."""
    config = load([*SMALL, f"parent={names(finished, filed)[kind]}", "finetune=frozen", "training.epochs=1"])
    section = adopted(config.section(STAGES["train"].reads), None, "train")
    records = records_of(at_home / "runs" / finished[1]["run"])
    inputs = (records["version"], records["augment"], candidate_of(records["search"]))
    work = {"out": tmp_path / "out", "seed": 0, "scratch": None, "seconds": None}
    model: TrainedModel = call_verb(STAGES["train"].verb, inputs, section, work, {}, emit=lambda event, **fields: None)
    parent = resolve(names(finished, filed)[kind])
    assert model.parents == (parent.model.identity,)
    assert model.adopted["finetune"] == "frozen"
    assert model.candidate.architecture == parent.model.candidate.architecture
    assert 0 < model.adopted["trained_parameters"] < model.num_parameters
    assert model.metrics["accuracy"] > 0.9


def test_an_alias_that_moves_while_a_run_is_open_does_not_change_its_parent(finished: Finished, filed: Path, tmp_path: Path) -> None:
    """What the run found is kept in its folder; under another name it is looked up."""
    other = shutil.copytree(filed, tmp_path / "other")
    first = find(f"{MODEL}@champion", tmp_path)
    note = json.loads((tmp_path / parents.KEPT).read_text())
    note[f"{MODEL}@champion"]["origin"]["version"] = 7
    (tmp_path / parents.KEPT).write_text(json.dumps(note))
    assert find(f"{MODEL}@champion", tmp_path).origin["version"] == 7
    assert find(f"file:{other}", tmp_path).identity == first.identity


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("run:nope", UnknownNameError, "unknown run 'nope'"),
        (f"{MODEL}@best", UnknownNameError, "unknown alias of model 'digits' 'best' .*champion"),
        (f"{MODEL}/7", UsageError, "has no version 7; it has 1"),
        (f"{MODEL}", UsageError, "NAME@ALIAS or mlflow:models:/NAME/VERSION"),
        ("mlflow:models:/digit@champion", UnknownNameError, "did you mean 'digits'"),
        ("file:nowhere", DataError, "there is no file"),
    ],
)
def test_a_name_that_leads_nowhere(at_home: Path, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        resolve(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["parent=resnet50"], r"parent must be run:ID, file:PATH, .*got 'resnet50'"),
        (["parent=run:"], "parent must be run:ID"),
    ],
)
def test_what_is_no_name_is_told_when_it_is_composed(home: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(words)


def test_names_are_taken_as_they_are_typed(home: Path) -> None:
    """Runs and paths have characters that mean something to Hydra."""
    for name in ("run:20261122-101010-a~2", "file:/tmp/a b/it's {here}=x, y", "mlflow:models:/my digits@champion"):
        assert load([f"parent={name}"]).values["parent"] == name
    assert load(["parent=null"]).values["parent"] is None


def test_members_of_a_soup_are_looked_up_and_belong_to_its_key(finished: Finished, filed: Path, at_home: Path) -> None:
    """Under any name; nothing before the fusion takes note of them, and the lineage tells where they came from."""
    run = f"run:{finished[1]['run']}"
    keys = set()
    for name in (run, f"file:{filed}", f"{MODEL}@champion"):
        config = load([*SMALL, f"parent={run}", "fusion=greedy_soup", f"fusion.members=['{name}']"])
        judge(config.values, None)
        steps = {step.stage: step for step in plan.make(config)}
        keys.add(steps["fuse"].why)
        section = adopted(config.section(STAGES["fuse"].reads), None, "fuse")
        assert [Parent.from_json(row).model.identity for row in section["joining"]] == [resolve(run).model.identity]
        assert section["fusion"]["members"] == []
        assert "joining" not in adopted(config.section(STAGES["train"].reads), None, "train")
    assert len(keys) == 1
    row = parent_of(resolve(run), "member")
    assert row["role"] == f"member (run {finished[1]['run']})"
    assert ancestors("soup", {"models": [{"identity": "soup", "parents": [row["identity"]]}], "joining": [row]}) == [row]


def test_members_of_a_soup_that_cannot_be_averaged_are_told_before_a_run(finished: Finished, at_home: Path, tmp_path: Path) -> None:
    """Names that are none, an architecture that the search would choose, tensors that differ."""
    run = f"run:{finished[1]['run']}"
    with pytest.raises(UsageError, match=r"a name in fusion.members must be run:ID.*got 'theirs'"):
        load(["fusion=greedy_soup", "fusion.members=[theirs]"])
    with pytest.raises(UsageError, match=r"fusion.members must be a list, got 'run:a'; write \[run:a\]"):
        load(["fusion=greedy_soup", "fusion.members=run:a"])
    with pytest.raises(UsageError, match=r"fusion.members must be a list of names, got 7"):
        build(load(["fusion=greedy_soup", "fusion.members=7"]).values["fusion"])
    with pytest.raises(UsageError, match=r"fusion.members must be a whole number"):
        load(["fusion=ensemble", "fusion.members=[run:a]"])
    with pytest.raises(UsageError, match=f"the search chooses without a parent; take parent={run}"):
        judge(load(["fusion=uniform_soup", f"fusion.members=['{run}']"]).values, None)
    parent = resolve(run)
    state = load_file(parent.model.weights.path)
    state["extra.bias"] = np.zeros(3, np.float32)
    save_file(state, tmp_path / "weights.safetensors")
    weights = StoredFile.of(tmp_path / "weights.safetensors")
    other = pack(parent.model.replace(weights=weights), parent.dataset, tmp_path / "other")
    values = load([f"parent={run}", "fusion=uniform_soup", f"fusion.members=['{run}','file:{other}']"]).values
    with pytest.raises(UsageError, match=rf"same tensors, extra.bias is none in {run} and \[3\] in file:"):
        judge(values, None)


def test_a_parent_that_grows_is_all_there_is_to_build(finished: Finished, at_home: Path) -> None:
    """Search, train and the stages behind them see the larger architecture, and the settings are in no key but by it."""
    run = f"parent=run:{finished[1]['run']}"
    parent = resolve(run.removeprefix("parent="))
    before = parent.model.candidate.architecture
    config = load([*SMALL, run, "growth.width=1.5", "growth.blocks=1", "finetune=frozen"])
    judge(config.values, None)
    for stage in ("search", "train", "fuse", "distill"):
        section = adopted(config.section(STAGES[stage].reads), None, stage)
        assert section["space"]["architecture"] == {**before, **enlarged(before, 1.5, 1)} != before
        assert "growth" not in section
    assert "growth" not in adopted(load(SMALL).section(STAGES["train"].reads), None, "train")
    same = adopted(load([*SMALL, run, "growth.width=1.0"]).section(STAGES["train"].reads), None, "train")
    assert same == adopted(load([*SMALL, run]).section(STAGES["train"].reads), None, "train")


def test_growth_that_leads_nowhere_is_told_before_a_run(finished: Finished, at_home: Path) -> None:
    run = f"run:{finished[1]['run']}"
    for words, message in (
        (["growth.width=2"], r"growth.width=2 makes a parent's network larger; add parent=run:ID"),
        ([f"parent={run}", "growth.blocks=1", "inherit=stages"], "growth.blocks=1 makes its own larger; choose one of them"),
        ([f"parent={run}", "growth.width=0.5"], "growth.width must be a number of at least 1 and at most 16, got 0.5"),
        ([f"parent={run}", "growth.blocks=some"], "growth.blocks must be a whole number of at least 0, got 'some'"),
        ([f"parent={run}", "growth=2"], "growth holds settings by name, got 2; write growth.SETTING=VALUE, such as growth.width=1.5"),
        ([f"parent={run}", "growth.depth=2"], "unknown"),
    ):
        with pytest.raises(UsageError, match=message):
            load([*SMALL, *words])
    with pytest.raises(UsageError, match=r"fusion.members are averaged with the teacher, which growth.width=2 makes larger"):
        judge(load([*SMALL, f"parent={run}", "growth.width=2", "fusion=uniform_soup", f"fusion.members=['{run}']"]).values, None)


def test_what_cannot_go_together_is_told_before_a_run(finished: Finished, at_home: Path, tmp_path: Path) -> None:
    """A method without a parent, an evaluator with weights of its own, data of another modality."""
    run = f"parent=run:{finished[1]['run']}"
    with pytest.raises(UsageError, match="finetune=lora says how a parent's weights are trained on; add parent="):
        judge(load([*SMALL, "finetune=lora"]).values, None)
    for evaluator in ("inherit", "zero_cost"):
        with pytest.raises(UsageError, match=f"evaluator={evaluator} .*; choose evaluator=train"):
            judge(load([*SMALL, run, f"evaluator={evaluator}"]).values, None)
    table = records_of(at_home / "runs" / finished[1]["run"])["version"].replace(modality="table", name="adult")
    with pytest.raises(UsageError, match=r"was trained on image data \(digits\), dataset 'adult' is table"):
        judge(load([*SMALL, run]).values, table)
    with pytest.raises(UsageError, match=r"was trained on image data \(digits\), the dataset is table; name a parent of table data"):
        judge(load([*SMALL, run, "dataset=csv", "dataset.path=x.csv", "dataset.target=y"]).values, None)


def test_a_pickle_ends_the_command_before_anything_runs(finished: Finished, tmp_path: Path) -> None:
    """65, in one line, and it was not opened."""
    mark, file = tmp_path / "mark", tmp_path / "model.pt"

    class Mischief:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, (f"open({str(mark)!r}, 'w')",)

    file.write_bytes(pickle.dumps(Mischief()))
    line = finished[0].fails("run", *SMALL, f"parent=file:{file}", code=65)
    assert "is a pickle, which can run code" in line
    assert not mark.exists()


def test_parent_spaces_are_built_by_the_allow_list(filed: Path) -> None:
    """A record that names a class which is not ours builds nothing."""
    parent = Parent.from_json(json.loads((filed / "model.json").read_text())["parent"], filed)
    with pytest.raises(UsageError, match="is not allowed"):
        build({**parent.model.space, "_target_": "os.system"})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_from_the_champion_is_registered_with_its_line(copy_of_finished: Callable[[], Athanor]) -> None:
    """From start to end in a search over two methods; lineage walks on to the champion it began from, and the same
    command has nothing to do although its own model is the next one's champion."""
    athanor = copy_of_finished()
    words = [*SMALL, "model=child", f"parent={MODEL}@champion", "finetune=[frozen,lora]"]
    document = athanor.json("run", *words)
    assert document["version"] == 1
    rows = athanor.json("lineage", "child")["lineage"]
    assert [row["name"] for row in rows if row["kind"] == "ModelVersion"] == ["child version 1", "digits version 1"]
    assert "parent (version 1 of digits)" in [row["name"] for row in rows]
    planned = athanor.json("plan", *words)["stages"]
    assert {name: row["why"] for name, row in planned.items() if row["state"] != "cached"} == {}
    grandchild = athanor.json("plan", *SMALL, "model=grandchild", "parent=mlflow:models:/child/1")
    assert grandchild["stages"]["search"]["state"] == "run"
