"""Small real models to export, quantise and evaluate: digits (a convolutional net), a mixed table (two tasks)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.artifacts import Candidate, Column, DatasetVersion, InputField, StoredFile, TrainedModel
from components.build import allow

allow("tests")
COLOURS = ("blue", "green", "red")


class PlainConvnet(nn.Module):
    """uint8 images in, logits out; scaling and normalisation inside."""

    def __init__(self, field: InputField, num_outputs: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(field.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(field.std).view(1, -1, 1, 1))
        self.body = nn.Sequential(
            nn.Conv2d(field.shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(4 * width, num_outputs)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body((image.float() - self.mean) / self.std))


class PlainTable(nn.Module):
    """Numbers with NaN and codes of categories in, logits or a standardised value out."""

    def __init__(self, inputs: tuple[InputField, ...], num_outputs: int, width: int) -> None:
        super().__init__()
        numbers, categories = inputs
        self.register_buffer("mean", torch.tensor([c.mean for c in numbers.columns]))
        self.register_buffer("std", torch.tensor([c.std for c in numbers.columns]))
        self.embeddings = nn.ModuleList(nn.Embedding(len(c.vocabulary) + 1, 4) for c in categories.columns)
        self.body = nn.Sequential(
            nn.Linear(2 * len(numbers.columns) + 4 * len(categories.columns), width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.head = nn.Linear(width, num_outputs)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        is_missing = torch.isnan(numbers)
        filled = torch.where(is_missing, torch.zeros_like(numbers), (numbers - self.mean) / self.std)
        embedded = [embedding(categories[:, i]) for i, embedding in enumerate(self.embeddings)]
        return self.head(self.body(torch.cat([filled, is_missing.float(), *embedded], dim=1)))


class ConvnetSpace:
    """Builds `PlainConvnet`."""

    def build(self, architecture: dict[str, Any], inputs: tuple[InputField, ...], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        return PlainConvnet(inputs[0], num_outputs, architecture["width"])


class TableSpace:
    """Builds `PlainTable`."""

    def build(self, architecture: dict[str, Any], inputs: tuple[InputField, ...], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        return PlainTable(inputs, num_outputs, architecture["width"])


def digits(folder: Path) -> DatasetVersion:
    """scikit-learn's digits as uint8 images [1, 8, 8], 1000 / 200 / 300 rows."""
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))[:1500]
    images = (images[order] * 15.9).astype(np.uint8).reshape(-1, 1, 8, 8)
    field = InputField(name="image", dtype="uint8", shape=(1, 8, 8), mean=(float(images.mean()),), std=(float(images.std()),))
    return _version(folder, "digits", "image", {"image": images}, target[order].astype(np.int64), (field,), tuple("0123456789"))


def mixed_table(folder: Path, task: str) -> DatasetVersion:
    """700 rows of two numbers (some missing) and two categories (one empty string) that decide a class or a value."""
    rng = np.random.default_rng(1)
    numbers = rng.normal(5, 3, (700, 2)).astype(np.float32)
    codes = np.stack([rng.integers(1, 4, 700), rng.integers(1, 3, 700)], axis=1)
    value = 100 + 7 * numbers[:, 0] - 3 * numbers[:, 1] + 12 * (codes[:, 0] == 2) + rng.normal(0, 1, 700)
    numbers[rng.random((700, 2)) < 0.05] = np.nan
    fields = (
        InputField(name="numbers", dtype="float32", shape=(2,), columns=tuple(_number(name, numbers[:, i]) for i, name in enumerate("ab"))),
        InputField(name="categories", dtype="int64", shape=(2,), columns=(
            Column(name="colour", kind="category", vocabulary=COLOURS), Column(name="size", kind="category", vocabulary=("", "big")))),
    )  # fmt: skip
    target = (value > np.median(value)).astype(np.int64) if task == "classification" else value.astype(np.float32)
    classes = ("low", "high") if task == "classification" else ()
    return _version(folder, "mixed", "table", {"numbers": numbers, "categories": codes}, target, fields, classes)


def fitted(
    dataset: DatasetVersion, folder: Path, *, width: int = 16, steps: int = 150, role: str = "teacher", seed: int = 0
) -> TrainedModel:
    """A model trained for a few steps, as the pipeline records one."""
    from components.data.arrays import load_inputs, load_target

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    kind = ConvnetSpace if dataset.modality == "image" else TableSpace
    candidate = Candidate(space=kind.__name__, architecture={"width": width}, hyperparameters={})
    network = kind().build(candidate.architecture, dataset.inputs, dataset.num_outputs)
    inputs = [torch.from_numpy(np.array(load_inputs(dataset, "train")[field.name])) for field in dataset.inputs]
    _fit(network, inputs, torch.from_numpy(np.array(load_target(dataset, "train"))), dataset, steps)
    weights = folder / f"{role}-{width}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, weights)
    return TrainedModel(
        role=role, candidate=candidate, space={"_target_": f"{__name__}.{kind.__name__}"}, dataset=dataset.identity, seed=seed,
        weights=StoredFile.of(weights), metrics={},
    )  # fmt: skip


def _fit(network: nn.Module, inputs: list[Tensor], target: Tensor, dataset: DatasetVersion, steps: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(steps):
        rows = torch.arange(step * 64, step * 64 + 64) % len(target)
        outputs = network(*(field[rows] for field in inputs))
        if dataset.task == "classification":
            loss = nn.functional.cross_entropy(outputs, target[rows])
        else:
            loss = nn.functional.mse_loss(outputs[:, 0], (target[rows] - dataset.target_mean) / dataset.target_std)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


def _number(name: str, values: np.ndarray) -> Column:
    return Column(name=name, kind="number", mean=float(np.nanmean(values)), std=float(np.nanstd(values)), quantiles=(1.0, 2.0))


def _version(
    folder: Path, name: str, modality: str, arrays: dict[str, np.ndarray], target: np.ndarray, inputs: tuple[InputField, ...],
    classes: tuple[str, ...],
) -> DatasetVersion:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    cuts = {"train": (0, 0.66), "validation": (0.66, 0.8), "test": (0.8, 1.0)}
    files, splits = {}, {}
    for split, (low, high) in cuts.items():
        rows = slice(int(low * len(target)), int(high * len(target)))
        for field, array in {**arrays, "target": target}.items():
            path = folder / f"{split}-{field}.npy"
            np.save(path, array[rows])
            files[f"{split}/{field}"] = StoredFile.of(path)
        splits[split] = len(target[rows])
    is_value = not classes
    return DatasetVersion(
        name=name, digest="0" * 64, modality=modality, task="regression" if is_value else "classification", inputs=inputs, target="target",
        classes=classes, splits=splits, files=files, source={"_target_": "components.data.dataset.digits.Digits", "path": "/somewhere"},
        target_mean=float(target.mean()) if is_value else 0.0, target_std=float(target.std()) if is_value else 1.0,
    )  # fmt: skip
