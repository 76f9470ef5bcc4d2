"""A step of our training against a bare PyTorch loop and stock Lightning: same network, rows, optimizer and logged loss, one thread.

The bare loop cuts batches out of tensors, steps AdamW and keeps each loss as a number, nothing more. `ours` is
`components.training.fit` with all it does by default (schedule, averaged weights, clipped gradients, a check of every
loss, checkpoints, a validation of few rows); `ours, bare` is the same without averaging and clipping. Stock Lightning has a
`DataLoader` and `self.log`. Each runs in a thread of its own and
they take turns, an epoch each in a shuffled order, one running at a time: time is that of the thread's own clock and
ratios are taken within a round, so that a machine which is busy or slow now and then cancels out.

.venv/bin/python benchmarks/step.py [--seconds 120]            about 6 minutes of one core
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import random
import statistics
import tempfile
import threading
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
VALIDATION_ROWS = 32  # so few that the steps are measured and not what it costs to judge them
LOOPS = ("bare loop", "ours", "ours, bare", "stock Lightning")


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
    parser.add_argument("--seconds", type=float, default=120.0, help="of a case, about")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"{machine()}\nmedian ratio of a step's time to the bare loop's in the same round, with its quartiles\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="athanor-step-") as folder:
        for case in _cases(Path(folder), options.data):
            _measure(case, options.seconds)


def _measure(case: Case, seconds: float) -> None:
    network = build_network(case.space, case.candidate, case.dataset, seed=0)
    rounds = max(8, round(seconds / len(LOOPS) / _seconds_of_an_epoch(case, network)))
    turns = Turns(LOOPS)
    loops: dict[str, Callable[[], None]] = {
        "bare loop": lambda: _bare(case, copy.deepcopy(network), rounds, turns.pause),
        "ours": lambda: _ours(case, copy.deepcopy(network), rounds, {}, turns.pause),
        "ours, bare": lambda: _ours(case, copy.deepcopy(network), rounds, {"ema": 0.0, "clip": 0.0}, turns.pause),
        "stock Lightning": lambda: _stock(case, copy.deepcopy(network), rounds, turns.pause),
    }
    found = turns.run(loops, rounds)
    print(f"{case.name}: {num_parameters(network)} parameters, batch {case.batch}, {case.steps()} steps an epoch, n={rounds - 1} rounds"
          + (f"; bar {case.bar}" if case.bar else ""))  # fmt: skip
    for name, epochs in found.items():
        ratios = [one / bare for one, bare in zip(epochs, found["bare loop"])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:<16} {1e3 * statistics.median(epochs) / case.steps():7.3f} ms   {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)
    print()


class Turns:
    """Loops in threads of which one runs at a time: each does an epoch, then waits for its next turn."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._go = {name: threading.Semaphore(0) for name in names}
        self._back, self._failures = threading.Semaphore(0), list[BaseException]()
        self._seconds: dict[str, list[float]] = {name: [] for name in names}
        self._since: dict[str, float] = {}

    def run(self, loops: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
        """The seconds of the epochs of each but the first, in which things are built."""
        threads = [threading.Thread(target=self._keep, args=pair, name=pair[0], daemon=True) for pair in loops.items()]
        for thread in threads:
            thread.start()
        for number in range(rounds):
            order = list(loops)
            random.Random(number).shuffle(order)
            for name in order:
                self._go[name].release()
                self._back.acquire()
                if self._failures:
                    raise self._failures[0]
        return {name: seconds[1:] for name, seconds in self._seconds.items()}

    def _keep(self, name: str, loop: Callable[[], None]) -> None:
        self._go[name].acquire()
        self._since[name] = time.thread_time()
        try:
            loop()
        except BaseException as error:
            self._failures.append(error)
            self._back.release()

    def pause(self) -> None:
        """Called by a loop at the end of an epoch."""
        name = threading.current_thread().name
        self._seconds[name].append(time.thread_time() - self._since[name])
        self._back.release()
        self._go[name].acquire()
        self._since[name] = time.thread_time()


def _seconds_of_an_epoch(case: Case, network: nn.Module) -> float:
    at = [time.thread_time()]
    _bare(case, copy.deepcopy(network), 2, lambda: at.append(time.thread_time()))
    return at[2] - at[1]


# ---- the loops: each calls `pause` when an epoch ends ----


def _bare(case: Case, network: nn.Module, epochs: int, pause: Callable[[], None]) -> None:
    rows = load_rows(case.dataset, "train")
    fields, targets = [rows.fields[field.name] for field in case.dataset.inputs], rows.targets
    optimizer = _optimizer(network)
    losses = []
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(targets))
        for step in range(case.steps()):
            index = order[step * case.batch : (step + 1) * case.batch]
            loss = functional.cross_entropy(network(*(values[index].float() for values in fields)), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        pause()


def _ours(case: Case, network: nn.Module, epochs: int, training: dict[str, Any], pause: Callable[[], None]) -> None:
    def hear(event: str, **_: Any) -> None:
        if event == "epoch":
            pause()

    with tempfile.TemporaryDirectory() as scratch:
        fit(
            network, case.dataset, case.candidate.hyperparameters, policy=build(choice("augmentation/none")),
            optimizers={"adamw": choice("optimizer/adamw")}, seed=0, epochs=epochs, objective="accuracy", training=training,
            scratch=Path(scratch), emit=hear,
        )  # fmt: skip


def _stock(case: Case, network: nn.Module, epochs: int, pause: Callable[[], None]) -> None:
    rows = load_rows(case.dataset, "train")
    data = torch.utils.data.TensorDataset(*(rows.fields[field.name] for field in case.dataset.inputs), rows.targets)
    loader = torch.utils.data.DataLoader(data, batch_size=case.batch, shuffle=True, drop_last=True)
    module = Stock(network, pause)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, logger=lightning.pytorch.loggers.CSVLogger(folder),
        )  # fmt: skip
        trainer.fit(module, loader)


class Stock(lightning.LightningModule):
    """What Lightning's own guide shows."""

    def __init__(self, network: nn.Module, pause: Callable[[], None]) -> None:
        super().__init__()
        self.network, self.pause = network, pause

    def training_step(self, batch: Any, batch_index: int) -> Any:
        *fields, targets = batch
        loss = functional.cross_entropy(self.network(*(values.float() for values in fields)), targets)
        self.log("train_loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        self.pause()

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
