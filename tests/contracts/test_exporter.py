"""What every exporter must do, asked of each yaml in conf/exporter: parity, dynamic batch, spec, one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from components.artifacts import DatasetVersion, TrainedModel
from components.build import allow, build
from components.data.arrays import load_inputs
from components.errors import DataError, StageFailedError
from components.export.export import as_origin
from components.export.graph import describe
from components.export.parity import parity, require_parity
from components.export.runtime import Session, feeds
from components.export.spec import spec_of
from components.models.network import load_network
from tests.components.export.models import digits, fitted, mixed_table

MEMBERS = sorted((Path(__file__).parents[2] / "conf" / "exporter").glob("*.yaml"))
allow("tests")


@pytest.fixture(scope="module", params=["image", "table"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetVersion, TrainedModel]:
    folder = tmp_path_factory.mktemp("served")
    dataset = digits(folder) if request.param == "image" else mixed_table(folder, "regression")
    return dataset, fitted(dataset, folder, steps=20)


def conforms(exporter: Any, dataset: DatasetVersion, model: TrainedModel, folder: Path) -> None:
    """Raises where an exporter breaks the family's promise."""
    network, path = load_network(model, dataset), folder / "model.onnx"
    exporter.export(network, dataset, path)
    session = Session(path)
    require_parity("model", parity(session, as_origin(network, dataset), dataset), exporter.tolerance, dataset)
    assert session.spec == spec_of(dataset)
    said = describe(path)
    assert [value["shape"][0] for value in (*said["inputs"], *said["outputs"])] == [None] * (len(dataset.inputs) + 1)
    assert [file.name for file in folder.iterdir()] == ["model.onnx"]
    everything = session.run(feeds(dataset, load_inputs(dataset, "validation")))
    assert len(everything) == dataset.splits["validation"]
    assert np.isfinite(everything).all()


def test_the_family_has_members() -> None:
    assert MEMBERS


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.stem)
def test_every_exporter_conforms(member: Path, served: tuple[DatasetVersion, TrainedModel], tmp_path: Path) -> None:
    conforms(build(yaml.safe_load(member.read_text())), *served, tmp_path)


@pytest.mark.parametrize("served", ["table"], indirect=True)
@pytest.mark.parametrize(
    ("name", "error"), [("ChangesOneWeight", StageFailedError), ("ForgetsTheSpec", DataError), ("KeepsTheBatch", InvalidArgument)]
)
def test_a_broken_exporter_is_found_out(
    name: str, error: type[Exception], served: tuple[DatasetVersion, TrainedModel], tmp_path: Path
) -> None:
    with pytest.raises(error):
        conforms(build({"_target_": f"tests.contracts.broken.exporter.{name}"}), *served, tmp_path)
