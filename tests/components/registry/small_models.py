"""Real small models for the registry's tests: linear classifiers of scikit-learn's digits as ONNX graphs, with their reports."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from components.artifacts import DatasetVersion, Deployable, EvaluationReport, ExportedModel, InputField, StoredFile, digest_of
from components.evaluation.bootstrap import estimates
from components.export.runtime import Session

CLASSES = tuple(str(digit) for digit in range(10))
Splits = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


@functools.cache
def splits(seed: int = 0) -> Splits:
    """Images uint8 [N, 1, 8, 8] in 0..255 and targets, by split."""
    digits = load_digits()
    images = (digits.images / 16 * 255).round().astype(np.uint8)[:, None]
    train, test, y_train, y_test = train_test_split(images, digits.target, test_size=0.2, stratify=digits.target, random_state=seed)
    return {"train": (train, y_train), "validation": (train[:200], y_train[:200]), "test": (test, y_test)}


def dataset(folder: Path, *, seed: int = 0) -> DatasetVersion:
    """The digits as a dataset version with its arrays below `folder`."""
    files = {}
    for split, (images, targets) in splits(seed).items():
        for name, array in (("image", images), ("target", targets)):
            path = folder / split / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
            files[f"{split}/{name}"] = StoredFile.of(path)
    sizes = {split: len(targets) for split, (_, targets) in splits(seed).items()}
    field = InputField(name="image", dtype="uint8", shape=(1, 8, 8), mean=(80.0,), std=(96.0,))
    return DatasetVersion(
        name="digits", digest=digest_of({n: f.sha256 for n, f in files.items()}), modality="image", task="classification", inputs=(field,),
        target="digit", classes=CLASSES, splits=sizes, files=files, source={"kind": "test"},
    )  # fmt: skip


@functools.cache
def weights(num_rows: int = 1437, shuffled: bool = False, iterations: int = 60) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coefficients [64, 10] and intercept [10] of a classifier fitted to the first `num_rows` training rows."""
    images, targets = splits()["train"]
    targets = np.random.default_rng(0).permutation(targets) if shuffled else targets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps are good enough here
        fitted = LogisticRegression(max_iter=iterations).fit(images[:num_rows].reshape(-1, 64) / 255.0, targets[:num_rows])
    return fitted.coef_.T.astype(np.float32), fitted.intercept_.astype(np.float32)


def graph(path: Path, coefficients: NDArray[Any], intercept: NDArray[Any], *, padding: int = 0, name: str = "linear") -> Path:
    """An ONNX file: image [N, 1, 8, 8] to probabilities [N, 10]. `padding` adds so many unused float32."""
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "full"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("Cast", ["coefficients"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["flat", "wide", "intercept"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {"full": np.float32(255), "coefficients": coefficients, "intercept": intercept, "unused": np.zeros(padding, np.float32)}
    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items() if value.size]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, 8, 8])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])]
    model = helper.make_model(helper.make_graph(nodes, name, inputs, outputs, initializers), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def report(
    folder: Path, data: DatasetVersion, coefficients: NDArray[Any], intercept: NDArray[Any], *, padding: int = 0, name: str = "linear"
) -> EvaluationReport:
    """What the evaluate stage would say of one linear model, measured for real."""
    path = graph(folder / f"{name}.onnx", coefficients, intercept, padding=padding, name=name)
    file, session = StoredFile.of(path), Session(path)
    images, targets = (np.load(data.files[f"test/{part}"].path) for part in ("image", "target"))
    outputs = session.run_in_batches({"image": images})
    np.save(folder / "predictions.npy", outputs)
    np.save(folder / "targets.npy", targets)
    model = ExportedModel(
        name="teacher-fp32", role="teacher", precision="fp32", model=digest_of(name), dataset=data.identity, file=file, opset=18,
        inputs=({"name": "image"},), outputs=({"name": "probabilities"},), operators={"Gemm": 1}, num_parameters=650,
    )  # fmt: skip
    on_test = estimates(("accuracy", "log_loss"), outputs, targets, resamples=200)
    held_out, held_targets = (np.load(data.files[f"validation/{part}"].path) for part in ("image", "target"))
    on_validation = estimates(("accuracy",), session.run_in_batches({"image": held_out}), held_targets, resamples=200)
    return EvaluationReport(
        dataset=data, objective="accuracy", direction="maximize",
        deployables=(Deployable(model=model, metrics=on_validation, size_kb=file.size / 1024, latency_ms=0.02, latency_p95_ms=0.03),),
        chosen="teacher-fp32", choice="the only one", test=on_test, baseline={"accuracy": 0.1, "log_loss": 2.303},
        predictions=StoredFile.of(folder / "predictions.npy"), targets=StoredFile.of(folder / "targets.npy"),
    )  # fmt: skip
