"""Bytes of registered models, kept once per content below the state folder: `models/<sha256><suffix>`.

They are copies: MLflow's artifact store stays the source, and whatever is missing or damaged here is fetched from it
again. With them, `predict` and promotion need neither MLflow nor the artifacts of the run that made the model.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from components.artifacts import EvaluationReport, StoredFile, digest_of_file
from components.errors import CorruptArtifactError
from components.home import home
from components.store import full_disk_says_so


def place_of(sha256: str, suffix: str) -> Path:
    """Where content is, or would be."""
    return home() / "models" / f"{sha256}{suffix}"


def kept(sha256: str, suffix: str) -> StoredFile | None:
    """The kept file if it is there and its bytes are as recorded; a damaged one is removed."""
    path = place_of(sha256, suffix)
    if not path.exists():
        return None
    if digest_of_file(path) != sha256:
        path.unlink(missing_ok=True)
        return None
    return StoredFile(path=path, sha256=sha256, size=path.stat().st_size)


def keep(source: Path, sha256: str, suffix: str) -> StoredFile:
    """Copies `source` in, unless its content is here already. Raises `CorruptArtifactError` if its bytes are not as recorded."""
    found = kept(sha256, suffix)
    if found is not None:
        return found
    target = place_of(sha256, suffix)
    copy_whole(source, target)
    found = kept(sha256, suffix)
    if found is None:
        raise CorruptArtifactError(f"{source} does not have the sha256 recorded at registration ({sha256[:12]}); register the model again")
    return found


def copy_whole(source: Path, target: Path) -> StoredFile:
    """A copy that is there whole or not at all, also after a power cut."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with full_disk_says_so(target.parent):
            with source.open("rb") as reader, temporary.open("wb") as writer:
                shutil.copyfileobj(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return StoredFile.of(target)


def with_files(report: EvaluationReport, *, model: StoredFile, predictions: StoredFile, targets: StoredFile) -> EvaluationReport:
    """The same report with the chosen model's file, its test outputs and their targets in another place."""
    deployables = tuple(
        row.replace(model=row.model.replace(file=model)) if row.model.name == report.chosen else row for row in report.deployables
    )
    return report.replace(deployables=deployables, predictions=predictions, targets=targets)
