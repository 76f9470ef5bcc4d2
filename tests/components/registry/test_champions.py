"""The champion is served from the state folder: light, checked, and made again from MLflow when it is not as recorded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.artifacts import Decision, ModelVersion
from components.errors import CorruptArtifactError, UnknownNameError, UsageError
from components.registry import champions, files
from components.registry.connection import connect
from tests.conftest import ROOT

Decide = Callable[..., Decision]


def test_champion_without_importing_mlflow_or_torch(decide: Decide, home: Path) -> None:
    """A fresh process finds the champion, its file and its input spec in a moment."""
    decide("good")
    code = (
        "import sys; from components.registry.champions import champion; found = champion('digits');"
        "print(found.version, found.file.path.exists(), found.report.dataset.name, *(m in sys.modules for m in ('mlflow', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "True", "digits", "False", "False"]


@pytest.mark.parametrize("loss", ["pointer", "torn pointer", "model", "damaged model", "all"])
def test_what_is_lost_comes_back_from_mlflow(decide: Decide, home: Path, loss: str) -> None:
    """A missing or torn pointer, a missing or damaged file: the champion is fetched from MLflow again."""
    decide("good")
    before = champions.champion("digits")
    pointer = champions.pointer_file("digits")
    if loss in ("pointer", "all"):
        shutil.rmtree(home / "champions")
    if loss == "torn pointer":
        pointer.write_text(pointer.read_text()[:100])
    if loss in ("model", "all"):
        shutil.rmtree(home / "models")
    if loss == "damaged model":
        before.file.path.write_bytes(b"not what it was")
    after = champions.champion("digits")
    assert after.identity == before.identity
    assert files.kept(after.file.sha256, ".onnx") is not None


def test_pointer_follows_an_alias_moved_elsewhere(decide: Decide, file_version: Callable[..., ModelVersion]) -> None:
    """MLflow's alias decides: moved in its web page, the next prediction uses the new champion."""
    decide("good")
    file_version("poor")
    connect().set_registered_model_alias("digits", "champion", "2")
    assert champions.champion("digits").version == 2


def test_pointer_serves_while_mlflow_is_gone(decide: Decide, home: Path) -> None:
    """Without MLflow's database the pointer and the kept file are enough."""
    decide("good")
    (home / "mlflow.db").rename(home / "elsewhere.db")
    shutil.rmtree(home / "mlartifacts")
    assert champions.champion("digits").version == 1


def test_nothing_left(decide: Decide, home: Path) -> None:
    """When the files are gone on both sides, the error names what is missing."""
    decide("good")
    shutil.rmtree(home / "models")
    shutil.rmtree(home / "mlartifacts")
    with pytest.raises(CorruptArtifactError, match="version 1 of 'digits' lacks"):
        champions.champion("digits")


def test_no_champion_yet(home: Path, decide: Decide) -> None:
    """An unknown model and a model without champion are told apart."""
    with pytest.raises(UnknownNameError, match="unknown model 'digits'"):
        champions.champion("digits")
    decide("shuffled")
    with pytest.raises(UsageError, match="has no champion yet"):
        champions.champion("digits")
    assert champions.find_champion("digits") is None
