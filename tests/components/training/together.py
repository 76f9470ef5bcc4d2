"""What the processes of a group run for `test_group`: many trainings after one start, told as one record."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from components.artifacts import JSON, Candidate, DatasetVersion
from components.errors import DataError
from components.training import ranks
from components.training.fit import Fit
from components.training.learner import Average, Learner
from components.workspace import Workspace
from tests.components.training.test_fit import Killed
from tests.components.training.test_memory import train

TRAINERS = {name: {"_target_": f"components.training.trainer.{name}.{name.capitalize()}", "accelerator": "cpu"} for name in ("ddp", "fsdp")}
STEPS = 60  # 4 batches of 60 rows, 15 times
SIXTY: dict[str, Any] = {"how": {"batch_size": 60, "dropout": 0.2}, "epochs": 15}
FP32 = {"threads": 1, "memory_format": "contiguous", "precision": "fp32"}


@contextmanager
def losses_of_steps() -> Iterator[list[float]]:
    """The loss of every step: the sum of what the ranks' shares add to it."""
    found: list[float] = []
    gradient = Learner._gradient

    def noted(self: Learner, inputs: Any, targets: Any) -> torch.Tensor:
        loss = gradient(self, inputs, targets)
        found.append(float(ranks.summed(loss.clone())))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_gradient", noted)
        yield found


def compare(image: DatasetVersion, table: DatasetVersion, config: JSON, work: Workspace) -> Candidate:
    """Trains in every way that is compared; rank 0's findings."""
    found: JSON = {"rank": ranks.own().rank, "size": ranks.own().size}
    for name, dataset in (("image", image), ("table", table)):
        for trainer in TRAINERS:
            exact = {} if trainer == "ddp" else {"numerics": FP32}
            found[f"{trainer} {name}"] = _told(f"{trainer}-{name}", work, dataset, **SIXTY, **exact, trainer=TRAINERS[trainer])
    found["parts"] = _told("parts", work, image, **SIXTY, halvings=1, trainer=TRAINERS["ddp"])
    found["weighted"] = _told("weighted", work, image, **SIXTY, training=WEIGHTED, trainer=TRAINERS["ddp"])
    for trainer in TRAINERS:
        found[f"{trainer} resumed"] = _killed_and_resumed(trainer, work, image)
    found["stopped"] = _told("stopped", work, image, epochs=40, training={"patience": 2}, trainer=TRAINERS["ddp"])
    found["limited"] = _told("limited", work, image, epochs=10_000, seconds=2.0, trainer=TRAINERS["ddp"])
    return Candidate(space="found", architecture=found, hyperparameters={})


BRIEF: dict[str, Any] = {"how": {"batch_size": 60, "dropout": 0.2}, "epochs": 2}


def briefly(image: DatasetVersion, config: JSON, work: Workspace) -> Candidate:
    """A few steps, what every rank's averaged weights add up to, and where this process and its like listen."""
    found: JSON = {"size": ranks.own().size, "listening": _listening()}
    with losses_of_steps() as losses:
        fitted = train(image, **BRIEF, trainer=TRAINERS["ddp"], emit=work.emit)
    found["ddp"] = _row("brief", fitted, losses, work)
    row = torch.zeros(ranks.own().size, dtype=torch.float64)
    row[ranks.own().rank] = sum(float(value.double().sum()) for value in fitted.network.state_dict().values())
    found["sums"] = ranks.summed(row).tolist()
    return Candidate(space="found", architecture=found, hyperparameters={})


def optimizers(image: DatasetVersion, config: JSON, work: Workspace) -> Candidate:
    """A few steps of every optimizer with every trainer; `config` holds what they are."""
    found: JSON = {}
    for trainer in TRAINERS:
        exact = {} if trainer == "ddp" else {"numerics": FP32}
        for name in config["optimizer"]:
            how = {"how": {**BRIEF["how"], "optimizer": name}, "optimizers": config["optimizer"]}
            with losses_of_steps() as losses:
                train(image, **{**BRIEF, **how}, **exact, trainer=TRAINERS[trainer])
            found[f"{trainer} {name}"] = losses
    return Candidate(space="found", architecture=found, hyperparameters={})


def once(image: DatasetVersion, config: JSON, work: Workspace) -> Candidate:
    """A few steps with the configured trainer."""
    with losses_of_steps() as losses:
        train(image, **BRIEF, numerics=config.get("numerics", FP32), trainer=config["trainer"])
    return Candidate(space="found", architecture={"losses": losses}, hyperparameters={})


def _listening() -> list[str]:
    """Addresses, in the kernel's hex, at which processes below this one's parent wait for connections."""
    parents = {int(p.name): _parent(p) for p in Path("/proc").iterdir() if p.name.isdigit()}
    family = {os.getppid()} | {pid for pid, parent in parents.items() if parent == os.getppid()}
    sockets = {os.readlink(link) for pid in family for link in _links(pid)}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _links(pid: int) -> list[Path]:
    return [link for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]


WEIGHTED = {"class_weights": {"1": 4.0}, "l1": 1e-3, "stochastic_depth": 0.3, "clip": 0.1}


def _told(name: str, work: Workspace, dataset: DatasetVersion, **options: Any) -> JSON:
    with losses_of_steps() as losses:
        fitted = train(dataset, **options)
    return _row(name, fitted, losses, work)


def _row(name: str, fitted: Fit, losses: list[float], work: Workspace) -> JSON:
    path = work.out / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in fitted.network.state_dict().items()}, path)
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in fitted.history]
    return {
        "losses": losses, "history": history, "metrics": fitted.metrics, "steps": fitted.steps, "weights": str(path),
        "truncated": fitted.truncated, "seconds": fitted.seconds,
    }  # fmt: skip


def _killed_and_resumed(trainer: str, work: Workspace, dataset: DatasetVersion) -> JSON:
    """Every rank stops within the second epoch and goes on from the checkpoint; beside it, one that nobody stopped."""
    assert work.scratch
    options: dict[str, Any] = {"epochs": 3, "numerics": FP32, "trainer": TRAINERS[trainer]}
    scratch, cut = work.scratch / trainer, 10
    step = Average.step

    def stop_at_the_cut(self: Average, steps: int) -> None:
        if steps == cut + 1:
            raise Killed
        step(self, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.training.fit.WITHIN_SECONDS", 0.0)
        patch.setattr(Average, "step", stop_at_the_cut)
        with pytest.raises(Killed):
            train(dataset, scratch=scratch, **options)
    return {
        "resumed": _told(f"{trainer}-resumed", work, dataset, scratch=scratch, **options),
        "whole": _told(f"{trainer}-whole", work, dataset, **options),
        "files": sorted(path.name for path in Path(scratch).iterdir()),
    }


def fail(dataset: DatasetVersion, config: JSON, work: Workspace) -> Candidate:
    """Ends badly in the way that the configuration asks for, on one rank, the first time or always."""
    assert work.scratch
    number, how = ranks.own().rank, config["how"]
    starts = work.scratch / f"starts-{number}"
    starts.write_text(starts.read_text() + "." if starts.exists() else ".")
    work.emit("started", starts=len(starts.read_text()))
    (work.scratch / f"pid-{number}").write_text(str(os.getpid()))
    if number == 1 and how == "data":
        raise DataError("row 7 is not a number")
    if number == 1 and how == "memory" and len(starts.read_text()) == 1:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    if number == 1 and how == "killed" and len(starts.read_text()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "endless":
        train(dataset, how={"batch_size": 2}, epochs=1_000_000, scratch=work.scratch / "training", trainer=TRAINERS["ddp"])
    ranks.shared(lambda: None)
    return Candidate(space=how, architecture={"size": ranks.own().size}, hyperparameters={})
