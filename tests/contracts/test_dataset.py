"""What every `dataset` choice promises, for each yaml in conf/dataset: a new one is found here without being named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components.artifacts import SPLITS, DatasetVersion
from components.build import allow, build, resolve
from components.data.arrays import load_inputs, load_target
from components.data.sources import key_config, source_digests
from components.data.version import read_rows, version
from components.errors import AthanorError
from components.workspace import Workspace
from tests.datasets import CONF, SPLIT

FOUND = sorted(CONF.glob("dataset/*.yaml"))
ROOT = CONF.parent

pytestmark = pytest.mark.usefixtures("home")


def test_choices_are_found() -> None:
    """The suite runs over something."""
    assert len(FOUND) >= 4


def load(file: Path) -> dict[str, Any]:
    """A yaml's node without Hydra's own keys."""
    node = yaml.safe_load(file.read_text())
    node.pop("defaults", None)
    return node


def example(node: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The node, reading the example that its reader writes below `folder`."""
    folder.mkdir(parents=True)
    return {"dataset": {**node, **resolve(node["_target_"]).example(folder)}, "split": dict(SPLIT)}


def check_reader(node: dict[str, Any], tmp_path: Path) -> None:
    """All the promises, one after another."""
    config = example(node, tmp_path / "here" / "example")
    record = version(config, Workspace(out=tmp_path / "out"))
    check_arrays(record)
    check_round_trip(record)
    check_place_does_not_matter(node, config, record, tmp_path)
    check_rows(record, build(config["dataset"]))
    check_bytes_matter(config)


def check_arrays(record: DatasetVersion) -> None:
    """Arrays are as the input spec says, splits hold rows, targets are classes or finite numbers."""
    assert list(record.splits) == list(SPLITS)
    for split, count in record.splits.items():
        assert count > 0
        target = load_target(record, split)
        assert target.shape == (count,)
        for field in record.inputs:
            array = load_inputs(record, split)[field.name]
            assert array.shape == (count, *field.shape)
            assert str(array.dtype) == field.dtype
        if record.task == "classification":
            assert target.dtype == np.int64
            assert target.min() >= 0
            assert target.max() < len(record.classes)
        else:
            assert target.dtype == np.float32
            assert np.isfinite(target).all()
    check_statistics(record)


def check_statistics(record: DatasetVersion) -> None:
    """Means are those of the training rows and of no others."""
    for field in record.inputs:
        if field.mean:
            array = load_inputs(record, "train")[field.name].astype(np.float64)
            axes = (0, *range(2, array.ndim))
            np.testing.assert_allclose(field.mean, np.nanmean(array, axis=axes), rtol=1e-5)
        for place, column in enumerate(field.columns):
            if column.kind == "category":
                codes = load_inputs(record, "train")[field.name][:, place]
                assert codes.max() <= len(column.vocabulary)


def check_round_trip(record: DatasetVersion) -> None:
    """The record survives JSON."""
    assert DatasetVersion.from_json(json.loads(json.dumps(record.to_json()))) == record


def check_place_does_not_matter(node: dict[str, Any], config: dict[str, Any], record: DatasetVersion, tmp_path: Path) -> None:
    """The same bytes at another path, with other time stamps, are the same version; no path of a machine is in the record."""
    there = tmp_path / "elsewhere" / "deeper" / "example"
    shutil.copytree(tmp_path / "here" / "example", there)
    for file in there.rglob("*"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    moved = json.loads(json.dumps(config).replace(str(tmp_path / "here" / "example"), str(there)))
    again = version(moved, Workspace(out=tmp_path / "again"))
    assert again.digest == record.digest
    assert again.identity == record.identity
    assert str(tmp_path) not in json.dumps(record.source)
    assert key_config(moved) == key_config(config)


def check_bytes_matter(config: dict[str, Any]) -> None:
    """Another byte in a source (the first and the last few are tried) changes what the stage is keyed by."""
    places = [value for value in config["dataset"].values() if isinstance(value, str) and Path(value).exists()]
    if not places:
        return
    before = source_digests(config)
    paths = list(build(config["dataset"]).sources().values())
    for path in {*paths[:2], *paths[-2:]}:
        with path.open("ab") as file:
            file.write(b"\n")
        after = source_digests(config)
        assert after != before
        before = after


def check_rows(record: DatasetVersion, reader: Any) -> None:
    """New rows are read by the record's source alone, into arrays of the same spec."""
    sources = reader.sources()
    path = next((Path(getattr(reader, place)) for place in reader.places if getattr(reader, place, None)), next(iter(sources.values())))
    path = next((file for role, file in sources.items() if "images" in role), path)
    names, arrays = read_rows(json.loads(json.dumps(record.source)), record.inputs, path)
    assert len(set(names)) == len(names) > 0
    for field in record.inputs:
        assert arrays[field.name].shape == (len(names), *field.shape)
        assert str(arrays[field.name].dtype) == field.dtype


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_contract(file: Path, tmp_path: Path) -> None:
    """A reader keeps all promises of the family."""
    node = load(file)
    assert node["_target_"].rpartition(".")[0] == f"components.data.dataset.{file.stem}"
    check_reader(node, tmp_path)


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_place_that_is_not_there(file: Path, tmp_path: Path) -> None:
    """A path that does not exist is refused in one line that names it, and no path at all in one that names the option."""
    node = load(file)
    for place in resolve(node["_target_"]).places[:1]:
        for value, expected in ((str(tmp_path / "gone"), "gone' does not exist"), (None, f"dataset.{place} is needed")):
            with pytest.raises(AthanorError, match=expected) as caught:
                version({"dataset": {**node, place: value}, "split": SPLIT}, Workspace(out=tmp_path / "out"))
            assert "\n" not in str(caught.value)


def test_readers_are_light() -> None:
    """A run with nothing to do imports readers only to ask for their files: nothing heavy may come along."""
    modules = ", ".join(f"components.data.dataset.{file.stem}" for file in FOUND)
    heavy = {"numpy", "pandas", "torch", "mlflow", "sklearn", "PIL", "pyarrow", "dvc", "lightning", "yaml"}
    code = f"import sys, components.data.sources, components.data.version, {modules}; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


BROKEN = sorted((Path(__file__).parent / "broken").glob("dataset_*.py"))


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_broken_reader_fails(file: Path, tmp_path: Path) -> None:
    """The suite has teeth: each reader with a planted fault breaks a promise."""
    allow("tests")
    with pytest.raises(AssertionError):
        check_reader({"_target_": f"tests.contracts.broken.{file.stem}.Broken"}, tmp_path)


def test_broken_readers_are_found() -> None:
    """At least one broken reader is tried."""
    assert BROKEN
