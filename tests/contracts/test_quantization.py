"""What every quantisation method must do, asked of each yaml in conf/quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.artifacts import DatasetVersion, ExportedModel
from components.build import allow, build
from components.compression.validation import Validation
from components.errors import DataError
from components.export.export import export
from components.export.graph import describe
from components.export.parity import parity
from components.export.runtime import Session, feeds
from components.workspace import Workspace
from tests.components.export.models import digits, fitted

MEMBERS = sorted((Path(__file__).parents[2] / "conf" / "quantization").glob("*.yaml"))
EXPORTER = {"exporter": {"_target_": "components.export.exporter.onnx.OnnxExporter"}}
allow("tests")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetVersion, ExportedModel]:
    folder = tmp_path_factory.mktemp("exported")
    dataset = digits(folder)
    model = fitted(dataset, folder, width=48, steps=120)
    return dataset, export(dataset, (model,), EXPORTER, Workspace(out=folder / "export"))[0]


def conforms(method: Any, dataset: DatasetVersion, model: ExportedModel, folder: Path) -> None:
    """Raises where a method breaks the family's promise; a method without precisions promises nothing."""
    assert isinstance(method.precisions, tuple)
    source = model.file.path
    before = source.read_bytes()
    for precision in method.precisions:
        validation, out = Validation(dataset, "accuracy"), folder / f"{precision}.onnx"
        method.quantize(source, out, precision, validation)
        assert out.stat().st_size < 0.6 * len(before)
        assert validation.loss(source, out) <= 0.02
        assert Session(out).spec == Session(source).spec
        assert (describe(out)["inputs"], describe(out)["outputs"]) == (model.inputs, model.outputs)
        found = parity(Session(out), lambda arrays: Session(source).run(feeds(dataset, arrays)), dataset)
        assert max(found.values()) < 0.25
    assert source.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{p}.onnx" for p in method.precisions)


def test_the_family_has_members() -> None:
    assert len(MEMBERS) >= 3


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.stem)
def test_every_method_conforms(member: Path, exported: tuple[DatasetVersion, ExportedModel], tmp_path: Path) -> None:
    conforms(build(yaml.safe_load(member.read_text())), *exported, tmp_path)


@pytest.mark.parametrize(
    ("name", "error"), [("CopiesTheGraph", AssertionError), ("LosesTheScales", AssertionError), ("DropsTheSpec", DataError)]
)
def test_a_broken_method_is_found_out(
    name: str, error: type[Exception], exported: tuple[DatasetVersion, ExportedModel], tmp_path: Path
) -> None:
    with pytest.raises(error):
        conforms(build({"_target_": f"tests.contracts.broken.quantization.{name}"}), *exported, tmp_path)
