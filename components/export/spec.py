"""What an exported graph says of itself: enough to read new rows, feed them and name the answers, without the pipeline.

It travels as JSON in the graph's metadata (`athanor.dataset`, `athanor.version`), so a lone .onnx file can be served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from components.artifacts import JSON, DatasetVersion, InputField, Record, canonical_json

DATASET_KEY, VERSION_KEY = "athanor.dataset", "athanor.version"
FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class Spec(Record):
    """A served model's side of a dataset: its inputs, task and classes, and how the reader reads more of the same."""

    name: str
    digest: str
    modality: str
    task: str
    inputs: tuple[InputField, ...]
    target: str
    classes: tuple[str, ...]
    source: JSON

    @property
    def output(self) -> str:
        """Name of the graph's only output: `probabilities` [N, K] or `value` [N]."""
        return "probabilities" if self.task == "classification" else "value"


def spec_of(dataset: DatasetVersion) -> Spec:
    """The part of a dataset version that serving needs."""
    return Spec(
        name=dataset.name, digest=dataset.digest, modality=dataset.modality, task=dataset.task, target=dataset.target,
        classes=dataset.classes, inputs=tuple(_without_quantiles(field) for field in dataset.inputs), source=dataset.source,
    )  # fmt: skip


def to_metadata(spec: Spec) -> dict[str, str]:
    """The graph's metadata properties."""
    return {DATASET_KEY: canonical_json(spec.to_json()), VERSION_KEY: FORMAT}


def from_metadata(properties: Mapping[str, str]) -> Spec:
    """The inverse of `to_metadata`. Raises `ValueError` when the properties are absent or of another version."""
    if properties.get(VERSION_KEY) != FORMAT:
        raise ValueError(f"{VERSION_KEY} must be {FORMAT!r}, got {properties.get(VERSION_KEY)!r}")
    return Spec.from_json(json.loads(properties[DATASET_KEY]))


def is_text(field: InputField) -> bool:
    """Whether the graph takes this field as strings: its columns are categories, looked up inside the graph."""
    return any(column.kind == "category" for column in field.columns)


def _without_quantiles(field: InputField) -> InputField:
    return field.replace(columns=tuple(column.replace(quantiles=()) for column in field.columns))
