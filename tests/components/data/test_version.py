"""The version verb on real data: bundled digits, and the shared data sets where they are at hand."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from components.artifacts import DatasetVersion
from components.data.arrays import load_inputs, load_target
from components.data.sources import Digests, key_config, name_of, source_digests
from components.data.version import read_rows, version
from components.errors import TryAgainError, UnknownNameError
from components.workspace import Workspace
from tests.datasets import dataset_config, read_version

ADULT = ["age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
         "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"]  # fmt: skip

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def digits(tmp_path: Path) -> DatasetVersion:
    return read_version(tmp_path / "digits", "digits")


def test_digits_test_split_is_scikit_learns(digits: DatasetVersion) -> None:
    """The test rows are those of train_test_split(test_size=0.2, stratify=y, random_state=0), row by row."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    train, test, _, test_labels = train_test_split(pixels, labels, test_size=0.2, stratify=labels, random_state=0)
    mine = load_inputs(digits, "test")["image"].reshape(len(test), -1)
    expected = np.rint(test * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, mine)) == sorted(map(bytes, expected))
    assert np.bincount(load_target(digits, "test")).tolist() == np.bincount(test_labels).tolist()
    assert digits.splits["train"] + digits.splits["validation"] == len(train)


def test_digits_draws_are_scikit_learns() -> None:
    """The draws agree for other seeds and sizes, ties in the rounding included."""
    from sklearn.model_selection import train_test_split

    from components.data.dataset.digits import stratified_test_rows

    generator = np.random.default_rng(0)
    for seed in range(5):
        labels = generator.integers(0, 7, size=200 + 13 * seed)
        for size in (30, 61):
            _, expected = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
            assert stratified_test_rows(labels, size, seed).tolist() == expected.tolist()


def test_digits_targets_belong_to_their_images(digits: DatasetVersion) -> None:
    """Rows and targets are cut alike: each image has the label that scikit-learn gives it."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    known = {np.rint(row * 255 / 16).astype(np.uint8).tobytes(): label for row, label in zip(pixels, labels, strict=True)}
    for split in digits.splits:
        images = load_inputs(digits, split)["image"]
        assert [known[image.tobytes()] for image in images] == load_target(digits, split).tolist()


def test_same_version_twice_is_identical(digits: DatasetVersion, tmp_path: Path) -> None:
    """Nothing of the time or the folder is in a version."""
    again = read_version(tmp_path / "again", "digits")
    assert again.identity == digits.identity
    assert {name: file.sha256 for name, file in again.files.items()} == {name: file.sha256 for name, file in digits.files.items()}


def test_split_is_part_of_the_version(digits: DatasetVersion, tmp_path: Path) -> None:
    """Another validation fraction is another version; the test rows stay."""
    config = dataset_config("digits")
    config["split"]["validation"] = 0.3
    other = version(config, Workspace(out=tmp_path / "other"))
    assert other.digest != digits.digest
    assert other.files["test/image"].sha256 == digits.files["test/image"].sha256


def test_progress_is_told(tmp_path: Path) -> None:
    """The number of rows read is reported."""
    events: list[tuple[str, dict]] = []
    version(dataset_config("digits"), Workspace(out=tmp_path / "out", emit=lambda event, **fields: events.append((event, fields))))
    assert ("version.read", {"rows": 1797}) in events


def test_unknown_split_offers_the_nearest(digits: DatasetVersion) -> None:
    """`load_inputs` names the splits there are."""
    with pytest.raises(UnknownNameError, match="did you mean 'validation'"):
        load_inputs(digits, "validatoin")


def test_arrays_are_read_only_maps(digits: DatasetVersion) -> None:
    """Arrays are mapped, not copied, and cannot be written."""
    image = load_inputs(digits, "train")["image"]
    assert isinstance(image, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0


def test_data_that_change_while_read_are_not_versioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file rewritten between its digest and its rows ends in "try again", not in a version of neither state."""
    from components.data.dataset.csv import Csv

    options = Csv.example(tmp_path)
    read = Csv.read

    def read_then_rewrite(self: Csv) -> object:
        found = read(self)
        Path(options["path"]).write_text(Path(options["path"]).read_text() + "u1,1.0,pro,2024-01-01,no\n")
        return found

    monkeypatch.setattr(Csv, "read", read_then_rewrite)
    with pytest.raises(TryAgainError, match="changed while they were read"):
        read_version(tmp_path / "out", "csv", **options)


# ---- sources --------------------------------------------------------------------------------------------------


def test_source_digests_are_remembered(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look at an unchanged file reads none of its bytes; a rewritten one of the same size is digested anew."""
    from components.data import sources
    from components.data.dataset.csv import Csv

    options = Csv.example(tmp_path)
    file = Path(options["path"])
    os.utime(file, (time.time() - 60, time.time() - 60))
    config = dataset_config("csv", **options)
    first = source_digests(config)
    read = []
    digest = sources._digest
    monkeypatch.setattr(sources, "_digest", lambda path, algorithm: read.append(path) or digest(path, algorithm))
    assert source_digests(config) == first
    assert read == []
    file.write_text(file.read_text().replace("basic", "bisac"))
    assert source_digests(config) != first


def test_torn_memory_of_digests_is_rebuilt(tmp_path: Path, home: Path) -> None:
    """A damaged sources.json costs time, no more."""
    home.mkdir()
    (home / "sources.json").write_text('{"torn')
    file = tmp_path / "file"
    file.write_text("x")
    assert Digests().of(file, "md5") == "9dd4e461268c8034f5c8564e155c67a6"


def test_name_and_key_config(tmp_path: Path) -> None:
    """The name follows from the file unless given; the key's configuration holds no place."""
    from components.data.dataset.csv import Csv

    options = Csv.example(tmp_path)
    assert name_of(dataset_config("csv", **options)) == "churn"
    assert name_of(dataset_config("csv", **options, name="mine")) == "mine"
    kept = key_config(dataset_config("csv", **options))
    assert str(tmp_path) not in json.dumps(kept)
    assert kept["dataset"]["target"] == "left"
    assert kept["split"] == dataset_config("csv")["split"]


# ---- new rows -------------------------------------------------------------------------------------------------


def test_rows_of_the_training_file_come_back_the_same(tmp_path: Path) -> None:
    """Reading the file again for prediction gives the arrays that were trained on, in the file's order."""
    from components.data.dataset.csv import Csv

    options = Csv.example(tmp_path)
    record = read_version(tmp_path / "out", "csv", **options)
    names, arrays = read_rows(record.source, record.inputs, Path(options["path"]))
    assert names[:2] == ["line 2", "line 3"]
    for field in record.inputs:
        stored = np.concatenate([load_inputs(record, split)[field.name] for split in record.splits])
        assert sorted(map(bytes, np.ascontiguousarray(arrays[field.name]))) == sorted(map(bytes, stored))


def test_new_digits_as_lines_and_as_image(digits: DatasetVersion, tmp_path: Path) -> None:
    """A line of 64 published pixels and a grey image of the same scan give the same row."""
    from PIL import Image

    scan = np.arange(64).reshape(8, 8) % 17
    (tmp_path / "new.csv").write_text(",".join(map(str, scan.ravel())) + "\n")
    Image.fromarray(np.rint(scan * 255 / 16).astype(np.uint8)).save(tmp_path / "new.png")
    _, lines = read_rows(digits.source, digits.inputs, tmp_path / "new.csv")
    names, images = read_rows(digits.source, digits.inputs, tmp_path / "new.png")
    assert names == ["new.png"]
    assert (lines["image"] == images["image"]).all()


# ---- real data ------------------------------------------------------------------------------------------------


def test_fashion_mnist(shared_data: Path, tmp_path: Path) -> None:
    """The four published files, as they are: 60,000 rows to train on and the 10,000 test rows untouched."""
    record = read_version(tmp_path / "out", "idx", path=str(shared_data / "fashion-mnist"))
    assert record.name == "fashion-mnist"
    assert record.splits["train"] + record.splits["validation"] == 60_000
    assert record.splits["test"] == 10_000
    labels = gzip.decompress((shared_data / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    assert load_target(record, "test").tolist() == list(labels)


def test_adult_as_published(shared_data: Path, tmp_path: Path) -> None:
    """adult's two files unedited: no header, a comment line, `?` for missing, a dot after each test label."""
    record = read_version(
        tmp_path / "out", "csv", path=str(shared_data / "adult" / "adult-train.csv.gz"), comment="|", header=False, columns=ADULT,
        test_path=str(shared_data / "adult" / "adult-test.csv.gz"), target="income", na_values=["?"],
    )  # fmt: skip
    assert record.classes == ("<=50K", ">50K")
    assert record.splits["test"] == 16_281
    assert record.splits["train"] + record.splits["validation"] == 32_561
    assert [column.name for field in record.inputs for column in field.columns if column.kind == "number"] == [
        "age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week",
    ]  # fmt: skip
    vocabulary = next(c.vocabulary for f in record.inputs for c in f.columns if c.name == "occupation")
    assert "" in vocabulary
    assert "?" not in vocabulary
    assert np.bincount(load_target(record, "test")).tolist() == [12_435, 3_846]  # adult.names: 76.38 % and 23.62 %


def test_california_housing(shared_data: Path, tmp_path: Path) -> None:
    """A quantity is told from classes, gaps stay NaN, a category is found."""
    record = read_version(
        tmp_path / "out", "csv", path=str(shared_data / "california-housing" / "housing.csv"), target="median_house_value"
    )
    assert record.task == "regression"
    assert [field.name for field in record.inputs] == ["numbers", "categories"]
    train = load_target(record, "train")
    assert record.target_mean == pytest.approx(train.mean(), rel=1e-5)
    assert record.target_std == pytest.approx(train.std(), rel=1e-5)
    bedrooms = [column.name for column in record.inputs[0].columns].index("total_bedrooms")
    gaps = sum(int(np.isnan(load_inputs(record, split)["numbers"][:, bedrooms]).sum()) for split in record.splits)
    assert gaps == 207


def test_jpeg_archive(shared_data: Path, tmp_path: Path) -> None:
    """A zip archive of split/class/file is read in place, RGB, with its own test split."""
    record = read_version(tmp_path / "out", "image_folder", path=str(shared_data / "cifar-10-jpeg" / "images.zip"), name="cifar")
    assert record.inputs[0].shape == (3, 32, 32)
    assert record.splits["test"] == 1000
    assert record.splits["train"] + record.splits["validation"] == 3000
    assert len(record.classes) == 10
