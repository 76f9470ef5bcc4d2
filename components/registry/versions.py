"""Registered versions as records: what MLflow's registry holds, read back whole, also when nothing else is left.

A version's folder in MLflow (the logged model) holds the ONNX file, the evaluation report, the test outputs and
targets, the lineage and the model card, so a `ModelVersion` can be made from MLflow alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from components.artifacts import JSON, EvaluationReport, ModelVersion
from components.errors import CorruptArtifactError, UnknownNameError, UsageError
from components.home import home
from components.registry import files
from components.registry.connection import connect, database_file, told_in_one_line
from components.registry.lineage import is_decided, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

MODEL_FILE = "model.onnx"
RECORDS = "athanor"
"""Folder beside the model in which our own files lie."""
PARENT = "parent"
"""Folder below it with the weights that the model was made from, which another training can begin from."""


@dataclass(frozen=True)
class Standing:
    """Which version each alias of a model names; 0 for nobody."""

    champion: int = 0
    challenger: int = 0
    previous: int = 0

    @classmethod
    def of(cls, aliases: Mapping[str, Any]) -> Standing:
        return cls(**{name: int(aliases.get(name, 0)) for name in ("champion", "challenger", "previous")})


def standing(model: str) -> Standing:
    """The aliases now. Reads MLflow's SQLite file directly where there is one, so that it costs milliseconds."""
    rows = _query("SELECT alias, version FROM registered_model_aliases WHERE name = ?", model)
    return Standing.of(dict(rows)) if rows is not None else asked_standing(connect(), model)


def asked_standing(client: MlflowClient, model: str) -> Standing:
    """The aliases as MLflow's own API tells them; nobody for a model that does not exist."""
    with told_in_one_line():
        found = client.search_registered_models(f"name = '{model}'", max_results=1)
        return Standing.of(found[0].aliases if found else {})


def aliases(model: str) -> dict[str, int]:
    """Every alias of a model and the version it names."""
    rows = _query("SELECT alias, version FROM registered_model_aliases WHERE name = ?", model)
    if rows is None:
        with told_in_one_line():
            found = connect().search_registered_models(f"name = '{model}'", max_results=1)
            rows = list(found[0].aliases.items()) if found else []
    return {str(alias): int(version) for alias, version in rows}


def local_folder(model: str, version: int) -> Path | None:
    """The folder of a version's files where MLflow keeps them on this disk, found without MLflow; None where it does not."""
    rows = _query("SELECT version, storage_location, source FROM model_versions WHERE name = ?", model) or []
    places = [str(stored or source) for number, stored, source in rows if int(number) == version]
    path = local_path(places[0]) if places else None
    return path if path is not None and path.is_dir() else None


def registered_models() -> list[str]:
    """The names in the registry, sorted."""
    rows = _query("SELECT name FROM registered_models WHERE name != ?", "")
    if rows is not None:
        return sorted(name for (name,) in rows)
    with told_in_one_line():
        return sorted(found.name for found in connect().search_registered_models())


def registered_versions(model: str) -> list[int]:
    """The version numbers of a model, oldest first; empty for a model that does not exist."""
    rows = _query("SELECT version FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal'", model)
    if rows is not None:
        return sorted(int(number) for (number,) in rows)
    with told_in_one_line():
        return sorted(int(found.version) for found in connect().search_model_versions(f"name = '{model}'"))


def is_registered(version: ModelVersion) -> bool:
    """Whether the registry still has this version, which a cached record cannot know."""
    return version.version in registered_versions(version.name)


def _query(statement: str, argument: str) -> list[tuple[Any, ...]] | None:
    """Rows of MLflow's SQLite file, read only; None where there is no such file or it cannot be read like this."""
    path = database_file()
    if path is None:
        return None
    if not path.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2.0)) as connection:
            return connection.execute(statement, (argument,)).fetchall()
    except sqlite3.Error:
        return None  # locked, or another version's tables: MLflow's own API is asked instead, which says what is wrong


def find_by_key(client: MlflowClient, model: str, key: str) -> RegisteredVersion | None:
    """The version registered from the report with this identity, the oldest if there were several."""
    found = client.search_model_versions(f"name = '{model}' and tags.`athanor.key` = '{key}'")
    return min(found, key=lambda row: int(row.version)) if found else None


def load(model: str, version: int) -> ModelVersion:
    """A registered version as a record, its files checked and at hand locally.

    Raises `UsageError` for a version that does not exist, `CorruptArtifactError` when its files are lost."""
    numbers = registered_versions(model)
    if not numbers and model not in registered_models():
        raise UnknownNameError("model", model, registered_models())
    if version not in numbers:
        raise UsageError(f"model {model!r} has no version {version}; it has {', '.join(map(str, numbers)) or 'none'}")
    client = connect()
    with told_in_one_line():
        return from_registry(client, client.get_model_version(model, str(version)))


def from_registry(client: MlflowClient, found: RegisteredVersion) -> ModelVersion:
    """The record of a version that MLflow returned."""
    with folder_of(client, found) as folder:
        records = folder / RECORDS
        try:
            report = EvaluationReport.from_json(json.loads((records / "report.json").read_text()), home())
            facts: JSON = json.loads((records / "lineage.json").read_text())
            report = _with_kept_files(report, folder)
        except FileNotFoundError as error:
            lost = f"version {found.version} of {found.name!r} lacks {Path(error.filename).name} in {found.source}"
            raise CorruptArtifactError(f"{lost}; restore it or register the model again") from error
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        run_id=found.run_id or "",
        file=report.best.model.file,
        report=report,
        lineage=facts,
        tags={name: value for name, value in sorted(found.tags.items()) if is_decided(name)},
    )


def _with_kept_files(report: EvaluationReport, folder: Path) -> EvaluationReport:
    return files.with_files(
        report,
        model=files.keep(folder / MODEL_FILE, report.best.model.file.sha256, ".onnx"),
        predictions=files.keep(folder / RECORDS / "predictions.npy", report.predictions.sha256, ".npy"),
        targets=files.keep(folder / RECORDS / "targets.npy", report.targets.sha256, ".npy"),
    )


@contextlib.contextmanager
def folder_of(client: MlflowClient, found: RegisteredVersion) -> Iterator[Path]:
    """The version's files as a local folder: MLflow's own where it is on this disk, else a download for the while."""
    location = client.get_model_version_download_uri(found.name, found.version)
    local = local_path(location)
    if local is not None:
        yield local
        return
    import mlflow.artifacts

    target = tempfile.mkdtemp(prefix="athanor-")
    try:
        yield Path(mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=target, tracking_uri=client.tracking_uri))
    finally:
        shutil.rmtree(target, ignore_errors=True)


def local_path(location: str) -> Path | None:
    """The path that a `file:` address or a plain path names; None for an address elsewhere."""
    parsed = urlparse(location)
    if parsed.scheme not in ("", "file"):
        return None
    return Path(unquote(parsed.path))


def lineage(model: str, version: int) -> list[JSON]:
    """From a registered version back to its data, one row a record, and on to the versions that its training began from, as
    far as they are registered here; needs MLflow and nothing else. The network's row says in which folder its weights are."""
    rows: list[JSON] = []
    waiting, seen = [(model, version)], set()
    for name, number in waiting:
        found = load(name, number)
        rows += _with_place(walk(found), name, number)
        seen.add((name, number))
        parent = found.lineage.get("parent") or {}
        origin = (str(parent.get("model")), int(parent.get("version", 0)))
        if origin not in seen and origin[1] in registered_versions(origin[0]):
            waiting.append(origin)
    return rows


def _with_place(rows: list[JSON], model: str, version: int) -> list[JSON]:
    folder = local_folder(model, version)
    place = folder / RECORDS / PARENT if folder else None
    network = next(row for row in rows if row["kind"] == "TrainedModel")
    return [{**row, "folder": str(place)} if row is network and place and place.is_dir() else row for row in rows]
