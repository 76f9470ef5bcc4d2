"""The validate verb, and what single checks see in data of known flaws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from components.artifacts import QualityReport
from components.errors import UnknownNameError, UsageError
from components.quality.check.duplicates import Duplicates
from components.quality.check.imbalance import Imbalance
from components.quality.check.label_noise import LabelNoise
from components.quality.check.leakage import Leakage, column_scores
from components.quality.check.missing import Missing
from components.quality.check.overlap import Overlap
from components.quality.validate import validate
from components.workspace import Workspace
from tests.datasets import CONF, image_arrays, read_version, table_arrays, write_version

CHECKS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(CONF.glob("check/*.yaml"))}


def test_digits_pass(home: Path, tmp_path: Path) -> None:
    """The bundled data pass every check that has something to say of images with classes, and no other check speaks."""
    record = read_version(tmp_path / "data", "digits")
    events = []
    work = Workspace(out=tmp_path / "out", emit=lambda event, **fields: events.append((event, fields["name"], fields["status"])))
    report = validate(record, {"check": CHECKS}, work)
    assert report.passed
    assert report.dataset == record.identity
    assert {row.name for row in report.rows} == {"classes", "duplicates", "empty", "imbalance", "label_noise", "overlap", "size"}
    assert {row.status for row in report.rows} == {"pass"}
    assert len(events) == len(report.rows)
    assert QualityReport.from_json(report.to_json()) == report


def test_failing_row_comes_first(tmp_path: Path) -> None:
    """The report is in order of gravity, and does not pass."""
    arrays, fields = image_arrays()
    arrays = {name: array * 0 if name.endswith("target") else array for name, array in arrays.items()}
    report = validate(write_version(tmp_path / "d", arrays, fields, ("a", "b", "c")), {"check": CHECKS}, Workspace(out=tmp_path / "o"))
    assert not report.passed
    assert report.rows[0].status == "fail"
    assert "one class only ('a')" in next(row.reason for row in report.rows if row.name == "classes")


def test_no_checks_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    """An empty list of checks is a mistake, and so are unknown or crossed thresholds."""
    arrays, fields = image_arrays()
    record = write_version(tmp_path / "d", arrays, fields, ("a", "b", "c"))
    work = Workspace(out=tmp_path / "o")
    with pytest.raises(UsageError, match="check needs at least one check"):
        validate(record, {"check": {}}, work)
    with pytest.raises(UnknownNameError, match="did you mean 'warn'"):
        validate(record, {"check": {"size": {**CHECKS["size"], "wran": 1}}}, work)
    with pytest.raises(UsageError, match=r"check\.overlap\.warn must be a number no larger than check\.overlap\.fail, got 0\.9 and 0\.5"):
        validate(record, {"check": {"overlap": {**CHECKS["overlap"], "warn": 0.9}}}, work)


def test_one_check_switched_off(tmp_path: Path) -> None:
    """`check.overlap=null` leaves the others."""
    arrays, fields = image_arrays()
    record = write_version(tmp_path / "d", arrays, fields, ("a", "b", "c"))
    report = validate(record, {"check": {**CHECKS, "overlap": None}}, Workspace(out=tmp_path / "o"))
    assert "overlap" not in {row.name for row in report.rows}


def test_duplicates_and_contradictions_are_counted(tmp_path: Path) -> None:
    """Ten of 420 rows repeat another one, and five of these pairs disagree on the label."""
    arrays, fields = image_arrays()
    arrays["train/image"][10:20] = arrays["train/image"][:10]
    arrays["train/target"][10:20] = arrays["train/target"][:10]
    arrays["train/target"][10:15] = (arrays["train/target"][10:15] + 1) % 3
    figures = Duplicates().check(write_version(tmp_path / "d", arrays, fields, ("a", "b", "c"))).figures
    assert figures["repeated"] == pytest.approx(10 / 420)
    assert figures["contradicting"] == pytest.approx(10 / 420)


def test_overlap_names_the_rows(tmp_path: Path) -> None:
    """Three test rows taken from training are counted and named."""
    arrays, fields = image_arrays()
    arrays["test/image"][[4, 7, 9]] = arrays["train/image"][[1, 2, 3]]
    result = Overlap().check(write_version(tmp_path / "d", arrays, fields, ("a", "b", "c")))
    assert result.status == "warn"
    assert result.figures["rows"] == [4, 7, 9]
    assert result.reason.startswith("3 of 120 test rows (2.50%)")


def test_imbalance_is_a_ratio(tmp_path: Path) -> None:
    """9 rows against 411: warned, not failed."""
    arrays, fields = image_arrays()
    arrays["train/target"][:] = 0
    arrays["train/target"][:9] = 1
    result = Imbalance().check(write_version(tmp_path / "d", arrays, fields, ("a", "b")))
    assert result.status == "warn"
    assert result.figures["ratio"] == pytest.approx(9 / 411)


def test_missing_is_told_by_column(tmp_path: Path) -> None:
    """A quarter of one of four columns."""
    arrays, fields = table_arrays()
    arrays["train/numbers"][::4, 1] = np.nan
    figures = Missing().check(write_version(tmp_path / "d", arrays, fields, ("no", "yes"))).figures
    assert figures["by_column"] == {"x1": pytest.approx(0.25)}
    assert figures["overall"] == pytest.approx(0.25 / 4)


def test_leakage_score_is_an_auc(tmp_path: Path) -> None:
    """The score of a binned column agrees with scikit-learn's AUC of the raw column, whatever its direction."""
    from sklearn.metrics import roc_auc_score

    arrays, fields = table_arrays(20_000)
    arrays = {name: -array if name.endswith("/numbers") else array for name, array in arrays.items()}
    scores = column_scores(write_version(tmp_path / "d", arrays, fields, ("no", "yes")))
    for place in range(3):
        auc = roc_auc_score(arrays["train/target"], arrays["train/numbers"][:, place])
        assert scores[f"x{place}"] == pytest.approx(max(auc, 1 - auc), abs=0.03)


def test_leaking_column_fails_and_is_named(tmp_path: Path) -> None:
    """A copy of the target among the inputs stops the run, with what to do; a quantity's copy too."""
    for number, regression in enumerate((False, True)):
        arrays, fields = table_arrays(regression=regression)
        for split in ("train", "validation", "test"):
            arrays[f"{split}/numbers"][:, 2] = 3 * arrays[f"{split}/target"] + 1
        result = Leakage().check(write_version(tmp_path / str(number), arrays, fields, () if regression else ("no", "yes")))
        assert result.status == "fail"
        assert "'x2'" in result.reason
        assert "dataset.drop=[x2]" in result.reason


def test_shuffled_labels_are_noticed(tmp_path: Path) -> None:
    """Labels drawn by lot: neighbours guess no better than the most frequent class, and the reason says so."""
    arrays, fields = image_arrays()
    arrays["train/target"] = np.random.default_rng(1).permutation(arrays["train/target"])
    result = LabelNoise().check(write_version(tmp_path / "d", arrays, fields, ("a", "b", "c")))
    assert result.status == "warn"
    assert "check that they were not shuffled" in result.reason


def test_wrong_labels_are_the_suspects(tmp_path: Path) -> None:
    """Of twenty flipped labels among 420 most are listed, and few others."""
    arrays, fields = image_arrays()
    flipped = np.arange(0, 400, 20)
    arrays["train/target"][flipped] = (arrays["train/target"][flipped] + 1) % 3
    figures = LabelNoise().check(write_version(tmp_path / "d", arrays, fields, ("a", "b", "c"))).figures
    assert len(set(figures["rows"]) & set(flipped.tolist())) >= 15
    assert len(set(figures["rows"]) - set(flipped.tolist())) <= 3
