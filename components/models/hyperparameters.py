"""The hyper-parameters that every network space searches, and their ranges.

An optimizer brings its own ranges (`search:` in `conf/optimizer/<name>.yaml`), because a good learning rate for SGD is
fifty times one for AdamW. They are therefore drawn under the optimizer's name: `hp.adamw.learning_rate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.artifacts import JSON, DatasetVersion
from components.errors import UsageError
from components.models.interface import Suggest, choose

# Used for an optimizer that brings no ranges: those of Adam-like ones, which most are.
DEFAULT_RANGES: dict[str, tuple[float, float]] = {"learning_rate": (1e-3, 1e-2), "weight_decay": (1e-4, 1e-1)}


def sample_hyperparameters(
    trial: Suggest,
    dataset: DatasetVersion,
    optimizers: Mapping[str, Any] | Iterable[str],
    *,
    dropout: float = 0.3,
    label_smoothing: float = 0.1,
) -> JSON:
    """Optimizer, learning rate, batch size, weight decay, dropout, label smoothing (classification) and augmentation strength.

    `dropout` and `label_smoothing` are the upper ends of their ranges. Parameter names begin with `hp.`.
    """
    names = sorted(optimizers)
    if not names:
        raise UsageError("optimizer must list at least one choice, got an empty list")
    name = choose(trial, "hp.optimizer", names)
    node = optimizers[name] if isinstance(optimizers, Mapping) else {}
    smoothing = trial.suggest_float("hp.label_smoothing", 0.0, label_smoothing) if dataset.task == "classification" else 0.0
    return {
        "optimizer": name,
        "learning_rate": _within(trial, name, "learning_rate", node),
        "weight_decay": _within(trial, name, "weight_decay", node),
        "batch_size": choose(trial, "hp.batch_size", batch_sizes(dataset.splits["train"])),
        "dropout": trial.suggest_float("hp.dropout", 0.0, dropout),
        "label_smoothing": smoothing,
        "augmentation_strength": trial.suggest_float("hp.augmentation_strength", 0.0, 1.0),
    }


def _within(trial: Suggest, optimizer: str, name: str, node: Mapping[str, Any]) -> float:
    low, high = (node.get("search") or {}).get(name, DEFAULT_RANGES[name])
    if not 0 < low <= high:
        raise UsageError(f"optimizer.{optimizer}.search.{name} must be two positive numbers, low then high, got [{low}, {high}]")
    return trial.suggest_float(f"hp.{optimizer}.{name}", float(low), float(high), log=True)


def batch_sizes(rows: int) -> list[int]:
    """Batch sizes worth trying: at least some twenty steps an epoch, and larger ones where there are rows for them."""
    sizes = [32, 64] if rows < 5_000 else [64, 128, 256] if rows < 100_000 else [256, 512, 1024]
    return [size for size in sizes if size <= max(rows // 4, 1)] or [max(rows // 4, 2)]
