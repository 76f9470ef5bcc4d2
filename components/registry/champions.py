"""The model in production, ready to serve: a pointer file and the ONNX file, without importing MLflow.

    ATHANOR_HOME/champions/<model>.json    the champion's `ModelVersion`, paths relative to the state folder
    ATHANOR_HOME/models/<sha256>.onnx      its bytes, checked on each use

MLflow's alias decides. The pointer is compared with it (in milliseconds, where MLflow is a SQLite file) and made again
from MLflow when it is missing, torn or behind; with MLflow away it serves on its own.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from components.artifacts import ModelVersion
from components.errors import TryAgainError, UnknownNameError, UsageError
from components.home import home
from components.registry import files, versions
from components.registry.connection import database_file, file_stem
from components.store import full_disk_says_so, write_atomically


def pointer_file(model: str) -> Path:
    """Where a model's pointer is, or would be."""
    return home() / "champions" / f"{file_stem(model)}.json"


def point_at(version: ModelVersion) -> ModelVersion:
    """Keeps the version's bytes and makes it what `champion` returns."""
    report = version.report
    model = files.keep(version.file.path, version.file.sha256, ".onnx")
    predictions = files.keep(report.predictions.path, report.predictions.sha256, ".npy")
    targets = files.keep(report.targets.path, report.targets.sha256, ".npy")
    kept = version.replace(file=model, report=files.with_files(report, model=model, predictions=predictions, targets=targets))
    path = pointer_file(version.name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with full_disk_says_so(path.parent):
        write_atomically(path, json.dumps(kept.to_json(home())))
    return kept


def champion(model: str) -> ModelVersion:
    """The model in production, its file checked. Raises `UnknownNameError` for an unknown model, `UsageError` if none was promoted."""
    found = find_champion(model)
    if found is not None:
        return found
    known = sorted({*versions.registered_models(), *pointed_models()})
    if model not in known:
        raise UnknownNameError("model", model, known)
    raise UsageError(f"model {model!r} has no champion yet; promote one of its versions {versions.registered_versions(model)} first")


def find_champion(model: str) -> ModelVersion | None:
    """The same, or None while there is none."""
    pointed = _pointed(model)
    number = _standing_number(model, pointed)
    if not number:
        return None
    if pointed is not None and pointed.version == number and files.kept(pointed.file.sha256, ".onnx"):
        return pointed
    return point_at(versions.load(model, number))


def _standing_number(model: str, pointed: ModelVersion | None) -> int:
    """The champion's version by MLflow, or by the pointer while MLflow is away."""
    file = database_file()
    if pointed is not None and file is not None and not file.exists():
        return pointed.version
    try:
        return versions.standing(model).champion
    except TryAgainError:
        if pointed is None:
            raise
        return pointed.version


def _pointed(model: str) -> ModelVersion | None:
    try:
        return ModelVersion.from_json(json.loads(pointer_file(model).read_text()), home())
    except (OSError, ValueError, KeyError, AttributeError):
        return None  # missing or torn: it is made again from MLflow


def pointed_models() -> list[str]:
    """The models that have a pointer here."""
    found = [_pointed_name(path) for path in (home() / "champions").glob("*.json")]
    return sorted(name for name in found if name)


def _pointed_name(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return str(json.loads(path.read_text())["name"])
    return ""
