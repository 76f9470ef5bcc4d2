"""A registered version as a parent: the weights and the record that were filed with it.

    <the version's folder>/athanor/parent/weights.safetensors, model.json      written by `register`

Where MLflow's files are on this disk they are used in place, and MLflow is not even imported; else they are fetched once
into `ATHANOR_HOME/parents/`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from components.errors import CorruptArtifactError, DataError, UnknownNameError, UsageError
from components.home import home
from components.models.parent import WEIGHTS, Parent, unpack
from components.registry import versions
from components.registry.connection import connect, file_stem, told_in_one_line


def fetch(address: str, reference: str) -> Parent:
    """The parent that `NAME@ALIAS` or `NAME/VERSION` names.

    Raises `UsageError` for what is not registered, `DataError` for a version that was registered without its weights."""
    model, number = _named(address, reference)
    folder = _folder(model, number)
    if not (folder / WEIGHTS).exists():
        raise DataError(f"parent={reference}: version {number} of {model!r} was registered without its weights; train it again")
    return unpack(folder, reference=reference, model=model, version=number)


def _named(address: str, reference: str) -> tuple[str, int]:
    name, at, alias = address.rpartition("@")
    if not at:
        name, slash, number = address.rpartition("/")
        if not slash or not number.isdecimal() or not name:
            raise UsageError(f"parent must be mlflow:models:/NAME@ALIAS or mlflow:models:/NAME/VERSION, got {reference!r}")
    known = versions.registered_versions(name)
    if not known:
        raise UnknownNameError("model", name, versions.registered_models())
    if at:
        aliases = versions.aliases(name)
        if alias not in aliases:
            raise UnknownNameError(f"alias of model {name!r}", alias, aliases)
        return name, aliases[alias]
    if int(number) not in known:
        raise UsageError(f"parent={reference}: model {name!r} has no version {number}; it has {', '.join(map(str, known))}")
    return name, int(number)


def _folder(model: str, number: int) -> Path:
    local = versions.local_folder(model, number)
    if local is not None:
        return local / versions.RECORDS / versions.PARENT
    kept = home() / "parents" / f"{file_stem(model)}-{number}"
    if not kept.exists():
        client = connect()
        with told_in_one_line(), versions.folder_of(client, client.get_model_version(model, str(number))) as folder:
            _keep(folder / versions.RECORDS / versions.PARENT, kept)
    return kept


def _keep(source: Path, kept: Path) -> None:
    if not source.is_dir():
        return
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = kept.with_name(f".{kept.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    try:
        unpack(fresh)
    except DataError as error:
        raise CorruptArtifactError(f"what MLflow keeps of the parent is damaged: {error}") from error
    fresh.rename(kept)
