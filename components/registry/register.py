"""The verb `register`: the chosen deployable becomes a version of a model in MLflow's registry.

    report ─▶ logged model (ONNX, report, test outputs, lineage, model card, weights) ─▶ model version, tagged, alias challenger

The same report is registered once: a version carries its report's identity, is created with it in one transaction, and
is found by it again, so a kill between MLflow's commit and the end of the stage makes no second version.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import JSON, EvaluationReport, InputField, ModelVersion, TrainedModel
from components.errors import DataError
from components.home import home
from components.models.parent import pack
from components.registry import files, versions
from components.registry.card import model_card
from components.registry.connection import check_model_name, connect, experiment, parent_run, registry_lock, requirements, told_in_one_line
from components.registry.lineage import complete, in_brief, in_words, observed_tags, tags
from components.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion
    from mlflow.models import ModelSignature


def register(report: EvaluationReport, config: JSON, work: Workspace, lineage: JSON | None = None) -> ModelVersion:
    """The registered version, its files below `work.out`. `config` holds `model` (default: the data set's name).

    `lineage` is described in `components.registry.lineage`; its `networks` (trained models) hold the one whose weights are
    filed with the version, so that another training can begin from it (components/registry/parents.py). Raises `UsageError`
    for a name that MLflow refuses, `TryAgainError` when the registry is locked or away."""
    model = check_model_name(str(config.get("model") or report.dataset.name))
    _check_files(report)
    trained = _trained(report, lineage)
    lineage = {name: fact for name, fact in (lineage or {}).items() if name != "networks"}
    client = connect()
    with registry_lock(model, lambda: work.emit("waiting", reason=f"another process is writing model {model}")), told_in_one_line():
        found = versions.find_by_key(client, model, report.identity)
        if found is None:
            found = _create(client, model, report, complete(lineage, report), trained)
            client.set_registered_model_alias(model, "challenger", found.version)
        version = versions.from_registry(client, found)
    work.emit("registered", model=model, version=version.version)
    return _below(version, work.out)


def _trained(report: EvaluationReport, lineage: JSON | None) -> TrainedModel | None:
    """The network that the chosen deployable was made from, where the caller knows it."""
    models: list[TrainedModel] = (lineage or {}).get("networks") or []
    return next((model for model in models if model.identity == report.best.model.model and model.weights.path.exists()), None)


def _check_files(report: EvaluationReport) -> None:
    for file in (report.best.model.file, report.predictions, report.targets):
        if not file.path.exists():
            raise DataError(f"{file.path} of the evaluation report is gone; run the evaluate stage again")


def _below(version: ModelVersion, out: Path) -> ModelVersion:
    """The same version with its files in the stage's own folder."""
    report = version.report
    model = files.copy_whole(version.file.path, out / versions.MODEL_FILE)
    predictions = files.copy_whole(report.predictions.path, out / "predictions.npy")
    targets = files.copy_whole(report.targets.path, out / "targets.npy")
    return version.replace(file=model, report=files.with_files(report, model=model, predictions=predictions, targets=targets))


def _create(
    client: MlflowClient, model: str, report: EvaluationReport, facts: JSON, trained: TrainedModel | None
) -> RegisteredVersion:  # fmt: skip
    run_id = parent_run(client, model, str(facts.get("run") or f"register-{report.identity[:12]}"))
    logged, location = _log_model(client, model, run_id, report, facts, trained)
    _log_figures(client, run_id, logged, report)
    if not client.search_registered_models(f"name = '{model}'", max_results=1):
        client.create_registered_model(model, description=f"Made by Athanor from the data set {report.dataset.name}.")
    return client.create_model_version(
        model,
        source=location,
        run_id=run_id,
        tags=tags(report, facts) | observed_tags(report, facts),
        description=_description(report, facts),
        await_creation_for=0,
        model_id=logged,
    )


def _description(report: EvaluationReport, facts: JSON) -> str:
    """Markdown for the version's page: how good it is, and where it comes from."""
    best, test = report.best, report.test.get(report.objective)
    figure = f"{report.objective} {in_words(test)} on the test split, " if test else ""
    sentence = f"{report.chosen}: {figure}{best.size_kb:.1f} KiB, {best.latency_ms:.3f} ms at batch 1 on ONNX Runtime."
    return f"{sentence}\n\n{in_brief(report, facts)}"


def _log_model(
    client: MlflowClient, model: str, run_id: str, report: EvaluationReport, facts: JSON, trained: TrainedModel | None
) -> tuple[str, str]:  # fmt: skip
    """The logged model's id and the address to register it from."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    name = f"{model}-{report.chosen}".replace(".", "-").replace("%", "-")
    logged = client.create_logged_model(experiment(client, model), name=name, source_run_id=run_id, model_type="onnx")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    with tempfile.TemporaryDirectory(prefix="athanor-") as temporary:
        folder = Path(temporary) / "model"
        _write_model(folder, logged, run_id, report)
        _write_records(folder / versions.RECORDS, model, report, facts)
        if trained:
            pack(trained, report.dataset, folder / versions.RECORDS / versions.PARENT)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    # A server wants its own address; a local store would resolve it by MLflow's process-wide setting, which is not ours to change.
    remote = versions.local_path(logged.artifact_location) is None
    return logged.model_id, f"models:/{logged.model_id}" if remote else logged.artifact_location


def _write_model(folder: Path, logged: Any, run_id: str, report: EvaluationReport) -> None:
    import mlflow.onnx
    from mlflow.models import Model

    source = report.best.model.file.path.read_bytes()
    described = Model(artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id, model_id=logged.model_id)
    mlflow.onnx.save_model(
        source,
        folder,
        mlflow_model=described,
        signature=_signature(report),
        pip_requirements=requirements(),
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        metadata={"athanor.key": report.identity, "athanor.dataset": report.dataset.digest},
        save_as_external_data=False,
    )
    (folder / versions.MODEL_FILE).write_bytes(source)  # MLflow parses and writes it anew; registered bytes are those evaluated


def _write_records(folder: Path, model: str, report: EvaluationReport, facts: JSON) -> None:
    folder.mkdir()
    (folder / "predictions.npy").write_bytes(report.predictions.path.read_bytes())
    (folder / "targets.npy").write_bytes(report.targets.path.read_bytes())
    (folder / "report.json").write_text(json.dumps(report.to_json(home())))
    (folder / "lineage.json").write_text(json.dumps(facts, indent=1, default=str))
    (folder / "model_card.md").write_text(model_card(model, report, facts))


def _signature(report: EvaluationReport) -> ModelSignature:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def spec(field: InputField) -> TensorSpec:
        is_text = any(column.kind == "category" for column in field.columns)
        return TensorSpec(np.dtype(object if is_text else field.dtype), (-1, *field.shape), field.name)

    classes = report.dataset.classes
    output = TensorSpec(np.dtype("float32"), (-1, len(classes)) if classes else (-1,), "probabilities" if classes else "value")
    return ModelSignature(inputs=Schema([spec(field) for field in report.dataset.inputs]), outputs=Schema([output]))


def _log_figures(client: MlflowClient, run_id: str, logged: str, report: EvaluationReport) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    rows = {f"test_{name}": estimate.value for name, estimate in report.test.items()}
    rows |= {"size_kb": report.best.size_kb, "latency_ms": report.best.latency_ms}
    metrics = [Metric(name, value, now, 0, model_id=logged, run_id=run_id) for name, value in rows.items()]
    client.log_batch(run_id, metrics=metrics)
