"""Verb `evaluate`: what would be served is measured as it would be served, on ONNX Runtime with one thread.

Validation chooses among the deployables; the test split is read once, for the chosen one, to report and to gate.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.artifacts import JSON, DatasetVersion, Deployable, Estimate, EvaluationReport, ExportedModel, StoredFile
from components.build import build
from components.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from components.export.runtime import Session


class Metrics(Protocol):
    """The interface of the family: what a report says of outputs and targets."""

    objective: str | None

    def estimates(self, outputs: NDArray, targets: NDArray, task: str, seed: int = 0) -> dict[str, Estimate]:
        """Values with their intervals by name, the objective among them; equal seeds give equal intervals."""

    def figures(self, outputs: NDArray, targets: NDArray, task: str) -> JSON:
        """What the report draws."""


def evaluate(dataset: DatasetVersion, exported: tuple[ExportedModel, ...], config: JSON, work: Workspace) -> EvaluationReport:
    """Every deployable on validation, the chosen one on test. Reads `metrics`, `selection` and `constraint`.

    Raises `UsageError` for an objective that does not fit the task, `DataError` when validation cannot judge it.
    """
    from components import metrics
    from components.evaluation.selection import choose
    from components.export.runtime import Session

    judge: Metrics = build(config["metrics"])
    objective = metrics.objective(judge.objective, dataset.task)
    sessions = {model.name: Session(model.file.path) for model in exported}
    deployables = _on_validation(dataset, exported, sessions, judge, work)
    chosen, words = choose(deployables, objective, float(config["selection"]["tolerance"]), config.get("constraint"))
    work.emit("chosen", name=chosen.model.name, words=words)
    return EvaluationReport(
        dataset=dataset, objective=objective, direction=metrics.direction(objective), deployables=deployables, chosen=chosen.model.name,
        choice=words, device=_device(), **_on_test(dataset, sessions[chosen.model.name], judge, work),
    )  # fmt: skip


def _on_validation(
    dataset: DatasetVersion, exported: tuple[ExportedModel, ...], sessions: dict[str, Session], judge: Metrics, work: Workspace
) -> tuple[Deployable, ...]:
    from components.export.runtime import latencies

    rows, targets = _split(dataset, "validation")
    timed = dict(zip(sessions, latencies(list(sessions.values()), rows)))
    found = []
    for model in exported:
        started = time.monotonic()
        outputs = sessions[model.name].run_in_batches(rows)
        estimates = judge.estimates(outputs, targets, dataset.task, seed=work.seed)
        found.append(_deployable(model, estimates, timed[model.name]))
        work.emit("evaluated", name=model.name, metrics={name: estimate.value for name, estimate in estimates.items()},
                  size_kb=found[-1].size_kb, latency_ms=found[-1].latency_ms, seconds=time.monotonic() - started)  # fmt: skip
    return tuple(found)


def _deployable(model: ExportedModel, estimates: dict[str, Estimate], timed_ms: NDArray) -> Deployable:
    import numpy as np

    p50, p95 = (float(ms) for ms in np.quantile(timed_ms, [0.5, 0.95]))
    return Deployable(model=model, metrics=estimates, size_kb=model.file.size / 1024, latency_ms=p50, latency_p95_ms=p95)


def _on_test(dataset: DatasetVersion, session: Session, judge: Metrics, work: Workspace) -> dict[str, Any]:
    """The report's fields that come from the test split."""
    import numpy as np

    from components import metrics
    from components.data.arrays import load_target
    from components.evaluation.diagnosis import baseline

    rows, targets = _split(dataset, "test")
    outputs = session.run_in_batches(rows)
    guess = baseline(np.asarray(load_target(dataset, "train")), len(targets), len(dataset.classes))
    guessed = {name: metrics.compute(name, guess, targets) for name in metrics.names(dataset.task)}
    return {
        "test": judge.estimates(outputs, targets, dataset.task, seed=work.seed),
        "baseline": {name: value for name, value in guessed.items() if not np.isnan(value)},
        "predictions": _save(work.out / "predictions.npy", outputs),
        "targets": _save(work.out / "targets.npy", targets),
        "figures": judge.figures(outputs, targets, dataset.task),
    }


def _split(dataset: DatasetVersion, split: str) -> tuple[dict[str, NDArray], NDArray]:
    """Feeds and targets of a whole split."""
    import numpy as np

    from components.data.arrays import load_inputs, load_target
    from components.export.runtime import feeds

    return feeds(dataset, load_inputs(dataset, split)), np.asarray(load_target(dataset, split))


def _save(path: Path, array: NDArray) -> StoredFile:
    import numpy as np

    np.save(path, array, allow_pickle=False)
    return StoredFile.of(path)


def _device() -> JSON:
    """On what the latency was measured."""
    import onnxruntime

    from components.fingerprint import cpu

    return {"cpu": cpu(), "threads": 1, "runtime": f"onnxruntime {onnxruntime.__version__}", "provider": "CPUExecutionProvider"}
