"""The verb register: one version per report, whole in MLflow, found again after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.artifacts import Candidate, ModelVersion, StoredFile, TrainedModel
from components.errors import CorruptArtifactError, DataError, UnknownNameError, UsageError
from components.registry import versions
from components.registry.connection import connect, database_file
from components.registry.lineage import models_of, walk
from components.registry.register import register
from components.workspace import Workspace
from tests.components.registry.conftest import Reports

Register = Callable[..., ModelVersion]


def test_registered_file_is_the_evaluated_one(file_version: Register, reports: Reports, tmp_path: Path) -> None:
    """Bytes in the stage's folder and in MLflow are those that were measured, and all files of the record lie below the stage's folder."""
    version = file_version("good")
    assert version.version == 1
    assert version.name == "digits"
    assert version.file.sha256 == reports["good"].best.model.file.sha256
    for file in (version.file, version.report.predictions, version.report.targets, version.report.best.model.file):
        assert file.path.is_relative_to(tmp_path / "register-good")
        assert file.path.exists()
    assert versions.load("digits", 1).file.sha256 == version.file.sha256


def test_same_report_is_registered_once(file_version: Register, reports: Reports, tmp_path: Path) -> None:
    """Registering again, as after a kill before the stage was published, finds the version and returns the same record."""
    first, again = file_version("good"), file_version("good")
    assert first.identity == again.identity
    other = file_version("poor")
    assert (first.version, other.version) == (1, 2)
    assert versions.registered_versions("digits") == [1, 2]


def test_killed_between_commit_and_return(file_version: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies right after MLflow's commit leaves one version, and the next one uses it."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(versions, "from_registry", die)
        with pytest.raises(KeyboardInterrupt):
            file_version("good")
    assert versions.registered_versions("digits") == [1]
    assert file_version("good").version == 1


def test_version_from_mlflow_alone(file_version: Register, home: Path, tmp_path: Path) -> None:
    """With the artifact store and the kept copies gone, the record, its test answers and its lineage come back from MLflow."""
    version = file_version("good")
    answers = np.load(version.report.predictions.path)
    shutil.rmtree(tmp_path / "register-good")
    shutil.rmtree(home / "models")
    loaded = versions.load("digits", 1)
    assert loaded.identity == version.identity
    assert np.array_equal(np.load(loaded.report.predictions.path), answers)
    assert [row["kind"] for row in versions.lineage("digits", 1)][0::6] == ["ModelVersion", "DatasetVersion"]


def test_tags_tell_where_it_came_from(file_version: Register, reports: Reports) -> None:
    """Data digest, configuration, code, git revision, seed and figures are tags of the version."""
    version = file_version("good")
    found = connect().get_model_version("digits", "1").tags
    assert found["athanor.dataset_digest"] == reports["good"].dataset.digest
    assert json.loads(found["athanor.config"]) == {"space": {"depth": 3}}
    assert (found["athanor.git"], found["athanor.seed"]) == ("0123456789ab", "0")
    assert len(found["athanor.code_digest"]) == 64
    assert found["athanor.run"] == "run-good"
    assert found["athanor.test.accuracy"].startswith(f"{reports['good'].test['accuracy'].value:.4f} [")
    assert "athanor.latency_ms" in found
    assert "athanor.latency_ms" not in version.tags


def test_a_measured_figure_does_not_change_identity(file_version: Register, reports: Reports, tmp_path: Path) -> None:
    """The same decision measured at another latency is the same report, hence the same version."""
    version = file_version("good")
    report = reports["good"]
    slower = report.replace(deployables=tuple(d.replace(latency_ms=9.9) for d in report.deployables))
    assert register(slower, {"model": None}, Workspace(out=tmp_path / "again")).version == version.version


def test_lineage_walks_back_to_the_data(file_version: Register, reports: Reports) -> None:
    """From the version through report, graph, network and code to the dataset's digest."""
    rows = {row["kind"]: row for row in walk(file_version("good"))}
    assert rows["ModelVersion"]["run"] == "run-good"
    assert rows["ExportedModel"]["digest"] == reports["good"].best.model.file.sha256
    assert rows["TrainedModel"]["digest"] == reports["good"].best.model.model
    assert rows["DatasetVersion"]["digest"] == reports["good"].dataset.digest
    shown = connect().get_model_version("digits", "1").description
    assert f"1. data `digits`, digest `{reports['good'].dataset.digest[:12]}`" in shown
    assert "run `run-good`, seed 0" in shown


def test_lineage_names_every_model_that_has_a_part_in_it(reports: Reports, home: Path, tmp_path: Path) -> None:
    """The student's ensemble, its teacher and its trials, with weights and shares; and what a fine-tuned member came from."""
    best = reports["good"].best.model
    weights = StoredFile(path=tmp_path / "w", sha256="ab", size=1)
    candidate = Candidate(space="s", architecture={}, hyperparameters={})
    plain = TrainedModel(role="teacher", candidate=candidate, space={}, dataset="d", seed=0, weights=weights, metrics={})
    rows = (
        {"model": plain.identity, "role": "teacher", "weights": "ab", "share": 0.75},
        {"model": "tuned", "role": "finetuned0", "weights": "cd", "parents": ["origin"], "share": 0.25},
    )
    ensemble = plain.replace(role="ensemble", parents=(plain.identity, "tuned"), members=rows)
    told = models_of([plain, ensemble])
    facts = {"models": [*told, {"identity": best.model, "role": best.role, "weights": "ef", "parents": [ensemble.identity]}]}
    version = register(reports["good"], {"model": None}, Workspace(out=tmp_path / "out"), facts)
    found = {row["digest"]: row for row in walk(version) if row["kind"] == "TrainedModel"}
    assert list(found) == [best.model, ensemble.identity, plain.identity, "tuned", "origin"]
    assert [found[name].get("share") for name in (plain.identity, "tuned")] == [0.75, 0.25]
    assert found["tuned"]["weights"] == "cd"
    shown = connect().get_model_version("digits", "1").description
    assert f"teacher network `{plain.identity[:12]}`" in shown


def test_model_loads_through_mlflow(file_version: Register, home: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered is an MLflow model with a signature, which MLflow serves with the same answers."""
    import mlflow

    version = file_version("good")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database_file()}")
    model = mlflow.pyfunc.load_model("models:/digits@challenger")
    rows = np.load(reports["good"].dataset.files["test/image"].path)[:5]
    answers = model.predict({"image": rows})["probabilities"]
    assert np.allclose(answers, np.load(version.report.predictions.path)[:5], atol=1e-6)
    assert model.metadata.signature.inputs.input_names() == ["image"]


def test_model_card_holds_the_figures(file_version: Register, home: Path, reports: Reports) -> None:
    """The card beside the model names the test figures, the data and the run."""
    file_version("good")
    card = next((home / "mlartifacts").rglob("model_card.md")).read_text()
    assert f"{reports['good'].test['accuracy'].value:.4f}" in card
    assert reports["good"].dataset.digest in card
    assert "run-good" in card


@pytest.mark.parametrize("name", ["a/b", "a:b", "it's", " "])
def test_impossible_names_are_refused(file_version: Register, name: str) -> None:
    """One line that shows the name and the key to set."""
    with pytest.raises(UsageError, match="set model=NAME"):
        file_version("good", model=name)


def test_another_name(file_version: Register) -> None:
    """`model=` overrides the data set's name."""
    assert file_version("good", model="my digits").name == "my digits"
    assert versions.registered_models() == ["my digits"]


def test_unknown_versions_and_models(file_version: Register) -> None:
    """The nearest model and the versions there are, are named."""
    version = file_version("good")
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        versions.load("digit", 1)
    with pytest.raises(UsageError, match="no version 7; it has 1"):
        versions.load("digits", 7)
    assert versions.is_registered(version)
    assert not versions.is_registered(version.replace(version=7))


def test_lost_report_files(reports: Reports, home: Path, tmp_path: Path) -> None:
    """A report whose model file is gone is refused before MLflow is touched."""
    report = reports["good"]
    lost = report.replace(predictions=report.predictions.replace(path=tmp_path / "gone.npy"))
    with pytest.raises(DataError, match=r"gone\.npy .* run the evaluate stage again"):
        register(lost, {"model": None}, Workspace(out=tmp_path / "out"))
    assert not (home / "mlflow.db").exists()


def test_damaged_bytes_in_mlflow(file_version: Register, home: Path) -> None:
    """A model file that changed inside MLflow's artifacts is not served as the registered one."""
    file_version("good")
    shutil.rmtree(home / "models")
    file = next((home / "mlartifacts").rglob("model.onnx"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptArtifactError, match="register the model again"):
        versions.load("digits", 1)
