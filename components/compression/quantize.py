"""Verb `quantize`: each exported graph gets a smaller twin in eight-bit integers.

What the twin loses is measured on validation and written into the journal; whether it goes up is decided by `evaluate`,
where every deployable stands beside the others. `quantization=none` makes no twins.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import JSON, DatasetVersion, ExportedModel
from components.build import build
from components.workspace import Workspace

if TYPE_CHECKING:
    from components.compression.validation import Method, Validation


def quantize(dataset: DatasetVersion, exported: tuple[ExportedModel, ...], config: JSON, work: Workspace) -> tuple[ExportedModel, ...]:
    """One graph per exported one and precision that the method offers. Reads `config["quantization"]` and `config["metrics"]`."""
    method: Method = build(config["quantization"])
    if not method.precisions:
        return ()
    from components import metrics
    from components.compression.validation import Validation

    objective = metrics.objective(config["metrics"].get("objective"), dataset.task)
    validation = Validation(dataset, objective, seed=work.seed)
    return tuple(_quantize_one(model, method, precision, validation, work) for model in exported for precision in method.precisions)


def _quantize_one(model: ExportedModel, method: Method, precision: str, validation: Validation, work: Workspace) -> ExportedModel:
    started = time.monotonic()
    name = f"{model.name.rpartition('-')[0]}-{precision}"
    path = work.out / f"{name}.onnx"
    method.quantize(model.file.path, path, precision, validation)
    quantized = _describe(path, model, name, precision, validation.dataset)
    before, after = validation.score(model.file.path), validation.score(path)
    work.emit("quantized", name=name, size_kb=quantized.file.size / 1024, objective=validation.objective, before=before, after=after,
              difference=max(quantized.parity.values()), seconds=time.monotonic() - started)  # fmt: skip
    return quantized


def _describe(path: Path, origin: ExportedModel, name: str, precision: str, dataset: DatasetVersion) -> ExportedModel:
    from components.export.export import describe_model
    from components.export.parity import parity
    from components.export.runtime import Session, feeds

    before = Session(origin.file.path)
    found = parity(Session(path), lambda arrays: before.run(feeds(dataset, arrays)), dataset)
    return describe_model(path, name=name, role=origin.role, precision=precision, model=origin.model, dataset=origin.dataset,
                          num_parameters=origin.num_parameters, parents=(origin.identity,), parity=found)  # fmt: skip
