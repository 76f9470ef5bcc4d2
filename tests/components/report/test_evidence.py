"""What stored arrays show: mistakes in the right order, pictures that decode to the same pixels."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components import metrics
from components.artifacts import StoredFile
from components.report import evidence, pictures
from tests.components.report.runs import ReportedRun


def decoded(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_decodes_to_the_same_pixels(channels: int) -> None:
    """PNG is lossless here: grey and colour come back bit for bit."""
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    back = decoded(pictures.of_array(image))
    assert np.array_equal(back, image[0] if channels == 1 else image.transpose(1, 2, 0))


def test_mistakes_are_wrong_and_surest_first(digits: ReportedRun) -> None:
    """Only wrong rows, in falling confidence, each with its own picture."""
    report = digits.records["evaluate"]
    outputs, targets = evidence.outcome(report) or (None, None)
    assert outputs is not None
    assert targets is not None
    found = evidence.mistakes(report, outputs, targets, most=1000)
    assert len(found) == int((outputs.argmax(axis=1) != targets).sum()) > 5
    sure = [outputs[miss.row].max() for miss in found]
    assert sure == sorted(sure, reverse=True)
    images = np.load(report.dataset.files["test/image"].path)
    for miss in found[:3]:
        assert miss.truth == str(targets[miss.row]) != miss.said
        assert np.array_equal(decoded(miss.picture), images[miss.row, 0])


def test_residuals_show_the_row_they_belong_to(table: ReportedRun) -> None:
    """The largest residual comes first, with the row's own values under their column's name."""
    report = table.records["evaluate"]
    outputs, targets = evidence.outcome(report) or (None, None)
    assert outputs is not None
    assert targets is not None
    worst = evidence.mistakes(report, outputs, targets, most=1)[0]
    assert worst.row == int(np.abs(targets - outputs).argmax())
    stored = np.load(report.dataset.files["test/numbers"].path)[worst.row]
    assert [name for name, _ in worst.values] == [column.name for column in report.dataset.inputs[0].columns]
    assert float(worst.values[2][1]) == pytest.approx(stored[2], rel=1e-2)


def test_class_rows_agree_with_the_metrics(digits: ReportedRun) -> None:
    """The mean of the classes' precision and recall is the macro figure that evaluation computes."""
    report = digits.records["evaluate"]
    outputs, targets = evidence.outcome(report) or (None, None)
    assert outputs is not None
    assert targets is not None
    counts = evidence.confusion(report)
    assert counts is not None
    rows = evidence.class_rows(counts, report.dataset.classes)
    assert np.mean([row.recall for row in rows]) == pytest.approx(metrics.recall(outputs, targets))
    assert np.mean([row.precision for row in rows]) == pytest.approx(metrics.precision(outputs, targets))
    assert [row.recall for row in rows] == sorted(row.recall for row in rows)


def test_histogram_keeps_every_row() -> None:
    """Outliers are counted in the end bins, not dropped."""
    values = np.concatenate([np.random.default_rng(0).normal(size=1000), [1e9, -1e9]])
    edges, counts = evidence.bins_of(values)
    assert sum(counts) == 1002
    assert edges[-1] < 10


def test_an_array_that_is_gone_is_none(tmp_path: Path) -> None:
    """A cleaned store leaves gaps, not errors."""
    assert evidence.array(None) is None
    assert evidence.array(StoredFile(path=tmp_path / "gone.npy", sha256="0", size=1)) is None
