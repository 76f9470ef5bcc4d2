"""Exported graphs compute what the network computes, say what they are, and are equal bytes for equal weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file

from components.artifacts import DatasetVersion, ExportedModel, StoredFile, TrainedModel
from components.data.arrays import load_inputs
from components.errors import DataError, StageFailedError
from components.export.export import as_origin, export
from components.export.parity import difference, parity, require_parity
from components.export.runtime import Session, batches, feeds, latencies
from components.export.spec import spec_of
from components.models.network import load_network
from components.workspace import Workspace
from tests.components.export.models import digits, fitted, mixed_table

CONFIG = {"exporter": {"_target_": "components.export.exporter.onnx.OnnxExporter"}}
CASES = ("digits", "table-classification", "table-regression")
Case = tuple[DatasetVersion, TrainedModel, ExportedModel]
only_digits = pytest.mark.parametrize("case", CASES[:1], indirect=True)
only_tables = pytest.mark.parametrize("case", CASES[1:], indirect=True)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    name, _, task = request.param.partition("-")
    dataset = digits(folder) if name == "digits" else mixed_table(folder, task)
    model = fitted(dataset, folder, steps=40)
    return dataset, model, export(dataset, (model,), CONFIG, Workspace(out=folder / "out"))[0]


def test_the_graph_agrees_with_the_network_on_every_row(case: Case) -> None:
    """Not only at the batch sizes of the proof: the whole validation split at once."""
    dataset, model, exported = case
    arrays = load_inputs(dataset, "validation")
    ours = Session(exported.file.path).run(feeds(dataset, arrays))
    theirs = as_origin(load_network(model, dataset), dataset)(dict(arrays))
    assert difference(ours, theirs) < 1e-4 * max(1, abs(dataset.target_mean))
    assert set(exported.parity) == {"1", "2", "7"}


def test_outputs_are_in_the_users_terms(case: Case) -> None:
    """Probabilities that sum to one, or values in the target's own unit."""
    dataset, _, exported = case
    outputs = Session(exported.file.path).run(feeds(dataset, load_inputs(dataset, "test")))
    if dataset.task == "classification":
        assert outputs.shape == (dataset.splits["test"], len(dataset.classes))
        assert outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)
    else:
        assert outputs.shape == (dataset.splits["test"],)
        assert outputs.mean() == pytest.approx(dataset.target_mean, rel=0.1)


def test_a_row_does_not_depend_on_its_neighbours(case: Case) -> None:
    dataset, _, exported = case
    session, rows = Session(exported.file.path), feeds(dataset, load_inputs(dataset, "test"))
    alone = np.concatenate([session.run(batch) for batch in batches({n: a[:20] for n, a in rows.items()}, 1)])
    assert difference(session.run(rows)[:20], alone) < 1e-5 * max(1, abs(dataset.target_mean))


def test_inputs_are_named_and_typed_as_the_datasets_fields(case: Case) -> None:
    dataset, _, exported = case
    expected = [
        {"name": field.name, "dtype": "string" if field.name == "categories" else field.dtype, "shape": [None, *field.shape]}
        for field in dataset.inputs
    ]
    assert list(exported.inputs) == expected
    assert exported.outputs[0]["name"] == ("probabilities" if dataset.task == "classification" else "value")


@pytest.mark.parametrize("case", ["digits", "table-classification"], indirect=True)
def test_the_same_weights_give_the_same_bytes_and_tell_no_places(case: Case, tmp_path: Path) -> None:
    dataset, model, exported = case
    again = export(dataset, (model,), CONFIG, Workspace(out=tmp_path / "again"))[0]
    assert again.file.sha256 == exported.file.sha256
    content = exported.file.path.read_bytes()
    for place in (b".py", b"stack_trace", str(Path.cwd()).encode(), str(tmp_path.parent).encode()):
        assert place not in content


def test_the_graph_says_what_it_is_for(case: Case) -> None:
    """The input spec is in the file itself, as JSON any reader can take."""
    dataset, _, exported = case
    assert Session(exported.file.path).spec == spec_of(dataset)
    properties = onnxruntime.InferenceSession(str(exported.file.path)).get_modelmeta().custom_metadata_map
    assert json.loads(properties["athanor.dataset"])["classes"] == list(dataset.classes)
    assert properties["athanor.version"] == "1"


def test_the_file_is_self_contained_and_passes_onnxs_checker(case: Case) -> None:
    _, _, exported = case
    assert [file.name for file in exported.file.path.parent.iterdir()] == ["teacher-fp32.onnx"]
    onnx.checker.check_model(exported.file.path, full_check=True)


@only_tables
def test_categories_are_looked_up_inside_the_graph(case: Case) -> None:
    """A value never seen in training is answered as code 0 is; the empty string is a value where training had it."""
    dataset, model, exported = case
    session, origin = Session(exported.file.path), as_origin(load_network(model, dataset), dataset)
    numbers = np.array([[5.0, 5.0]] * 3, dtype=np.float32)
    texts = np.array([["mauve", "big"], ["green", ""], ["", "huge"]], dtype=object)
    codes = np.array([[0, 2], [2, 1], [0, 0]])
    outputs = session.run({"numbers": numbers, "categories": texts})
    assert difference(outputs, origin({"numbers": numbers, "categories": codes})) < 1e-3
    fed = feeds(dataset, {"numbers": numbers, "categories": codes})["categories"]
    assert fed[1].tolist() == ["green", ""]
    assert fed[2][0] not in ("blue", "green", "red")
    assert fed[2][1] not in ("", "big")


@only_digits
def test_one_network_twice_is_exported_once_and_two_of_a_role_get_two_names(case: Case, tmp_path: Path) -> None:
    dataset, model, _ = case
    other = model.replace(seed=1)
    made = export(dataset, (model, model, other), CONFIG, Workspace(out=tmp_path / "out"))
    assert [m.name for m in made] == ["teacher-fp32", "teacher2-fp32"]


@only_digits
def test_a_graph_that_differs_from_its_network_ends_the_stage(case: Case, tmp_path: Path) -> None:
    """Parity is a condition, not a figure."""
    dataset, model, _ = case
    config = {"exporter": {"_target_": "tests.contracts.broken.exporter.ChangesOneWeight"}}
    with pytest.raises(StageFailedError, match=r"differs from its network by .* at batch size"):
        export(dataset, (model,), config, Workspace(out=tmp_path / "out"))


def test_a_network_whose_answer_is_not_finite_has_no_parity(case: Case, tmp_path: Path) -> None:
    dataset, model, exported = case
    weights = load_file(model.weights.path)
    weights["head.bias"] = weights["head.bias"] * float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    broken = load_network(model.replace(weights=StoredFile.of(tmp_path / "nan.safetensors")), dataset)
    assert parity(Session(exported.file.path), as_origin(broken, dataset), dataset)["7"] == float("inf")


def test_a_file_that_is_no_model_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "torn.onnx").write_bytes(b"not a graph")
    with pytest.raises(DataError, match=r"torn\.onnx cannot be loaded by ONNX Runtime"):
        Session(tmp_path / "torn.onnx")
    with pytest.raises(DataError, match="does not exist"):
        Session(tmp_path / "absent.onnx")


def test_a_strangers_graph_carries_no_spec(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "relu", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), tmp_path / "relu.onnx")
    with pytest.raises(DataError, match="carries no input spec"):
        _ = Session(tmp_path / "relu.onnx").spec


def test_latencies_are_taken_in_turns_and_are_positive(case: Case) -> None:
    dataset, _, exported = case
    sessions: list[Any] = [Session(exported.file.path) for _ in range(2)]
    first, second = latencies(sessions, feeds(dataset, load_inputs(dataset, "validation")), seconds=0.02)
    assert len(first) == len(second) >= 50
    assert first.min() > 0


@pytest.mark.parametrize(("mean", "found", "passes"), [(0.0, 9e-5, True), (0.0, 2e-4, False), (2000.0, 5e-4, True), (2000.0, 2e-3, False)])
def test_parity_of_values_is_a_share_of_their_spread(mean: float, found: float, passes: bool) -> None:
    """A target far from zero loosens the bound by its rounding, no more. The spread here is 1."""
    dataset = DatasetVersion(
        name="years", digest="", modality="table", task="regression", inputs=(), target="year", classes=(), splits={}, files={}, source={},
        target_mean=mean,
    )  # fmt: skip
    if passes:
        require_parity("graph", {"1": 0.0, "7": found}, 1e-4, dataset)
    else:
        with pytest.raises(StageFailedError, match="at batch size 7"):
            require_parity("graph", {"1": 0.0, "7": found}, 1e-4, dataset)


@pytest.mark.slow
@only_digits
def test_another_process_writes_the_same_bytes(case: Case, tmp_path: Path) -> None:
    """Names in the graph must not hang on what was exported before or on the order of a set."""
    dataset, model, exported = case
    (tmp_path / "records.json").write_text(json.dumps([dataset.to_json(), model.to_json()]))
    code = (
        "import json, sys; from pathlib import Path; import tests.components.export.models\n"
        "from components.artifacts import DatasetVersion, TrainedModel; from components.export.export import export\n"
        "from components.workspace import Workspace\n"
        "folder = Path(sys.argv[1]); dataset, model = json.loads((folder / 'records.json').read_text())\n"
        "dataset, model = DatasetVersion.from_json(dataset), TrainedModel.from_json(model)\n"
        f"print(export(dataset, (model,), {CONFIG!r}, Workspace(out=folder / 'out'))[0].file.sha256)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == exported.file.sha256
    assert done.stderr == ""
