"""A training that begins from a parent: what rests stays, what learns learns faster, and it goes on exactly after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.artifacts import Candidate, DatasetVersion, StoredFile, TrainedModel
from components.errors import DataError, UnknownNameError, UsageError
from components.models.network import load_network
from components.models.parent import Parent, adopting
from components.training.batches import load_rows
from components.training.learner import parameter_groups, validate
from components.training.train import train
from components.training.trial import folds_asked, run_trial
from components.workspace import Workspace
from tests.components.models import tiny
from tests.components.training.parents import PLAIN, UNCHANGED, killed_at, methods, parent_of
from tests.components.training.test_fit import CONVNET, HOW, OPTIMIZERS

ROWS = {"train": 96, "validation": 40, "test": 40}
Data = tuple[Parent, DatasetVersion]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A parent that tells stripes apart, and stripes under other names."""
    folder = tmp_path_factory.mktemp("data")
    dataset = tiny.stripes(folder / "data", rows=ROWS)
    return parent_of(dataset, folder / "parent", epochs=6, pooling="average"), dataset.replace(classes=("wide", "tall"))


def config_of(parent: Parent, method: str, **arguments: Any) -> dict[str, Any]:
    base = {"space": CONVNET, "optimizer": OPTIMIZERS, "training": dict(PLAIN), "metrics": {}, "search": {"epochs": 2}}
    return {**adopting(base, parent), "finetune": {method: {**methods()[method], **arguments}}}


def candidate(parent: Parent, **how: Any) -> Candidate:
    hyper = {**HOW, "learning_rate": 0.003, **how}
    return Candidate(space="adopted", architecture=parent.model.candidate.architecture, hyperparameters=hyper)


def child(data: Data, method: str, out: Path, *, scratch: Path | None = None, seed: int = 0, **arguments: Any) -> TrainedModel:
    parent, dataset = data
    config = config_of(parent, method, **arguments)
    return train(dataset, UNCHANGED, candidate(parent), config, Workspace(out=out, scratch=scratch, seed=seed))


def states(data: Data, model: TrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return load_file(data[0].model.weights.path), load_file(model.weights.path)


def test_the_record_names_the_parent_and_what_was_trained(data: Data, tmp_path: Path) -> None:
    """The parent's identity and file are in it; the child scores what its record says."""
    model = child(data, "linear_probe", tmp_path)
    assert model.parents == (data[0].model.identity,)
    assert model.adopted == {
        "parent": data[0].model.identity, "finetune": "linear_probe", "inherited": pytest.approx(0.99, abs=0.02), "trained_parameters": 34,
        "of_parameters": model.num_parameters,
    }  # fmt: skip
    assert TrainedModel.from_json(model.to_json()) == model
    found = validate(load_network(model, data[1]), data[1], load_rows(data[1], "validation"), "accuracy")
    assert found == pytest.approx(model.metrics, abs=1e-6)


def test_a_probe_changes_the_head_alone(data: Data, tmp_path: Path) -> None:
    before, after = states(data, child(data, "linear_probe", tmp_path))
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert differ == {"head.1.weight", "head.1.bias"}


def test_frozen_blocks_are_the_parents_bit_for_bit_and_the_others_are_not(data: Data, tmp_path: Path) -> None:
    """Statistics of normalisation too; all of the rest has changed."""
    before, after = states(data, child(data, "frozen", tmp_path, share=0.67, gradual=0.0))
    resting = ("features.0.", "features.1.")
    for name in before:
        if name.startswith(resting):
            assert torch.equal(before[name], after[name]), name
        elif name.partition(".")[0] == "features" and before[name].is_floating_point():
            assert not torch.equal(before[name], after[name]), name


def test_blocks_join_one_after_another_from_the_head_down(data: Data, tmp_path: Path) -> None:
    """Gradual unfreezing: cut off early, the block nearest to the input has not moved, the last one has."""
    parent, dataset = data
    config = config_of(parent, "frozen", share=0.0, gradual=0.9)
    config["search"]["epochs"] = 4
    early = run_trial(dataset, UNCHANGED, candidate(parent), config, 0, tmp_path / "s", epochs=2, weights=tmp_path / "early.safetensors")
    assert early.state == "complete"
    before, half = load_file(parent.model.weights.path), load_file(tmp_path / "early.safetensors")
    assert torch.equal(before["features.0.0.weight"], half["features.0.0.weight"])
    assert torch.equal(before["features.0.1.running_mean"], half["features.0.1.running_mean"])
    assert not torch.equal(before["features.3.body.0.weight"], half["features.3.body.0.weight"])
    run_trial(dataset, UNCHANGED, candidate(parent), config, 0, tmp_path / "s", epochs=4, weights=tmp_path / "whole.safetensors")
    whole = load_file(tmp_path / "whole.safetensors")
    assert not torch.equal(before["features.0.0.weight"], whole["features.0.0.weight"])


def test_lora_changes_weights_by_low_rank(data: Data, tmp_path: Path) -> None:
    before, after = states(data, child(data, "lora", tmp_path, rank=2))
    change = (after["features.3.body.3.weight"] - before["features.3.body.3.weight"]).transpose(1, 2).flatten(2).flatten(0, 1)
    values = torch.linalg.svdvals(change.double())
    assert values[1] > 1e-6
    assert float(values[2] / values[0]) < 1e-5


def test_adapters_stay_in_the_network_and_a_grandchild_has_them_too(data: Data, tmp_path: Path) -> None:
    """The candidate says how wide they are; a child of that child trains on with them, by any method."""
    model = child(data, "adapter", tmp_path / "child", width=3)
    assert model.candidate.architecture["adapters"] == 3
    assert any(".adapter." in name for name in load_file(model.weights.path))
    grandparent = Parent.of(model, data[1])
    grandchild = child((grandparent, data[1]), "full", tmp_path / "grandchild")
    assert grandchild.space["space"]["_target_"].endswith("ConvNet"), "a space is wrapped once, however long the line"
    assert grandchild.candidate.architecture["adapters"] == 3
    assert (grandchild.adopted["inherited"], grandchild.parents) == (1.0, (model.identity,))
    load_network(grandchild, data[1])


@pytest.mark.parametrize("name", sorted(methods()))
def test_the_loss_falls_faster_from_the_right_parent_than_from_a_shuffled_one(data: Data, tmp_path: Path, name: str) -> None:
    """The same values in other places help less: what is taken over is what the parent learned."""
    parent, dataset = data
    state = load_file(parent.model.weights.path)
    generator = torch.Generator().manual_seed(0)
    mixed = {k: v.flatten()[torch.randperm(v.numel(), generator=generator)].view(v.shape).contiguous() for k, v in state.items()}
    save_file(mixed, tmp_path / "shuffled.safetensors")
    shuffled = parent.replace(model=parent.model.replace(weights=StoredFile.of(tmp_path / "shuffled.safetensors")))
    right, wrong = (child((one, dataset), name, tmp_path / str(place)) for place, one in enumerate((parent, shuffled)))
    losses = [[row["train_loss"] for row in model.history] for model in (right, wrong)]
    assert losses[0][-1] < losses[1][-1]
    assert right.metrics["log_loss"] < wrong.metrics["log_loss"]


@pytest.mark.parametrize("name", sorted(methods()))
def test_resumed_within_an_epoch_bit_for_bit(data: Data, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at the fifth of six steps, with blocks that have not joined yet and rates of their own."""
    arguments = {"frozen": {"share": 0.3, "gradual": 0.9}, "full": {"decay": 0.5}}.get(name, {})
    whole = child(data, name, tmp_path / "whole", **arguments)
    with killed_at(5, monkeypatch):
        child(data, name, tmp_path / "cut", scratch=tmp_path / "s", **arguments)
    assert (tmp_path / "s" / "last.ckpt").exists()
    resumed = child(data, name, tmp_path / "resumed", scratch=tmp_path / "s", **arguments)
    assert resumed.weights.sha256 == whole.weights.sha256


def test_rates_are_of_the_named_parameters(data: Data) -> None:
    """What comes from the parent learns at its rate, each block at less than the one after it; the head at the whole."""
    from components.training.tuning import begin

    parent, dataset = data
    start = begin(candidate(parent), config_of(parent, "full", rate=0.5, decay=0.5), dataset, 0)
    assert "head.1.weight" not in start.rates
    rates = [start.rates[f"features.{place}.{rest}"] for place, rest in ((0, "0.weight"), (1, "body.0.weight"), (3, "body.0.weight"))]
    assert rates == [0.5 * 0.5**3, 0.5 * 0.5**2, 0.5 * 0.5]
    groups = parameter_groups(start.network, start.rates)
    assert groups[0].get("rate", 1.0) == 1.0
    assert sum(len(group["params"]) for group in groups) == len(list(start.network.parameters()))


def test_a_trial_begins_from_the_parent_and_the_search_chooses_the_method(data: Data, tmp_path: Path) -> None:
    """What it inherited and trained is told with its fidelity; its candidate can be trained in full."""
    parent, dataset = data
    config = {**config_of(parent, "full"), "finetune": methods()}
    trial = run_trial(dataset, UNCHANGED, candidate(parent, finetune="adapter"), config, 0, tmp_path / "s")
    assert (trial.state, trial.fidelity["finetune"]) == ("complete", "adapter")
    assert 0 < trial.fidelity["trained_parameters"] < 0.3 * trial.num_parameters
    assert trial.candidate.architecture["adapters"] == methods()["adapter"]["width"]
    model = train(dataset, UNCHANGED, trial.candidate, config, Workspace(out=tmp_path / "out"))
    assert model.adopted["finetune"] == "adapter"
    assert model.num_parameters == trial.num_parameters
    with pytest.raises(UnknownNameError, match="did you mean 'lora'"):
        train(dataset, UNCHANGED, candidate(parent, finetune="lorra"), config, Workspace(out=tmp_path / "no"))


def test_a_parent_that_was_tampered_with_ends_the_search_not_a_trial(data: Data, tmp_path: Path) -> None:
    """It is the user's to mend: raised, where a candidate's failure would be recorded."""
    parent, dataset = data
    file = tmp_path / "weights.safetensors"
    content = bytearray(parent.model.weights.path.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    moved = parent.replace(model=parent.model.replace(weights=parent.model.weights.replace(path=file)))
    with pytest.raises(DataError, match="are not those of parent"):
        run_trial(dataset, UNCHANGED, candidate(parent), config_of(moved, "full"), 0, tmp_path / "s")
    file.unlink()
    with pytest.raises(DataError, match="are gone"):
        run_trial(dataset, UNCHANGED, candidate(parent), config_of(moved, "full"), 0, tmp_path / "s")


def test_folds_are_refused_where_the_parent_may_know_their_rows(data: Data) -> None:
    parent, dataset = data
    config = config_of(parent, "full")
    same = dataset.replace(classes=parent.dataset.classes)
    assert folds_asked({**config, "search": {"folds": 5}}, dataset) == 5
    assert folds_asked({**config, "search": {"folds": "auto"}}, same) is None
    with pytest.raises(UsageError, match=r"search\.folds would judge trials on rows that parent stripes may have learned"):
        folds_asked({**config, "search": {"folds": 5}}, same)
