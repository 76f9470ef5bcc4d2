"""Where `athanor predict` writes: by the input's name it replaces nothing, where the user says it does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.evaluation.predict import Predictions
from flows.cli import main
from tests.flows.test_bad_input import refused

MODELS = {"pets": Predictions(["a.png"], ("cat", "dog"), np.array([[0.75, 0.25]])), "moods": Predictions(["a.png"], (), np.array([0.5]))}
DEFAULT = "imgs-predictions.csv"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of images, and two champions whose file is their name."""
    (tmp_path / "imgs").mkdir()
    monkeypatch.chdir(tmp_path)
    champion = "components.registry.champions.champion"
    monkeypatch.setattr(champion, lambda model: SimpleNamespace(name=model, version=1, file=SimpleNamespace(path=model)))
    monkeypatch.setattr("components.evaluation.predict.predict", lambda model, path: MODELS[model])


def test_the_same_model_and_rows_end_in_the_same_file() -> None:
    """The same command again is no mistake."""
    for _ in range(2):
        assert main(["predict", "imgs", "model=pets"]) == 0
    assert Path(DEFAULT).read_text() == "row,prediction,probability:cat,probability:dog\na.png,cat,0.750000,0.250000\n"


@pytest.mark.parametrize("content", [b"row,prediction\na.png,0.5\n", b"my notes", b"", b"\xff\xfe"])
def test_another_models_predictions_and_a_users_own_file_are_left_as_they_are(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path(DEFAULT).write_bytes(content)
    line = refused(capsys, "predict", "imgs", "model=pets", code=2)
    there = f"{DEFAULT} is there already and holds something else"
    assert line == f"athanor: {there}; say where to write: out=FILE.csv (out={DEFAULT} replaces it)"
    assert Path(DEFAULT).read_bytes() == content
    assert sorted(path.name for path in Path().iterdir()) == ["imgs", DEFAULT]


def test_a_file_that_the_user_names_is_replaced() -> None:
    """Also the one that would have been chosen."""
    for model in MODELS:
        assert main(["predict", "imgs", f"model={model}", f"out={DEFAULT}"]) == 0
    assert Path(DEFAULT).read_text() == "row,prediction\na.png,0.5\n"
