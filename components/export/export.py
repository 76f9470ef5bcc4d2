"""Verb `export`: trained networks become ONNX graphs that are proven equal to them.

Every graph has its preprocessing inside, a dynamic batch axis and its input spec in the metadata. Parity with PyTorch over
real rows at batch sizes 1, 2 and 7 is a condition, not a figure: a graph that differs ends the stage.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.artifacts import JSON, DatasetVersion, ExportedModel, StoredFile, TrainedModel
from components.build import build
from components.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from components.export.parity import Origin


class Exporter(Protocol):
    """The interface of the family; `tolerance` is the largest difference from the network that parity forgives."""

    tolerance: float

    def export(self, network: nn.Module, dataset: DatasetVersion, path: Path) -> None:
        """Writes one self-contained file that answers as `Served` does and says its spec in the metadata."""


def export(dataset: DatasetVersion, models: tuple[TrainedModel, ...], config: JSON, work: Workspace) -> tuple[ExportedModel, ...]:
    """One FP32 graph per distinct model. Reads `config["exporter"]`. Raises `StageFailedError` when parity fails."""
    exporter = build(config["exporter"])
    distinct = {model.identity: model for model in models}.values()
    return tuple(_export_one(dataset, model, name, exporter, work) for model, name in zip(distinct, _names(distinct)))


def as_origin(network: nn.Module, dataset: DatasetVersion) -> Origin:
    """The network as a function of stored arrays, answering as the exported graph does."""
    import numpy as np
    import torch

    from components.export.exporter.onnx import Served

    served = Served(network, dataset).eval()

    def answer(arrays: dict[str, Any]) -> Any:
        with torch.no_grad():
            return served(*(torch.from_numpy(np.array(arrays[field.name])) for field in dataset.inputs)).numpy()

    return answer


def _export_one(dataset: DatasetVersion, model: TrainedModel, name: str, exporter: Exporter, work: Workspace) -> ExportedModel:
    from components.export.parity import parity, require_parity
    from components.export.runtime import Session
    from components.models.network import load_network, num_parameters

    started = time.monotonic()
    path = work.out / f"{name}.onnx"
    network = load_network(model, dataset)
    exporter.export(network, dataset, path)
    found = parity(Session(path), as_origin(network, dataset), dataset)
    require_parity(name, found, exporter.tolerance, dataset)
    exported = describe_model(path, name=name, role=model.role, precision="fp32", model=model.identity, dataset=dataset.identity,
                              num_parameters=num_parameters(network), parity=found)  # fmt: skip
    work.emit("exported", name=name, size_kb=exported.file.size / 1024, difference=max(found.values()), seconds=time.monotonic() - started)
    return exported


def describe_model(path: Path, **fields: Any) -> ExportedModel:
    """The record of a graph on disk: what the graph says of itself and `fields`."""
    from components.export.graph import describe

    return ExportedModel(file=StoredFile.of(path), **describe(path), **fields)


def _names(models: Iterable[TrainedModel]) -> list[str]:
    """`<role>-fp32`; a role that comes again gets a number."""
    names: list[str] = []
    for model in models:
        name, number = f"{model.role}-fp32", 1
        while name in names:
            number += 1
            name = f"{model.role}{number}-fp32"
        names.append(name)
    return names
