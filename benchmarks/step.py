"""A step of our training against a bare PyTorch loop and stock Lightning: same network, rows, optimizer and logged loss, one thread.

The bare loop cuts batches out of tensors, steps AdamW and keeps each loss as a number, nothing more. `ours` is
`components.training.fit` with all it does by default (schedule, averaged weights, clipped gradients, a check of every
loss, checkpoints, a validation of few rows); `ours, bare` is the same without averaging and clipping. Stock Lightning has a
`DataLoader` and `self.log`. They take turns in a shuffled order; the time of a step is the best of a turn's epochs but its first, by
the clock of the thread that trains, and ratios are taken within a round, so that a machine which is busy or slow now and then cancels out.

.venv/bin/python benchmarks/step.py [--rounds 9]            about 5 minutes of one core
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning
import numpy as np
import torch
from measure import ROOT, choice, machine
from torch import nn
from torch.nn import functional

from components.artifacts import Candidate, DatasetVersion, StoredFile
from components.build import build
from components.models.network import build_network, num_parameters
from components.training.batches import load_rows
from components.training.fit import fit
from components.workspace import Workspace

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2
SECONDS = 1.5  # of a turn, about
VALIDATION_ROWS = 32  # so few that the steps are measured and not what it costs to judge them
Turn = Callable[[nn.Module, int], list[float]]


@dataclass(frozen=True)
class Case:
    """What is trained; `bar` is the largest allowed ratio to the bare loop."""

    name: str
    dataset: DatasetVersion
    candidate: Candidate
    space: dict[str, Any]
    bar: float | None

    @property
    def batch(self) -> int:
        return int(self.candidate.hyperparameters["batch_size"])

    def steps(self) -> int:
        return int(self.dataset.splits["train"] // self.batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"{machine()}\nn={options.rounds} rounds; median ratio of a step's time to the bare loop's, with its quartiles\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="athanor-step-") as folder:
        for case in _cases(Path(folder), options.data):
            _measure(case, options.rounds)


def _measure(case: Case, rounds: int) -> None:
    network = build_network(case.space, case.candidate, case.dataset, seed=0)
    turns: dict[str, Turn] = {
        "bare loop": lambda net, epochs: _bare(case, net, epochs),
        "ours": lambda net, epochs: _ours(case, net, epochs, {}),
        "ours, bare": lambda net, epochs: _ours(case, net, epochs, {"ema": 0.0, "clip": 0.0}),
        "stock Lightning": lambda net, epochs: _stock(case, net, epochs),
    }
    epochs = _epochs(case, network)
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        order = list(turns)
        random.Random(number).shuffle(order)
        for name in order:
            found[name].append(min(turns[name](copy.deepcopy(network), epochs)[1:]) / case.steps())
    print(f"{case.name}: {num_parameters(network)} parameters, batch {case.batch}, {case.steps()} steps an epoch"
          + (f"; bar {case.bar}" if case.bar else ""))  # fmt: skip
    for name, seconds in found.items():
        ratios = sorted(one / bare for one, bare in zip(seconds, found["bare loop"]))
        low, *_, high = statistics.quantiles(ratios, n=4) if len(ratios) > 2 else ratios
        print(f"  {name:<16} {1e3 * min(seconds):7.3f} ms   {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})", flush=True)
    print()


def _epochs(case: Case, network: nn.Module) -> int:
    """As many as take some seconds, at least three."""
    return max(3, round(SECONDS / (min(_bare(case, copy.deepcopy(network), 2)) or 1e-9)))


# ---- the loops: each gives the seconds of its epochs ----


def _bare(case: Case, network: nn.Module, epochs: int) -> list[float]:
    rows = load_rows(case.dataset, "train")
    fields, targets = [rows.fields[field.name] for field in case.dataset.inputs], rows.targets
    optimizer = _optimizer(network)
    seconds, losses = [], []
    network.train()
    for _ in range(epochs):
        started = time.thread_time()
        order = torch.randperm(len(targets))
        for step in range(case.steps()):
            index = order[step * case.batch : (step + 1) * case.batch]
            loss = functional.cross_entropy(network(*(values[index].float() for values in fields)), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds.append(time.thread_time() - started)
    return seconds


def _ours(case: Case, network: nn.Module, epochs: int, training: dict[str, Any]) -> list[float]:
    at: list[float] = []

    def hear(event: str, **_: Any) -> None:
        if event == "epoch":
            at.append(time.thread_time())

    with tempfile.TemporaryDirectory() as scratch:
        fit(
            network, case.dataset, case.candidate.hyperparameters, policy=build(choice("augmentation/none")),
            optimizers={"adamw": choice("optimizer/adamw")}, seed=0, epochs=epochs + 1, objective="accuracy", training=training,
            scratch=Path(scratch), emit=hear,
        )  # fmt: skip
    return [after - before for before, after in itertools.pairwise(at)]


def _stock(case: Case, network: nn.Module, epochs: int) -> list[float]:
    rows = load_rows(case.dataset, "train")
    data = torch.utils.data.TensorDataset(*(rows.fields[field.name] for field in case.dataset.inputs), rows.targets)
    loader = torch.utils.data.DataLoader(data, batch_size=case.batch, shuffle=True, drop_last=True)
    module = Stock(network)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, logger=lightning.pytorch.loggers.CSVLogger(folder),
        )  # fmt: skip
        trainer.fit(module, loader)
    return [after - before for before, after in itertools.pairwise(module.at)]


class Stock(lightning.LightningModule):
    """What Lightning's own guide shows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.at = network, [time.thread_time()]

    def training_step(self, batch: Any, batch_index: int) -> Any:
        *fields, targets = batch
        loss = functional.cross_entropy(self.network(*(values.float() for values in fields)), targets)
        self.log("train_loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        self.at.append(time.thread_time())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return _optimizer(self.network)


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """Ours is AdamW as `conf/optimizer/adamw.yaml` has it, in one kernel: so that of the others."""
    node = {name: value for name, value in choice("optimizer/adamw").items() if name not in ("_target_", "search")}
    return torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, **node)


# ---- what is trained ----


def _cases(folder: Path, data: Path) -> list[Case]:
    from components.data.version import version

    split = {"split": {"validation": 0.15, "test": 0.2}}
    digits = version({"dataset": choice("dataset/digits"), **split}, Workspace(out=folder / "digits"))
    table = {**choice("dataset/csv"), "path": str(_digits_as_table(folder / "digits.csv")), "target": "digit"}
    tabular = version({"dataset": table, **split}, Workspace(out=folder / "table"))
    convnet, mlp = choice("space/convnet"), choice("space/mlp")
    flat = {"width": 34, "depth": 1, "members": 1, "activation": "relu", "numbers": "none"}
    digits, tabular = (_first(found, {"validation": VALIDATION_ROWS}) for found in (digits, tabular))
    found = [
        Case("convnet, 8x8", digits, _candidate("convnet", _plain(24, [1, 2]), 64), convnet, 1.15),
        Case("mlp, 64 numbers", tabular, _candidate("mlp", flat, 64), mlp, None),
    ]
    if (data / "fashion-mnist").is_dir():
        source = {**choice("dataset/idx"), "path": str(data / "fashion-mnist")}
        images = version({"dataset": source, **split}, Workspace(out=folder / "images"))
        small = _first(images, {"train": 10_240, "validation": VALIDATION_ROWS})
        found.insert(1, Case("convnet, 28x28", small, _candidate("convnet", _plain(24, [1, 2, 1]), 256), convnet, 1.05))
    return found


def _plain(width: int, depths: list[int]) -> dict[str, Any]:
    return {
        "block": "plain", "width": width, "growth": 1.5, "depths": depths, "downsample": "max", "pooling": "average",
        "activation": "relu", "norm": "batch", "largest_side": 16, "kernel": 3,
    }  # fmt: skip


def _candidate(space: str, architecture: dict[str, Any], batch: int) -> Candidate:
    how = {"optimizer": "adamw", "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "batch_size": batch}
    return Candidate(space=space, architecture=architecture, hyperparameters=how)


def _digits_as_table(path: Path) -> Path:
    from sklearn.datasets import load_digits

    digits = load_digits()
    names = ",".join([*(f"p{place}" for place in range(digits.data.shape[1])), "digit"])
    rows = [",".join([*(f"{value:g}" for value in row), f"d{target}"]) for row, target in zip(digits.data, digits.target)]
    path.write_text("\n".join([names, *rows]) + "\n")
    return path


def _first(dataset: DatasetVersion, rows: dict[str, int]) -> DatasetVersion:
    files = dict(dataset.files)
    for name, file in dataset.files.items():
        if (split := name.split("/")[0]) in rows:
            path = file.path.with_name(f"first-{file.path.name}")
            np.save(path, np.load(file.path)[: rows[split]])
            files[name] = StoredFile.of(path)
    return dataset.replace(files=files, splits={**dataset.splits, **rows})


if __name__ == "__main__":
    main()
