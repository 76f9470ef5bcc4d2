"""A registered version as the gates see it: its report and its answers on the challenger's test rows.

A champion that was judged on the same frozen test split brings its stored answers. When the data have changed since,
it answers the new test rows now, on ONNX Runtime: columns are matched by name, classes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts import DatasetVersion, EvaluationReport, InputField, ModelVersion
from components.data.arrays import load_inputs
from components.errors import DataError
from components.export.runtime import Session, feeds, latencies
from components.export.spec import is_text

LATENCY_ROWS = 10


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    `outputs` are probabilities [N, K] or values [N] and `targets` the truth, for the same rows on both sides. `note`
    says how the outputs came about when they are not the stored ones, `incomparable` why there are none.
    """

    version: int
    report: EvaluationReport
    outputs: NDArray[Any]
    targets: NDArray[Any]
    note: str = ""
    incomparable: str = ""


def challenger_of(version: ModelVersion) -> Contender:
    """The version to be judged, with the answers its evaluation stored."""
    report = version.report
    outputs, targets = _load(report.predictions.path), _load(report.targets.path)
    if len(outputs) != len(targets):
        raise DataError(f"{report.predictions.path} has {len(outputs)} rows and its targets {len(targets)}; run the evaluate stage again")
    return Contender(version.version, report, outputs, targets)


def champion_of(version: ModelVersion, challenger: Contender) -> Contender:
    """The champion on the challenger's test rows."""
    ours, theirs = challenger.report, version.report
    same = theirs.dataset.digest == ours.dataset.digest and theirs.targets.sha256 == ours.targets.sha256
    if same and theirs.dataset.classes == ours.dataset.classes:
        return Contender(version.version, theirs, _load(theirs.predictions.path), challenger.targets)
    reason = _why_incomparable(theirs.dataset, ours.dataset)
    if reason:
        return Contender(version.version, theirs, np.full_like(challenger.outputs, np.nan), challenger.targets, incomparable=reason)
    note = "the data changed since, so the champion answered the new test rows"
    return Contender(version.version, theirs, _answers(version, ours.dataset), challenger.targets, note=note)


def _load(path: Any) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"stored answers {path} cannot be read ({error}); run the evaluate stage again") from error


def _why_incomparable(old: DatasetVersion, new: DatasetVersion) -> str:
    if old.task != new.task or old.target != new.target:
        return f"the champion predicts {old.target} ({old.task}), the challenger {new.target} ({new.task})"
    for before in old.inputs:
        after = next((f for f in new.inputs if f.name == before.name), None)
        if after is None:
            return f"the champion reads the input {before.name!r}, which the data no longer have"
        gone = {c.name for c in before.columns} - {c.name for c in after.columns}
        if gone:
            return f"the champion reads the column {min(gone)!r}, which the data no longer have"
        if not before.columns and before.shape != after.shape:
            return f"the champion reads {before.name} of shape {list(before.shape)}, the data have {list(after.shape)}"
    return ""


def _answers(version: ModelVersion, data: DatasetVersion) -> NDArray[Any]:
    outputs = Session(version.file.path).run_in_batches(_fed(version.report.dataset, data))
    return outputs if data.task != "classification" else _by_class(outputs, version.report.dataset.classes, data.classes)


def _fed(old: DatasetVersion, new: DatasetVersion) -> dict[str, NDArray[Any]]:
    """The new test rows as the old model is fed: strings come from the new vocabulary, columns in the old order."""
    fed = feeds(new, load_inputs(new, "test"))
    fields = {field.name: field for field in new.inputs}
    return {field.name: _columns(fed[field.name], field, fields[field.name]) for field in old.inputs}


def _columns(array: NDArray[Any], old: InputField, new: InputField) -> NDArray[Any]:
    if not old.columns:
        return array
    places = {column.name: place for place, column in enumerate(new.columns)}
    return np.ascontiguousarray(array[:, [places[column.name] for column in old.columns]])


def _by_class(outputs_NK: NDArray[Any], old: tuple[str, ...], new: tuple[str, ...]) -> NDArray[Any]:
    """Probabilities in the order of the new classes; 0 for a class the old model does not know."""
    answers = np.zeros((len(outputs_NK), len(new)), dtype=outputs_NK.dtype)
    for place, name in enumerate(new):
        if name in old:
            answers[:, place] = outputs_NK[:, old.index(name)]
    return answers


def latency_ratio(challenger: Contender, champion: Contender) -> float:
    """Median latency at batch 1 over the champion's, measured now by turns (stored figures are of other moments).

    NaN when the two read different inputs. Rows of zeros are fed: time does not depend on what the rows say."""
    ours, theirs = challenger.report.best.model.file, champion.report.best.model.file
    if ours.sha256 == theirs.sha256:
        return 1.0
    rows = _blank_rows(challenger.report.dataset)
    if _layout(challenger.report.dataset) != _layout(champion.report.dataset):
        return float("nan")
    mine, other = latencies([Session(ours.path), Session(theirs.path)], rows, seconds=0.2)
    return float(np.median(mine) / np.median(other))


def _layout(data: DatasetVersion) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(field.name, "string" if is_text(field) else field.dtype, field.shape) for field in data.inputs]


def _blank_rows(data: DatasetVersion) -> dict[str, NDArray[Any]]:
    def blank(field: InputField) -> NDArray[Any]:
        shape = (LATENCY_ROWS, *field.shape)
        return np.full(shape, "", dtype=object) if is_text(field) else np.zeros(shape, dtype=field.dtype)

    return {field.name: blank(field) for field in data.inputs}
