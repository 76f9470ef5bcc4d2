"""`parent=... inherit=stages`: the search is that of a run without a parent, the full training begins from a stitch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.artifacts import TrainedModel
from components.errors import UsageError
from components.models.network import load_network
from components.models.parent import pack
from flows import plan
from flows.config import load
from flows.parents import adopted, judge, resolve
from flows.status import records_of
from flows.table import STAGES, candidate_of
from flows.verbs import call_verb
from tests.flows.conftest import SMALL, Athanor

Finished = tuple[Athanor, dict[str, Any]]


@pytest.fixture
def asked(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a run that takes stages of the finished one's model, in its state folder."""
    monkeypatch.setenv("ATHANOR_HOME", str(finished[0].home))
    monkeypatch.chdir(finished[0].home.parent)
    return [*SMALL, f"parent=run:{finished[1]['run']}", "inherit=stages", "training.epochs=1"]


def test_the_search_is_that_of_a_run_without_a_parent(asked: list[str]) -> None:
    """Nothing is searched again; what comes after it is made anew."""
    steps = {step.stage: step for step in plan.make(load([word for word in asked if not word.startswith("training.")]))}
    assert steps["search"].state == "cached"
    assert steps["train"].state == "run"


def test_the_train_stage_takes_stages_over(finished: Finished, asked: list[str], tmp_path: Path) -> None:
    """As the stage's worker is called: the record names the parent and the stages, and the network is built from it again."""
    section = adopted(load(asked).section(STAGES["train"].reads), None, "train")
    records = records_of(finished[0].home / "runs" / finished[1]["run"])
    inputs = (records["version"], records["augment"], candidate_of(records["search"]))
    work = {"out": tmp_path / "out", "seed": 0, "scratch": None, "seconds": None}
    told: list[str] = []
    model: TrainedModel = call_verb(STAGES["train"].verb, inputs, section, work, {}, emit=lambda event, **fields: told.append(event))
    assert model.role == "teacher"
    assert model.parents == (resolve(load(asked).values["parent"]).model.identity,)
    assert model.adopted["inherit"] == "stages"
    assert model.space["_target_"] == "components.models.stitched.Stitched"
    assert not load_network(model, records["version"]).training
    assert {"stitch", "stitched"} <= set(told)


def test_what_cannot_be_is_told_before_a_run(asked: list[str], home: Path) -> None:
    with pytest.raises(UsageError, match="inherit must be none or stages, got 'stage'"):
        load(["inherit=stage"])
    with pytest.raises(UsageError, match="inherit=stages takes stages of a parent's; add parent=run:ID"):
        load(["inherit=stages"])
    both = "finetune=lora trains the parent's own architecture on, inherit=stages puts its stages in another"
    with pytest.raises(UsageError, match=both):
        judge(load([*asked, "finetune=lora"]).values, None)


def test_a_parent_that_is_several_networks_is_refused(asked: list[str], tmp_path: Path) -> None:
    """Filed as it would be after fusion=ensemble."""
    parent = resolve(load(asked).values["parent"])
    ensemble = parent.model.replace(members=({"role": "teacher"}, {"role": "trial3"}))
    pack(ensemble, parent.dataset, tmp_path)
    words = [word for word in asked if not word.startswith("parent=")]
    with pytest.raises(UsageError, match=r"stages of one network, parent file:.* is made of teacher, trial3; name a run with fusion=none"):
        judge(load([*words, f"parent=file:{tmp_path}"]).values, None)
