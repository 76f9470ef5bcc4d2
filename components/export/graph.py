"""Surgery on ONNX graphs: what the exporter leaves out or leaves in.

`finish` turns a traced graph into the served one: category columns arrive as strings and are looked up inside, the spec
is in the metadata, and nothing tells where or by which line of code it was made, so equal weights give equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, helper

from components.artifacts import JSON, Column, InputField
from components.export.spec import Spec, is_text, to_metadata

ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 2  # LabelEncoder maps strings to int64 since version 2


def finish(model: ModelProto, spec: Spec) -> ModelProto:
    """The served graph (the same object, changed)."""
    for field in spec.inputs:
        if is_text(field):
            take_strings(model, field)
    strip(model)
    shorten(model)
    set_metadata(model, to_metadata(spec))
    return model


def take_strings(model: ModelProto, field: InputField) -> None:
    """Replaces an int64 input of codes by a string input [N, Kc] and looks each column up: `vocabulary[i]` is i + 1, others 0."""
    codes = f"{field.name}.codes"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == field.name:
                node.input[i] = codes
    given = next(value for value in model.graph.input if value.name == field.name)
    given.type.tensor_type.elem_type = TensorProto.STRING
    for node in reversed(_lookup(field, codes)):
        model.graph.node.insert(0, node)
    _add_constants(model, field)
    if all(entry.domain != ML_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(ML_DOMAIN, ML_OPSET))


def _lookup(field: InputField, codes: str) -> list[onnx.NodeProto]:
    nodes, looked_up = [], []
    for i, column in enumerate(field.columns):
        text, code = f"{field.name}.{i}.text", f"{field.name}.{i}.code"
        nodes.append(helper.make_node("Gather", [field.name, f"{field.name}.{i}.index"], [text], f"{field.name}.{i}.take", axis=1))
        nodes.append(_encoder(column, text, code))
        looked_up.append(code)
    return [*nodes, helper.make_node("Concat", looked_up, [codes], f"{field.name}.join", axis=1)]


def _encoder(column: Column, text: str, code: str) -> onnx.NodeProto:
    # A LabelEncoder without keys is refused by the runtime: an unused key keeps the graph valid for an empty vocabulary.
    keys = list(column.vocabulary) or ["\0"]
    values = list(range(1, len(column.vocabulary) + 1)) or [0]
    return helper.make_node(
        "LabelEncoder", [text], [code], f"{code}.lookup", domain=ML_DOMAIN, keys_strings=keys, values_int64s=values, default_int64=0
    )


def _add_constants(model: ModelProto, field: InputField) -> None:
    for i in range(len(field.columns)):
        model.graph.initializer.append(helper.make_tensor(f"{field.name}.{i}.index", TensorProto.INT64, [1], [i]))


def strip(model: ModelProto) -> None:
    """Removes what tells of the making: stack traces, module paths, doc strings, and types of inner values (they follow)."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    del graph.value_info[:]
    graph.name = "athanor"


def shorten(model: ModelProto) -> None:
    """Gives inner values and nodes the shortest names: in a small quantised graph names are half of the bytes."""
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {name: name for name in kept}
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        for names in (node.input, node.output):
            names[:] = [short.setdefault(name, f"v{len(short)}") for name in names]
    for tensor in graph.initializer:
        tensor.name = short.setdefault(tensor.name, f"v{len(short)}")


def set_metadata(model: ModelProto, properties: Mapping[str, str]) -> None:
    """Replaces the model's metadata properties, in the order of their names."""
    del model.metadata_props[:]
    for key in sorted(properties):
        model.metadata_props.add(key=key, value=properties[key])


def save(model: ModelProto, path: Path) -> None:
    """Writes one self-contained file with equal bytes for equal models. Raises `onnx.checker.ValidationError`."""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def describe(path: Path) -> JSON:
    """Opset, inputs, outputs and operator counts of a file."""
    model = onnx.load(path)
    return {
        "opset": next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "inputs": tuple(_value(value) for value in model.graph.input),
        "outputs": tuple(_value(value) for value in model.graph.output),
        "operators": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
    }


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dtype = "string" if tensor.elem_type == TensorProto.STRING else str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return {"name": value.name, "dtype": dtype, "shape": _shape(tensor.shape.dim)}


def _shape(dims: Sequence[Any]) -> list[int | None]:
    """Sizes by axis; None for the batch."""
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
