"""What fusion brings over the best single network, on Fashion-MNIST (10,000 training rows) and adult, at an equal number of epochs.

Each seed runs one search; every row of the table has its trials. `none` trains the winner for all of `--full` epochs, and so
do ensemble and stacking, which train nothing. What trains further (soups: fine-tunings of the teacher; feature fusion: a head over
three networks, whose epoch is about as dear as one of training) gets those epochs taken off its teacher. Validation chooses, as in the
pipeline: a method that brings nothing there hands on the best single model (`kept`), which may be a trial.

Gain is test metric less that of `none`, same seed: mean over seeds with Student's 95 % interval, and the 95 % interval of the
same mean over 1,000 resamples of the test rows (paired).

.venv/bin/python benchmarks/fusion.py [--seeds 5] [--datasets fashion,adult] [--trials 12] [--epochs 6] [--full 24] [--tuning 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from adult import COLUMNS
from inherit import _subset
from measure import ROOT, choice, interval, machine

TRAINS = ("uniform_soup", "greedy_soup", "feature_fusion")
METHODS = ("none", "ensemble", "stacking", *TRAINS)
RESAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """One method with one seed: validation and test metric, what came out, its CPU seconds and its test answers."""

    method: str
    validation: float
    test: float
    made: str
    seconds: float
    answers: Any


def main() -> None:
    arguments = _arguments()
    print(f"n={arguments.seeds} seeds, {arguments.trials} trials of {arguments.epochs} epochs, {arguments.full} epochs in all for the "
          f"teacher and what fusion trains ({arguments.tuning} of them)\n{machine()}", flush=True)  # fmt: skip
    for name in arguments.datasets.split(","):
        with tempfile.TemporaryDirectory(prefix="athanor-fusion-") as folder:
            os.environ["ATHANOR_HOME"] = folder
            _one_dataset(name, arguments, Path(folder))


def _one_dataset(name: str, arguments: argparse.Namespace, folder: Path) -> None:
    dataset, config = _fashion(arguments, folder) if name == "fashion" else _adult(arguments, folder)
    metric = config["metrics"]["objective"]
    sizes = ", ".join(f"{count} {split}" for split, count in dataset.splits.items())
    print(f"\n{name}: {sizes} rows", flush=True)
    seeds = [_one_seed(dataset, config, arguments, seed, folder / f"{seed}") for seed in range(arguments.seeds)]
    head = f"gain on {metric}, over seeds / over rows"
    print(f"\n{'fusion':<16} {'validation':>10} {'test':>8}   {head:<66} CPU seconds of training and fusion; what came out")
    for place, method in enumerate(METHODS):
        rows = [found[place] for found in seeds]
        means = f"{statistics.mean(row.validation for row in rows):>10.4f} {statistics.mean(row.test for row in rows):>8.4f}"
        made = ", ".join(dict.fromkeys(row.made for row in rows))
        told = "" if method == "none" else _gain(dataset, metric, [(row, found[0]) for row, found in zip(rows, seeds)])
        print(f"{method:<16} {means}   {told:<66} {statistics.mean(row.seconds for row in rows):.1f}; {made}", flush=True)


def _gain(dataset: Any, metric: str, pairs: list[tuple[Row, Row]]) -> str:
    """Mean gain over `none` with both intervals."""
    from components.data.arrays import load_target
    from components.evaluation.bootstrap import distributions

    gains = [row.test - none.test for row, none in pairs]
    mean, n = statistics.mean(gains), len(gains)
    seeds = interval(gains)
    targets = np.asarray(load_target(dataset, "test"))
    drawn = [
        distributions((metric,), row.answers, targets, resamples=RESAMPLES)[metric]
        - distributions((metric,), none.answers, targets, resamples=RESAMPLES)[metric]
        for row, none in pairs
    ]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    over_seeds = f"[{seeds[0]:+.4f}, {seeds[1]:+.4f}]" if n > 1 else "[one seed]"
    return f"{mean:+.4f} {over_seeds} / [{low:+.4f}, {high:+.4f}]"


def _one_seed(dataset: Any, config: dict[str, Any], arguments: argparse.Namespace, seed: int, folder: Path) -> list[Row]:
    from components.search.search import search
    from components.training.train import train
    from components.workspace import Workspace

    started = time.monotonic()
    policy = _policy(dataset)
    result = search(dataset, policy, config, Workspace(out=folder / "search", seed=seed))
    teachers = {}
    for name, epochs in (("whole", arguments.full), ("short", arguments.full - arguments.tuning)):
        part = {**config, "training": {**config["training"], "epochs": epochs}}
        began = time.process_time()
        teachers[name] = train(dataset, policy, result.best, part, Workspace(out=folder / name, seed=seed)), time.process_time() - began
    rows = []
    for method in METHODS:
        teacher, seconds = teachers["short" if method in TRAINS else "whole"]
        rows.append(_fused(dataset, policy, result, teacher, seconds, config, method, arguments, Workspace(out=folder / method, seed=seed)))
    told = ", ".join(f"{row.method} {row.validation:.4f}/{row.test:.4f}" for row in rows)
    print(f"seed {seed}: {told}; {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return rows


def _fused(
    dataset: Any, policy: Any, result: Any, teacher: Any, seconds: float, config: dict[str, Any], method: str,
    arguments: argparse.Namespace, work: Any,
) -> Row:  # fmt: skip
    from components import metrics
    from components.data.arrays import load_target
    from components.fusion.fuse import fuse
    from components.models.network import load_network
    from components.training.batches import load_rows
    from components.training.learner import predict

    node = choice(f"fusion/{method}")
    if method == "feature_fusion":
        node["epochs"] = arguments.tuning
    elif method in TRAINS:
        node["epochs"] = arguments.tuning // node["finetunes"]
    began = time.process_time()
    model = fuse(dataset, policy, result, teacher, {**config, "fusion": node}, work)
    seconds += time.process_time() - began
    answers = predict(load_network(model, dataset), dataset, load_rows(dataset, "test"))
    metric = config["metrics"]["objective"]
    test = metrics.compute(metric, answers, np.asarray(load_target(dataset, "test")))
    made = f"{model.role} of {len(model.members)}" if len(model.members) > 1 else f"kept {model.role.rstrip('0123456789')}"
    return Row(method, model.metrics[metric], test, made if method != "none" else "teacher", seconds, answers)


def _fashion(arguments: argparse.Namespace, folder: Path) -> tuple[Any, dict[str, Any]]:
    space = choice("space/convnet") | {"widths": [int(width) for width in arguments.widths.split(",")]}
    return _subset(arguments.data / "fashion-mnist", arguments.rows, folder / "data"), _config(arguments, space, "accuracy")


def _adult(arguments: argparse.Namespace, folder: Path) -> tuple[Any, dict[str, Any]]:
    from components.data.version import version
    from components.workspace import Workspace

    place = arguments.data / "adult"
    reader = choice("dataset/csv") | {
        "path": str(place / "adult-train.csv.gz"), "test_path": str(place / "adult-test.csv.gz"), "header": False,
        "columns": COLUMNS.split(","), "target": "income", "na_values": ["?"], "comment": "|",
    }  # fmt: skip
    dataset = version({"dataset": reader, "split": {"validation": 0.15, "test": 0.2}}, Workspace(out=folder / "data"))
    return dataset, _config(arguments, choice("space/mlp"), "auc")


def _config(arguments: argparse.Namespace, space: dict[str, Any], metric: str) -> dict[str, Any]:
    choices = {"strategy": "random", "scheduler": "none", "runner": "process", "evaluator": "train"}
    return {name: choice(f"{name}/{member}") for name, member in choices.items()} | {
        "space": space, "optimizer": {"adamw": choice("optimizer/adamw")}, "metrics": {"objective": metric},
        "training": {"memory_format": "channels_last", "precision": "fp32", "threads": 1},
        "search": {"trials": arguments.trials, "workers": 1, "epochs": arguments.epochs, "rows": None},
    }  # fmt: skip


def _policy(dataset: Any) -> Any:
    from components.artifacts import AugmentationPolicy

    return AugmentationPolicy(name="none", modality=dataset.modality, config=choice("augmentation/none"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    base = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=base, help="the folder that holds fashion-mnist and adult")
    for name, default in (("seeds", 5), ("trials", 12), ("epochs", 6), ("full", 24), ("tuning", 9), ("rows", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--datasets", default="fashion,adult")
    parser.add_argument("--widths", default="8,12,16", help="channels of the first stage to choose from (Fashion-MNIST)")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        raise SystemExit(f"no folder {arguments.data}; name it by --data or set ATHANOR_DATA")
    if not 3 <= arguments.tuning < arguments.full:
        raise SystemExit(f"--tuning is a part of the --full epochs, at least 3, got {arguments.tuning} of {arguments.full}")
    return arguments


if __name__ == "__main__":
    main()
