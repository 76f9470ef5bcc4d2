"""Records: JSON round trip, relative paths, and an identity that only decisions change."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import artifacts
from components.artifacts import Candidate, Column, DatasetVersion, InputField, SearchResult, StoredFile, Trial


def make_dataset(folder: Path) -> DatasetVersion:
    file = folder / "x.npy"
    file.write_bytes(b"bytes")
    age = Column(name="age", kind="number", quantiles=(0.0, 1.0))
    return DatasetVersion(
        name="d", digest="1", modality="table", task="classification", target="y", classes=("a", "b"), splits={"train": 1},
        source={"k": [1]}, inputs=(InputField(name="numbers", dtype="float32", shape=(1,), columns=(age,)),),
        files={"train/numbers": StoredFile.of(file)},
    )  # fmt: skip


def make_search(seconds: float) -> SearchResult:
    candidate = Candidate(space="mlp", architecture={"depth": 2}, hyperparameters={"learning_rate": 0.1})
    return SearchResult(
        study="s", objective="accuracy", direction="maximize", best_number=0,
        trials=(Trial(number=0, candidate=candidate, state="complete", values={"accuracy": 0.5}, seconds=seconds),),
    )  # fmt: skip


def test_a_record_survives_json_and_a_move_of_its_folder(tmp_path: Path) -> None:
    """Paths below the base are relative in JSON, so a renamed folder still reads back whole."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    record = make_dataset(old)
    data = artifacts.dump(record, old)
    old.rename(new)
    back = artifacts.load(data, new)
    assert back.files["train/numbers"].path == new / "x.npy"
    assert back.replace(files=record.files) == record
    assert back.identity == record.identity


def test_observed_fields_do_not_change_the_identity() -> None:
    """Seconds are measured, not decided."""
    assert make_search(1.0).identity == make_search(2.0).identity


def test_a_decision_changes_the_identity(tmp_path: Path) -> None:
    """A byte of a file, a class name: each makes another record."""
    record = make_dataset(tmp_path)
    (tmp_path / "x.npy").write_bytes(b"bytez")
    other = record.replace(files={"train/numbers": StoredFile.of(tmp_path / "x.npy")})
    assert len({record.identity, other.identity, record.replace(classes=("a", "c")).identity}) == 3


def test_a_tuple_of_records_round_trips() -> None:
    """A stage may return several records."""
    records = (make_search(1.0), make_search(2.0))
    assert artifacts.load(artifacts.dump(records)) == records


def test_an_unknown_field_is_refused_by_name() -> None:
    """A record written by another version says which field is in the way."""
    with pytest.raises(ValueError, match="Candidate has no field 'colour'"):
        Candidate.from_json({"space": "mlp", "architecture": {}, "hyperparameters": {}, "colour": 1})


def test_the_best_of_a_search_is_found_by_number() -> None:
    """Training needs only the winning candidate."""
    assert make_search(1.0).best.architecture == {"depth": 2}
