"""`growth.width` and `growth.blocks`: a parent's network made larger is where its training begins, computing the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.artifacts import Candidate, DatasetVersion
from components.build import build
from components.errors import UsageError
from components.models.network import load_network
from components.models.parent import Parent, adopting
from components.report.sections import began
from components.training.batches import load_rows
from components.training.learner import validate
from components.training.train import train
from components.training.trial import run_trial
from components.training.tuning import Start, begin
from components.workspace import Workspace
from tests.components.models import tiny
from tests.components.training.parents import PLAIN, UNCHANGED, killed_at, methods, parent_of
from tests.components.training.test_fit import CONVNET, HOW, OPTIMIZERS

Data = tuple[Parent, DatasetVersion]
LARGER = {"width": 12, "depths": [2, 2]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A parent that tells stripes apart, and its own data."""
    folder = tmp_path_factory.mktemp("data")
    dataset = tiny.stripes(folder / "data", rows={"train": 96, "validation": 40, "test": 40})
    return parent_of(dataset, folder / "parent", epochs=6, pooling="average"), dataset


def config_of(parent: Parent, method: str = "full", **growth: Any) -> dict[str, Any]:
    base = {"space": CONVNET, "optimizer": OPTIMIZERS, "training": dict(PLAIN), "metrics": {}, "search": {"epochs": 2}, "growth": growth}
    return {**adopting(base, parent), "finetune": {method: methods()[method]}}


def begun(parent: Parent, dataset: DatasetVersion, config: dict[str, Any]) -> tuple[Start, Candidate]:
    """A training's beginning for what the space draws."""
    space = build(config["space"])
    candidate = Candidate(space="adopted", architecture=space.sample(None, dataset), hyperparameters={**HOW, "dropout": 0.0})
    return begin(candidate, config, dataset, 0), candidate


@pytest.mark.parametrize("method", sorted(methods()))
def test_it_begins_by_answering_as_the_parent_does(data: Data, method: str) -> None:
    """Whatever of it is then trained; the new blocks are."""
    parent, dataset = data
    start, candidate = begun(parent, dataset, config_of(parent, method, width=1.5, blocks=1))
    assert {name: candidate.architecture[name] for name in LARGER} == LARGER
    image = [load_rows(dataset, "validation").fields["image"]]
    with torch.no_grad():
        ours, theirs = start.network.eval()(*image), load_network(parent.model, dataset).eval()(*image)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert (start.facts["parent"], start.facts["grown"]) == (parent.model.identity, "width 8 to 12, depths [1, 1] to [2, 2]")
    assert 0.2 < start.facts["inherited"] < 0.8, "two of four blocks came from the parent"
    assert start.facts["trained_parameters"] > 0


def test_new_blocks_learn_while_the_parents_rest(data: Data, tmp_path: Path) -> None:
    """A linear probe of a deeper network trains the head and the two blocks that the parent has not."""
    parent, dataset = data
    config = config_of(parent, "linear_probe", blocks=1)
    start, candidate = begun(parent, dataset, config)
    before = {name: tensor.clone() for name, tensor in start.network.named_parameters()}
    model = train(dataset, UNCHANGED, candidate, config, Workspace(out=tmp_path, seed=0))
    after = load_file(model.weights.path)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name.rpartition(".body")[0] or name for name in changed} == {"features.2", "features.5", "head.1.weight", "head.1.bias"}
    assert model.num_parameters > parent.model.num_parameters
    assert model.parents == (parent.model.identity,)
    assert "grown: depths [1, 1] to [2, 2]; finetune=linear_probe" in began(model)


def test_it_is_trained_searched_and_built_again_from_its_record(data: Data, tmp_path: Path) -> None:
    """A trial and the full training; and the child is a parent in its turn."""
    parent, dataset = data
    config = config_of(parent, width=2, blocks=0)
    candidate = begun(parent, dataset, config)[1]
    trial = run_trial(dataset, UNCHANGED, candidate, config, 0, tmp_path / "trial")
    assert (trial.state, trial.candidate.architecture["width"], trial.fidelity["grown"]) == ("complete", 16, "width 8 to 16")
    model = train(dataset, UNCHANGED, trial.candidate, config, Workspace(out=tmp_path / "out", seed=0))
    found = validate(load_network(model, dataset), dataset, load_rows(dataset, "validation"), "accuracy")
    assert found == pytest.approx(model.metrics, abs=1e-6)
    grandchild = begun(Parent.of(model, dataset), dataset, config_of(Parent.of(model, dataset), blocks=1))[0]
    assert grandchild.candidate.architecture["width"] == 16
    assert grandchild.facts["grown"] == "depths [1, 1] to [2, 2]"


def test_other_classes_and_another_size_grow_too(data: Data, tmp_path: Path) -> None:
    """The head is the child's own, and as fresh as it would be without growth."""
    parent, _ = data
    dataset = tiny.stripes(tmp_path, side=12, rows={"train": 60, "validation": 30, "test": 30}).replace(classes=("wide", "tall"))
    plain, grown = (begun(parent, dataset, config_of(parent, width=width))[0].facts for width in (1, 1.5))
    assert 0.9 < plain["inherited"] < 1
    assert grown["inherited"] == pytest.approx(plain["inherited"], abs=0.03)
    assert "grown" not in plain


def test_killed_within_an_epoch_it_ends_bit_for_bit_as_without(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, dataset = data
    config = config_of(parent, width=1.5, blocks=1)
    candidate = begun(parent, dataset, config)[1]
    whole = train(dataset, UNCHANGED, candidate, config, Workspace(out=tmp_path / "whole"))
    with killed_at(5, monkeypatch):
        train(dataset, UNCHANGED, candidate, config, Workspace(out=tmp_path / "cut", scratch=tmp_path / "s"))
    assert (tmp_path / "s" / "last.ckpt").exists()
    again = train(dataset, UNCHANGED, candidate, config, Workspace(out=tmp_path / "again", scratch=tmp_path / "s"))
    assert again.weights.sha256 == whole.weights.sha256


def test_what_cannot_be_kept_is_refused_in_a_sentence(data: Data, tmp_path: Path) -> None:
    _, dataset = data
    parent = parent_of(dataset, tmp_path, epochs=1, block="plain", norm="group")
    config = config_of(parent, blocks=1)
    candidate = Candidate(space="adopted", architecture=config["space"]["architecture"], hyperparameters=HOW)
    with pytest.raises(UsageError, match=r"depths \[1, 1\] to \[2, 2\] would change what the network computes: a plain block"):
        begin(candidate, config, dataset, 0)
