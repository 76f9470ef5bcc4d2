"""Predictions need an .onnx file, ONNX Runtime and the data set's reader, and nothing of PyTorch."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.artifacts import DatasetVersion
from components.data.version import version
from components.errors import DataError
from components.evaluation.predict import Predictions, predict, write_csv
from components.export.export import export
from components.workspace import Workspace
from tests.components.evaluation.conftest import CONFIG
from tests.components.export.models import fitted

TABLE = Path("flowers.csv")


def _written(folder: Path) -> Path:
    """A csv of two numbers and two categories, some missing, that decide a colour."""
    rng = np.random.default_rng(0)
    rows = ["length,width,soil,site,colour"]
    for _ in range(600):
        length, width = rng.normal(5, 2), rng.normal(3, 1)
        soil, site = rng.choice(["clay", "sand", "peat"]), rng.choice(["north", "south"])
        colour = "red" if length + 2 * (soil == "clay") > 5.5 else "blue"
        rows.append(f"{'' if rng.random() < 0.05 else round(length, 3)},{width:.3f},{soil},{site},{colour}")
    path = folder / TABLE
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetVersion, Path, Path]:
    """The dataset version, its csv and the model file."""
    folder = tmp_path_factory.mktemp("flowers")
    path = _written(folder)
    config = {
        "dataset": {"_target_": "components.data.dataset.csv.Csv", "path": str(path), "target": "colour"},
        "split": {"validation": 0.15, "test": 0.2},
    }
    dataset = version(config, Workspace(out=folder / "version"))
    model = export(dataset, (fitted(dataset, folder, steps=200),), CONFIG, Workspace(out=folder / "export"))[0]
    return dataset, path, model.file.path


def test_new_rows_are_answered_in_order_with_probabilities(trained: tuple[DatasetVersion, Path, Path], tmp_path: Path) -> None:
    """Columns in another order, one unknown category, one missing number, no target."""
    _, _, model = trained
    new = tmp_path / "new.csv"
    new.write_text("soil,site,width,length\nclay,north,3.0,9.0\nsand,south,3.0,1.0\nmoss,north,,9.5\n")
    found = predict(model, new)
    assert found.answers() == ["red", "blue", "red"]
    assert found.outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)
    text = io.StringIO()
    write_csv(found, text)
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [row["prediction"] for row in rows] == found.answers()
    assert float(rows[0]["probability:red"]) == pytest.approx(found.outputs[0][found.classes.index("red")], abs=1e-6)
    assert json.loads(json.dumps(found.to_json()))[1]["probabilities"]["blue"] > 0.5


def test_the_training_file_itself_is_answered_well(trained: tuple[DatasetVersion, Path, Path]) -> None:
    """A target among the columns is ignored; the answers are those a model that learned would give."""
    _, path, model = trained
    truth = [row["colour"] for row in csv.DictReader(path.open())]
    answers = predict(model, path).answers()
    assert np.mean([a == t for a, t in zip(answers, truth, strict=True)]) > 0.9


def test_no_torch_is_imported(trained: tuple[DatasetVersion, Path, Path]) -> None:
    _, path, model = trained
    code = (
        "import sys; from pathlib import Path; from components.evaluation.predict import predict\n"
        "found = predict(Path(sys.argv[1]), Path(sys.argv[2])); assert len(found.rows) == 600\n"
        "heavy = {'torch', 'lightning', 'mlflow', 'prefect', 'onnx', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_does_not_fit_is_the_users_mistake(trained: tuple[DatasetVersion, Path, Path], tmp_path: Path) -> None:
    _, _, model = trained
    (tmp_path / "other.csv").write_text("length,width\n1,2\n")
    with pytest.raises(DataError, match="soil"):
        predict(model, tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"absent\.csv"):
        predict(model, tmp_path / "absent.csv")


def test_values_are_written_without_probabilities() -> None:
    text = io.StringIO()
    write_csv(Predictions(rows=["1", "2"], classes=(), outputs=np.array([1.5, 2.25], dtype=np.float32)), text)
    assert text.getvalue() == "row,prediction\n1,1.5\n2,2.25\n"
