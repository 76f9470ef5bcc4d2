"""What every way of fusing must keep, whichever yaml names it; and that those which do not keep it are found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from components import build, metrics
from components.artifacts import StoredFile, TrainedModel
from components.export.export import export
from components.fusion.fuse import fuse
from components.models.network import load_network, save_weights
from components.training.learner import predict, validate
from components.workspace import Workspace
from tests.components.fusion.pools import Case, case
from tests.components.fusion.twins import permuted

CONF = Path(__file__).resolve().parents[2] / "conf" / "fusion"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.fusion"
EXPORTER = {"exporter": {"_target_": "components.export.exporter.onnx.OnnxExporter"}}
Config = dict[str, Any]


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {kind: case(tmp_path_factory.mktemp(kind), kind) for kind in ("image", "table", "values")}


def config_of(name: str) -> Config:
    node: Config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return node


def check(found: Case, node: Config, folder: Path) -> TrainedModel:
    """The contract on one case; returns what was made."""
    model: TrainedModel = build.build(node).fuse(found.pool(folder / "out"))
    is_never_worse_than_the_best_single_model(found, model, folder)
    names_what_it_is_made_of(found, model, folder)
    is_the_same_again(found, node, model, folder)
    return model


def is_never_worse_than_the_best_single_model(found: Case, model: TrainedModel, folder: Path) -> None:
    """By what its network reaches on validation and by what its record says, which claims no more."""
    pool = found.pool(folder / "judge")
    reached = validate(load_network(model, found.dataset), found.dataset, pool.rows, pool.objective)
    said = {name: model.metrics[name] for name in pool.best_metrics}
    floor = pool.score(pool.outputs(pool.teacher)) if model == pool.teacher else pool.best_metrics
    assert not is_worse(reached, floor, pool.objective), "worse than the best single model"
    assert not is_worse(said, floor, pool.objective), "says that it is worse than the best single model"
    assert not is_worse(reached, said, pool.objective), "claims more than its network reaches"


def is_worse(found: dict[str, float], than: dict[str, float], objective: str) -> bool:
    """In the objective or, where that ties, in log-loss, by more than a rounding."""

    def loss(name: str) -> float:
        lost = than[name] - found[name] if metrics.direction(name) == "maximize" else found[name] - than[name]
        return lost if abs(lost) > 1e-6 * max(1.0, abs(than[name])) else 0.0

    return loss(objective) > 0 or (loss(objective) == 0 and "log_loss" in found and loss("log_loss") > 0)


def names_what_it_is_made_of(found: Case, model: TrainedModel, folder: Path) -> None:
    """A model of the pool as it is, or another one that names its parents, each with its weights."""
    pool = found.pool(folder / "names")
    known = {member.identity: member.weights.sha256 for member in pool.models}
    if model.identity in known:
        return
    assert model.parents, "made of nothing"
    assert {row["model"] for row in model.members} == set(model.parents), "each parent has a row"
    origins = {*model.parents, *(parent for row in model.members for parent in row.get("parents", ()))}
    assert known.keys() & origins, "made of none of the pool"
    assert all(known.get(row["model"], row["weights"]) == row["weights"] for row in model.members), "other weights than the parents'"
    assert model.weights.sha256 not in known.values(), "a model of the pool under another name"
    assert model.weights.path.is_relative_to(folder / "out"), "weights are left elsewhere"
    assert model.dataset == found.dataset.identity


def is_exported_as_one_graph(found: Case, model: TrainedModel, folder: Path) -> None:
    """Parity over several batch sizes is the exporter's own condition."""
    (graph,) = export(found.dataset, (model,), EXPORTER, Workspace(out=folder / "export"))
    assert max(graph.parity.values()) < 1e-2


def is_the_same_again(found: Case, node: Config, model: TrainedModel, folder: Path) -> None:
    again = build.build(node).fuse(found.pool(folder / "again"))
    assert again.identity == model.identity, "another model from the same pool and seed"


def averages_nothing_that_is_not_aligned(found: Case, node: Config, folder: Path) -> None:
    """With a permuted copy of the teacher and nothing else in the pool, what comes out answers as the teacher does."""
    (folder / "twin").mkdir(parents=True)
    network = permuted(load_network(found.teacher, found.dataset), seed=1)
    twin = save_weights(network, folder / "twin" / "weights.safetensors")
    trial = found.result.trials[0].replace(candidate=found.teacher.candidate, weights=twin, values=found.teacher.metrics)
    alone = Case(found.dataset, found.policy, found.result.replace(trials=(trial,)), found.teacher, found.config)
    pool = alone.pool(folder / "out")
    model = build.build(node).fuse(pool)
    answers = predict(load_network(model, found.dataset), found.dataset, pool.rows)
    assert not is_worse(pool.score(answers), pool.best_metrics, pool.objective), "spoilt by a copy of itself"


def test_there_are_members() -> None:
    """At least none and ensemble, each a yaml beside a module of the same name."""
    assert {"none", "ensemble"} <= set(MEMBERS)
    for name in MEMBERS:
        assert config_of(name)["_target_"].split(".")[-2] == name


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("kind", ["image", "table", "values"])
def test_member_keeps_the_contract(cases: dict[str, Case], kind: str, name: str, tmp_path: Path) -> None:
    """For images, tables and values to predict; one kind exports too, the others when there is time."""
    model = check(cases[kind], config_of(name), tmp_path)
    if kind == "values":
        is_exported_as_one_graph(cases[kind], model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("kind", ["image", "table"])
def test_member_is_exported(cases: dict[str, Case], kind: str, name: str, tmp_path: Path) -> None:
    is_exported_as_one_graph(cases[kind], build.build(config_of(name)).fuse(cases[kind].pool(tmp_path / "out")), tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_member_is_not_spoilt_by_a_permuted_copy(cases: dict[str, Case], name: str, tmp_path: Path) -> None:
    averages_nothing_that_is_not_aligned(cases["image"], config_of(name), tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_without_trials_there_is_still_a_model(cases: dict[str, Case], name: str, tmp_path: Path) -> None:
    """Trials that kept no weights (cross-validated, scored without training) are no members."""
    found = cases["table"]
    bare = found.result.replace(trials=tuple(trial.replace(weights=None) for trial in found.result.trials))
    work = found.work(tmp_path / "out", seconds=2.0)
    model = fuse(found.dataset, found.policy, bare, found.teacher, {**found.config, "fusion": config_of(name)}, work)
    assert model.weights.path.is_relative_to(tmp_path / "out")
    assert StoredFile.of(model.weights.path) == model.weights
    assert np.isfinite(list(model.metrics.values())).all()
    load_network(model, found.dataset).load_state_dict(load_file(model.weights.path))


@pytest.mark.parametrize("name", ["AveragesAsTheyLie", "EveryoneCounts", "ForgetsItsParents", "Boasts", "RollsDice"])
def test_broken_member_fails(cases: dict[str, Case], name: str, tmp_path: Path) -> None:
    rule = averages_nothing_that_is_not_aligned if name == "AveragesAsTheyLie" else check
    with pytest.raises(AssertionError):
        rule(cases["image"], {"_target_": f"{BROKEN}.{name}"}, tmp_path)
