"""A champion on data that changed: columns are found by name, classes too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.artifacts import Column, DatasetVersion, InputField, StoredFile
from components.registry import contender


def table(folder: Path, names: list[str], vocabulary: tuple[str, ...]) -> DatasetVersion:
    """Two test rows; each number is its column's name as a digit, the one category is the first word of the vocabulary."""
    numbers = InputField(name="numbers", dtype="float32", shape=(len(names),), columns=tuple(Column(name=n, kind="number") for n in names))
    words = InputField(name="categories", dtype="int64", shape=(1,), columns=(Column(name="w", kind="category", vocabulary=vocabulary),))
    folder.mkdir()
    np.save(folder / "numbers.npy", np.tile(np.array([float(n) for n in names], np.float32), (2, 1)))
    np.save(folder / "categories.npy", np.ones((2, 1), np.int64))
    files = {f"test/{name}": StoredFile.of(folder / f"{name}.npy") for name in ("numbers", "categories")}
    return DatasetVersion(
        name="t", digest=folder.name, modality="table", task="classification", inputs=(numbers, words), target="y", classes=("a", "b"),
        splits={"test": 2}, files=files, source={},
    )  # fmt: skip


def test_columns_are_matched_by_name_and_categories_by_their_words(tmp_path: Path) -> None:
    """New, reordered and added columns: the old model is fed the ones it knows, in its order, as the strings they stand for."""
    old, new = table(tmp_path / "old", ["1", "2"], ("red", "blue")), table(tmp_path / "new", ["3", "2", "1"], ("blue", "green"))
    assert contender._why_incomparable(old, new) == ""
    fed = contender._fed(old, new)
    assert fed["numbers"].tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert fed["categories"].tolist() == [["blue"], ["blue"]]


def test_a_column_that_is_gone_is_named(tmp_path: Path) -> None:
    """Without it the old model cannot be asked."""
    old, new = table(tmp_path / "old", ["1", "2"], ("red",)), table(tmp_path / "new", ["1"], ("red",))
    assert contender._why_incomparable(old, new) == "the champion reads the column '2', which the data no longer have"


def test_classes_are_matched_by_name() -> None:
    """A class that the old model never saw has probability 0."""
    answers = contender._by_class(np.array([[0.9, 0.1]], np.float32), ("cat", "dog"), ("bird", "dog", "cat"))
    assert answers.tolist() == [[0.0, np.float32(0.1), np.float32(0.9)]]
