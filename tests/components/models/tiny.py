"""Datasets of a few rows, made on the fly: stripes to tell apart, and a table with missing values and unseen categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.artifacts import Column, DatasetVersion, InputField, StoredFile

ROWS = {"train": 240, "validation": 80, "test": 80}


def stripes(folder: Path, *, side: int = 8, channels: int = 1, rows: dict[str, int] = ROWS) -> DatasetVersion:
    """Images of one bright row or column (classes: across, down) in noise; uint8."""
    arrays: dict[str, np.ndarray] = {}
    for number, (split, count) in enumerate(rows.items()):
        random = np.random.default_rng(number)
        target = random.integers(0, 2, count)
        images = random.integers(0, 120, (count, channels, side, side))
        for image, label, place in zip(images, target, random.integers(1, side - 1, count)):
            image[:, place, :] += 100 * (label == 0)
            image[:, :, place] += 100 * (label == 1)
        arrays |= {f"{split}/image": images.astype(np.uint8), f"{split}/target": target.astype(np.int64)}
    mean, std = arrays["train/image"].mean((0, 2, 3)), arrays["train/image"].std((0, 2, 3))
    field = InputField(
        name="image", dtype="uint8", shape=(channels, side, side), mean=tuple(map(float, mean)), std=tuple(map(float, std))
    )  # fmt: skip
    return _version(folder, "stripes", "image", (field,), ("across", "down"), arrays)


def table(folder: Path, *, task: str = "classification", rows: dict[str, int] = ROWS) -> DatasetVersion:
    """Three numbers (one with a tenth missing) and two categories; the target follows from two numbers and one category."""
    arrays: dict[str, np.ndarray] = {}
    for number, (split, count) in enumerate(rows.items()):
        random = np.random.default_rng(number)
        numbers, codes = random.normal(size=(count, 3)) * (1, 10, 100), random.integers(0, (4, 3), (count, 2))
        value = numbers[:, 0] - np.abs(numbers[:, 1]) / 10 + (codes[:, 0] == 2) * 2.0
        numbers[random.random(count) < 0.1, 2] = np.nan
        target = (value > 0).astype(np.int64) if task == "classification" else (50 + 7 * value).astype(np.float32)
        arrays |= {f"{split}/numbers": numbers.astype(np.float32), f"{split}/categories": codes, f"{split}/target": target}
    train = arrays["train/numbers"]
    columns = tuple(_number(f"n{k}", train[:, k]) for k in range(3))
    kinds = tuple(Column(name=f"c{k}", kind="category", vocabulary=tuple("abcd"[: 3 - k])) for k in range(2))
    fields = (
        InputField(name="numbers", dtype="float32", shape=(3,), columns=columns),
        InputField(name="categories", dtype="int64", shape=(2,), columns=kinds),
    )
    classes = ("no", "yes") if task == "classification" else ()
    return _version(folder, "table", "table", fields, classes, arrays)


def _number(name: str, values: np.ndarray) -> Column:
    known = values[~np.isnan(values)]
    knots = np.quantile(known, np.linspace(0, 1, 9))
    return Column(name=name, kind="number", mean=float(known.mean()), std=float(known.std()), quantiles=tuple(map(float, knots)))


def _version(
    folder: Path, name: str, modality: str, inputs: tuple[InputField, ...], classes: tuple[str, ...], arrays: dict[str, np.ndarray]
) -> DatasetVersion:
    files = {}
    for key, array in arrays.items():
        path = folder / f"{name}-{key.replace('/', '-')}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
        files[key] = StoredFile.of(path)
    target = arrays["train/target"]
    return DatasetVersion(
        name=name, digest=name, modality=modality, task="classification" if classes else "regression", inputs=inputs, target="target",
        classes=classes, splits={split: len(arrays[f"{split}/target"]) for split in ("train", "validation", "test")}, files=files,
        source={}, target_mean=0.0 if classes else float(target.mean()), target_std=1.0 if classes else float(target.std()),
    )  # fmt: skip
