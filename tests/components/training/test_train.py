"""The train verb writes a model that another process can load and that scores what its record says."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import Candidate, DatasetVersion, TrainedModel
from components.errors import CorruptArtifactError
from components.models.network import load_network
from components.training.batches import load_rows
from components.training.extent import full_epochs, trial_epochs
from components.training.learner import validate
from components.training.train import train
from components.workspace import Workspace
from tests.components.models import tiny
from tests.components.training.test_fit import CONVNET, HOW, OPTIMIZERS, SMALL_CONVNET
from tests.components.training.test_trial import POLICY

CONFIG = {"space": CONVNET, "optimizer": OPTIMIZERS, "training": {"epochs": 3, "memory_format": "auto"}, "metrics": {}}


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path / "data")


def teacher(dataset: DatasetVersion, folder: Path, **options: object) -> TrainedModel:
    candidate = Candidate(
        space="convnet", architecture=SMALL_CONVNET, hyperparameters=HOW, numerics={"threads": 1, "memory_format": "channels_last"}
    )  # fmt: skip
    return train(dataset, POLICY, candidate, CONFIG, Workspace(out=folder, **options))


def test_the_saved_model_scores_what_its_record_says(dataset: DatasetVersion, tmp_path: Path) -> None:
    model = teacher(dataset, tmp_path / "out")
    network = load_network(model, dataset)
    assert validate(network, dataset, load_rows(dataset, "validation"), "accuracy") == pytest.approx(model.metrics, abs=1e-6)
    assert model.weights.path.is_relative_to(tmp_path / "out")
    assert (model.role, model.dataset, model.epochs, model.truncated) == ("teacher", dataset.identity, 3.0, False)
    assert model.candidate.hyperparameters["epochs"] == 3
    assert TrainedModel.from_json(model.to_json()) == model


def test_the_same_seed_gives_the_same_identity(dataset: DatasetVersion, tmp_path: Path) -> None:
    first, again, other = teacher(dataset, tmp_path / "a"), teacher(dataset, tmp_path / "b"), teacher(dataset, tmp_path / "c", seed=1)
    assert first.identity == again.identity
    assert first.weights.sha256 != other.weights.sha256


def test_a_limit_in_seconds_truncates(dataset: DatasetVersion, tmp_path: Path) -> None:
    config = {**CONFIG, "training": {"epochs": 100_000}}
    candidate = Candidate(space="convnet", architecture=SMALL_CONVNET, hyperparameters=HOW)
    model = train(dataset, POLICY, candidate, config, Workspace(out=tmp_path / "out", seconds=1.5))
    assert model.truncated
    assert model.seconds < 3


def test_weights_of_another_architecture_are_refused(dataset: DatasetVersion, tmp_path: Path) -> None:
    model = teacher(dataset, tmp_path / "out")
    wider = model.candidate.replace(architecture={**SMALL_CONVNET, "width": 12})
    with pytest.raises(CorruptArtifactError, match="do not fit"):
        load_network(model.replace(candidate=wider), dataset)


def test_fewer_rows_get_more_epochs() -> None:
    assert full_epochs("auto", 1_000) > full_epochs("auto", 50_000) >= trial_epochs("auto", 50_000) >= 1
    assert full_epochs(7, 1_000) == 7
    assert trial_epochs(3, 1_000) == 3
