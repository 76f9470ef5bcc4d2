"""What people do with models after the pipeline: predict with the champion, promote by hand, roll back, look back."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from components.artifacts import JSON, Decision, ModelVersion
from components.errors import UsageError
from components.home import home
from components.store import write_atomically
from components.workspace import Workspace
from flows import server


def predict(path: Path, model: str | None, out: Path | None) -> JSON:
    """The champion's predictions for the rows in `path`, as a CSV at `out`. Imports neither torch nor MLflow.

    Without `out` it is named by `path`, and a file of that name that holds anything else is left as it is: `UsageError`.
    """
    import io

    from components.evaluation import predict as predicting
    from components.registry.champions import champion

    version = champion(named(model))
    target = out or Path(f"{path.name.partition('.')[0] or 'rows'}-predictions.csv")
    _require_place(target)
    found = predicting.predict(version.file.path, path)
    text = io.StringIO()
    predicting.write_csv(found, text)
    if out is None:
        _require_nothing_else(target, text.getvalue())
    write_atomically(target, text.getvalue())
    words = f"{len(found.rows)} rows predicted by {version.name} version {version.version}: {target}"
    return {"model": version.name, "version": version.version, "rows": len(found.rows), "predictions": str(target), "text": words}


def _require_place(target: Path) -> None:
    if not target.absolute().parent.is_dir():
        raise UsageError(f"out={target}: there is no folder {target.absolute().parent}")
    if target.is_dir():
        raise UsageError(f"out={target} is a folder; name a file, such as out={target / 'predictions.csv'}")


def _require_nothing_else(target: Path, text: str) -> None:
    """Another model's predictions, those of other rows, or a file of the user's own."""
    if target.exists() and target.read_bytes() != text.encode():
        raise UsageError(f"{target} is there already and holds something else; say where to write: out=FILE.csv (out={target} replaces it)")


def named(model: str | None) -> str:
    """The model itself, or the only one that has a champion. Raises `UsageError` that lists them otherwise."""
    if model:
        return model
    from components.registry.champions import pointed_models
    from components.registry.versions import registered_models

    models = pointed_models() or registered_models()
    if len(models) == 1:
        return models[0]
    if not models:
        raise UsageError("no model has a champion yet; make one with: athanor run")
    raise UsageError(f"several models have champions; say which: model={models[0]} (or {', '.join(models[1:])})")


def promote(model: str, version: str) -> JSON:
    """Makes a version champion by hand; the ledger says that a person did."""
    from components.registry.promote import promote as decide

    _prepare()
    found = _load(model, version)
    with tempfile.TemporaryDirectory() as folder:
        decision = decide(found, {"gate": {}, "force": True, "model": model}, Workspace(out=Path(folder)))
    return _document(decision)


def rollback(model: str | None, to: str | None = None) -> JSON:
    """Makes the previous champion (or version `to`) champion again."""
    from components.registry.promote import rollback as back

    _prepare()
    model = named(model)
    return _document(back(model, None if to is None else _number(model, to)))


def lineage(model: str, version: str | None) -> JSON:
    """The walk from a model version to its data, out of MLflow alone."""
    from components.registry import versions

    _prepare()
    number = _number(model, version) if version else versions.standing(model).champion
    if not number and model in versions.registered_models():
        raise UsageError(f"model {model!r} has no champion; name a version: athanor lineage {model} VERSION")
    return {"model": model, "version": number, "lineage": versions.lineage(model, number)}


def _load(model: str, version: str) -> ModelVersion:
    from components.registry import versions

    return versions.load(model, _number(model, version))


def _number(model: str, version: str) -> int:
    from components.registry.versions import registered_versions

    if not version.isdecimal():
        known = ", ".join(map(str, registered_versions(model))) or "none"
        raise UsageError(f"a version is a whole number, got {version!r}; the versions of {model!r} are {known}")
    return int(version)


def _document(decision: Decision) -> JSON:
    return {
        "model": decision.model, "version": decision.version, "champion": decision.champion, "previous": decision.previous,
        "words": decision.words,
    }  # fmt: skip


def _prepare() -> None:
    server.quiet()
    os.environ["ATHANOR_HOME"] = str(home())
