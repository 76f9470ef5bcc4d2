"""Dataset versions for tests: a reader's own version, or arrays of one's own written down as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from components.artifacts import Column, DatasetVersion, InputField, StoredFile, digest_of
from components.data.version import version
from components.workspace import Workspace

CONF = Path(__file__).resolve().parent.parent / "conf"
SPLIT = {"validation": 0.15, "test": 0.2}


def dataset_config(choice: str, /, **options: Any) -> dict[str, Any]:
    """A `dataset` section as composed: conf/dataset/<choice>.yaml with some options set."""
    node = yaml.safe_load((CONF / "dataset" / f"{choice}.yaml").read_text())
    node.pop("defaults", None)
    return {"dataset": {**node, **options}, "split": dict(SPLIT)}


def read_version(out: Path, choice: str, /, **options: Any) -> DatasetVersion:
    """The version that the verb makes of a `dataset` choice."""
    return version(dataset_config(choice, **options), Workspace(out=out))


def write_version(out: Path, arrays: dict[str, np.ndarray], inputs: tuple[InputField, ...], classes: tuple[str, ...]) -> DatasetVersion:
    """A version made of arrays by `<split>/<field>` and `<split>/target`; regression if there are no classes."""
    files = {}
    for name, array in arrays.items():
        path = out / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
        files[name] = StoredFile.of(path)
    splits = {split: len(arrays[f"{split}/target"]) for split in ("train", "validation", "test")}
    values = arrays["train/target"].astype(np.float64)
    return DatasetVersion(
        name="made", digest=digest_of({name: file.sha256 for name, file in files.items()}),
        modality="table" if inputs[0].columns else "image", task="classification" if classes else "regression",
        inputs=inputs, target="target", classes=classes, splits=splits, files=files, source={},
        target_mean=0.0 if classes else float(values.mean()), target_std=1.0 if classes else float(values.std()),
    )  # fmt: skip


def table_arrays(rows: int = 1000, *, regression: bool = False, seed: int = 0) -> tuple[dict[str, np.ndarray], tuple[InputField, ...]]:
    """A sound table: three numbers and a category with four values, of which the target is a noisy function."""
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=(rows, 3)).astype(np.float32)
    categories = generator.integers(1, 5, size=(rows, 1))
    score = numbers[:, 0] + numbers[:, 1] + categories[:, 0] - 2.5
    target = (score + 0.3 * generator.normal(size=rows)).astype(np.float32) if regression else (score > 0).astype(np.int64)
    knots = tuple(float(knot) for knot in np.linspace(-2, 2, 17))
    fields = (
        InputField(
            name="numbers", dtype="float32", shape=(3,), mean=(0.0,) * 3, std=(1.0,) * 3,
            columns=tuple(Column(name=f"x{i}", kind="number", quantiles=knots) for i in range(3)),
        ),
        InputField(name="categories", dtype="int64", shape=(1,), columns=(Column(name="plan", kind="category", vocabulary=tuple("abcd")),)),
    )  # fmt: skip
    return _split({"numbers": numbers, "categories": categories, "target": target}), fields


def image_arrays(rows: int = 600, *, seed: int = 0) -> tuple[dict[str, np.ndarray], tuple[InputField, ...]]:
    """Sound images: 8×8 noise, brighter in one of three bands that is the class."""
    generator = np.random.default_rng(seed)
    target = np.arange(rows) % 3
    images = generator.integers(0, 120, size=(rows, 1, 8, 8))
    for row, label in enumerate(target):
        images[row, 0, 3 * label : 3 * label + 2] += 120
    field = InputField(name="image", dtype="uint8", shape=(1, 8, 8), mean=(90.0,), std=(60.0,))
    return _split({"image": images.astype(np.uint8), "target": target.astype(np.int64)}), (field,)


def _split(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = len(columns["target"])
    cuts = {"train": slice(0, total * 7 // 10), "validation": slice(total * 7 // 10, total * 8 // 10), "test": slice(total * 8 // 10, None)}
    return {f"{split}/{name}": array[cut] for name, array in columns.items() for split, cut in cuts.items()}
