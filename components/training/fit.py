"""Trains one network on one dataset with Lightning: what a trial, a full training and a distillation have in common.

    fitted = fit(network, dataset, hyperparameters, policy=..., optimizers=..., seed=0, epochs=20)
    fitted.network, fitted.metrics, fitted.history
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from components import processes
from components.artifacts import JSON, DatasetVersion
from components.build import build
from components.errors import UnknownNameError, UsageError
from components.home import home
from components.models.blocks import drop_residuals
from components.settings import whole
from components.training import ranks
from components.training.batches import BatchLoader, Rows, load_fold, load_rows
from components.training.calibrate import FORMATS, PLAIN
from components.training.checkpoint import SafeCheckpointIO, read_checkpoint, require_same
from components.training.devices import require_compiler
from components.training.interface import Trainer
from components.training.learner import Learner
from components.training.progress import Progress
from components.training.rows import StreamedRows
from components.training.searched import fitting, settled

# An epoch shorter than this shares its checkpoint with the next: a kill loses at most this much and one epoch.
CHECKPOINT_SECONDS = 1.0
WITHIN_SECONDS = 15.0  # between checkpoints within a longer epoch
CHECKPOINT_SHARE = 0.01  # of the time: the most that checkpoints may take, but for the last
GPU_SHARE = 0.25  # of a GPU's free memory: the most that a split's rows take of it
# What Lightning calls them; fp64 is never chosen, proofs ask for it.
PRECISION_OF: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp64": "64-true"}
DTYPE_OF = {"fp64": torch.float64}  # of the weights, where it is not float32
DEFAULTS: JSON = {
    "clip": 1.0, "ema": 0.99, "l1": 0.0, "stochastic_depth": 0.0, "patience": None, "data": "auto", "workers": "auto",
}  # fmt: skip
PLACES = ("data", "workers")  # where rows are read from, which changes nothing
FAMILY = "components.training"
CPU: JSON = {"_target_": f"{FAMILY}.trainer.cpu.Cpu"}
USUAL: dict[str, JSON] = {
    "schedule": {"cosine": {"_target_": f"{FAMILY}.schedule.cosine.Cosine"}},
    "loss": {
        "cross_entropy": {"_target_": f"{FAMILY}.loss.cross_entropy.CrossEntropy"},
        "mse": {"_target_": f"{FAMILY}.loss.mse.MSE"},
    },
}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained network (averaged weights of its best epoch, in eval mode), how it got there and its validation metrics.

    `epochs` is fractional where a time limit ended one early; `truncated` says that it did. `seconds` are those of all
    sessions.
    """

    network: nn.Module
    metrics: dict[str, float]
    history: tuple[JSON, ...]
    epochs: float
    steps: int
    truncated: bool
    seconds: float


def fit(
    network: nn.Module,
    dataset: DatasetVersion,
    hyperparameters: JSON,
    *,
    policy: Callable[..., Any],
    optimizers: Mapping[str, JSON],
    seed: int,
    epochs: int,
    objective: str,
    until: int | None = None,
    rows: int | None = None,
    fold: tuple[int, int] | None = None,
    seconds: float | None = None,
    numerics: JSON | None = None,
    training: JSON | None = None,
    schedules: Mapping[str, JSON] | None = None,
    losses: Mapping[str, JSON] | None = None,
    trainer: JSON | None = None,
    halvings: int = 0,
    teacher: nn.Module | None = None,
    distiller: Callable[..., Tensor] | None = None,
    joins: Mapping[str, float] | None = None,
    rates: Mapping[str, float] | None = None,
    scratch: Path | None = None,
    emit: Callable[..., Any] = lambda event, **fields: None,
) -> Fit:
    """Trains `network` in place of a copy and returns it with its metrics.

    The schedule completes within `seconds` if they are given, else over `epochs`; without `seconds` the result is a
    function of the arguments, bit for bit. With `scratch` it resumes from the last checkpoint there. With `until`, an
    epoch before the last, it rests there: the metrics are those of that moment, the schedule is that of all `epochs`,
    and called again with the same `scratch` it goes on as if it had never rested. Raises `DivergedError` when the loss
    is not finite, `UsageError` for a checkpoint of another training in `scratch`. `fold` (which, of how many) trains and
    validates on one cut of both splits together instead of on theirs. `schedules` and `losses` are what the
    hyper-parameters `schedule` and `loss` name (None: the usual ones).
    `joins` are modules that rest until the training has come so far (0..1), `rates` factors on the learning rate, by
    parameter (see `components.training.tuning`).
    `training` may hold `clip` (largest gradient norm, 0: none), `ema` (decay of the averaged weights, 0: none), `l1`
    (penalty on the absolute weights of matrices and kernels), `stochastic_depth` (how often the last residual block is
    left out), `patience` (validations without a better objective after which training stops), `data`
    (memory, stream or auto: where rows are kept) and `workers` (processes that decode streamed images). `trainer` says on
    which devices (None: the CPU): those of the group that this process has joined, or one. Where memory runs out, batches
    are taken in parts, twice as many each time; they begin with `halvings` of them.
    """
    devices: Trainer = build(trainer or CPU)
    if devices.accelerator == "gpu" and not torch.cuda.is_available():
        raise UsageError("a training is to run on a GPU and torch finds none here; take trainer=cpu")
    if devices.compile:
        require_compiler(devices)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "inductor"))  # it pickles: in our folder, not in /tmp
    training = _checked(settled({**DEFAULTS, **(training or {})}, hyperparameters))
    rest = epochs if until is None else until
    if not 1 <= rest <= epochs:
        raise UsageError(f"training needs at least 1 epoch and rests at one of its own, got {rest} of {epochs}")
    numerics = {**PLAIN, **(numerics or {})}
    train, validation = _rows(dataset, rows, fold, seed, {"data": training["data"], "workers": training["workers"]})
    if devices.accelerator == "gpu":
        train, validation = (on_gpu(part) for part in (train, validation))
    batch_size = _batch_size(hyperparameters, devices, len(train))
    loader = BatchLoader(train, batch_size, seed, lambda: learner.current_epoch, lambda: learner.first_batch())
    clock = ranks.Clock()
    progress = Progress(total_steps=epochs * len(loader), seconds=seconds, until=rest / epochs, clock=clock)
    drop_residuals(network, training["stochastic_depth"])
    network = network.to(DTYPE_OF.get(numerics["precision"], torch.float32), memory_format=FORMATS[numerics["memory_format"]])
    learner = Learner(
        network, dataset, optimizer=optimizer_of(hyperparameters, optimizers), learning_rate=hyperparameters["learning_rate"],
        label_smoothing=hyperparameters.get("label_smoothing", 0.0), policy=policy,
        strength=hyperparameters.get("augmentation_strength", 0.0), validation=validation, objective=objective, progress=progress,
        epochs=epochs, train_rows=len(train), seed=seed, training=training, emit=emit, teacher=teacher, distiller=distiller,
        clock=clock, accumulate=devices.accumulate, compiles=devices.compile, halvings=halvings,
        schedule=_member("schedule", hyperparameters, schedules, dataset.task),
        loss=_member("loss", hyperparameters, losses, dataset.task), train_targets=train.targets.cpu(),
        joins=joins, rates=rates,
    )  # fmt: skip
    asked = {"dataset": dataset.digest, "rows": rows, "fold": list(fold or ()), "seed": seed, "epochs": epochs, "objective": objective}
    learner.facts = _facts({**asked, **hyperparameters, "precision": numerics["precision"]}, training, network)
    _run(learner, loader, epochs, scratch, numerics, devices)
    return _result(learner, loader, rest)


def _facts(asked: JSON, training: JSON, network: nn.Module) -> JSON:
    """What makes this training another one than those whose checkpoints it must not go on from."""
    settings = {f"training.{name}": value for name, value in training.items() if name not in PLACES}
    return {**asked, **settings, "weights": {name: list(tensor.shape) for name, tensor in network.state_dict().items()}}


def _rows(dataset: DatasetVersion, limit: int | None, fold: tuple[int, int] | None, seed: int, where: JSON) -> tuple[Rows, Rows]:
    if fold is not None:
        return load_fold(dataset, *fold, limit=limit, seed=seed, **where)
    return load_rows(dataset, "train", limit=limit, seed=seed, **where), load_rows(dataset, "validation", **where)


def _batch_size(hyperparameters: JSON, devices: Trainer, rows: int) -> int:
    """Rows of a step: those of the batches that are accumulated for it, over all devices."""
    size = int(hyperparameters["batch_size"]) * devices.accumulate
    if min(size, rows) < ranks.own().size:
        raise UsageError(f"a batch has {min(size, rows)} rows, too few for {ranks.own().size} devices; lower trainer.devices")
    return size


def on_gpu(rows: Rows) -> Rows:
    """The rows on the GPU, if they are in memory and take at most `GPU_SHARE` of what is free there; else as they are."""
    if isinstance(rows, StreamedRows) or rows.num_bytes > GPU_SHARE * torch.cuda.mem_get_info()[0]:
        return rows
    return rows.on("cuda")


def _checked(training: JSON) -> JSON:
    if training["patience"] is not None:
        whole("training.patience", training["patience"], 1)
    return training


def _member(family: str, hyperparameters: JSON, nodes: Mapping[str, JSON] | None, task: str) -> Any:
    """The schedule or loss that a candidate names; of those that fit the task, the only or the first one."""
    nodes = nodes or USUAL[family]
    known = fitting(nodes, task) if family == "loss" else sorted(nodes)
    name = hyperparameters.get(family, known[0])
    if name not in known:
        raise UnknownNameError(family, name, known)
    return build(nodes[name])


def optimizer_of(hyperparameters: JSON, optimizers: Mapping[str, JSON]) -> Callable[[list[JSON]], torch.optim.Optimizer]:
    """From parameter groups to the chosen optimizer; `search` in its configuration is a range, not an argument."""
    name = hyperparameters["optimizer"]
    if name not in optimizers:
        raise UnknownNameError("optimizer", name, optimizers)
    node = {key: value for key, value in optimizers[name].items() if key != "search"}
    partial = build({**node, "_partial_": True})
    return lambda groups: partial(groups, lr=hyperparameters["learning_rate"], weight_decay=hyperparameters["weight_decay"])


def _run(learner: Learner, loader: BatchLoader, epochs: int, scratch: Path | None, numerics: JSON, devices: Trainer) -> None:
    checkpoint = scratch / "last.ckpt" if scratch else None
    resumed = checkpoint if ranks.shared(lambda: _readable(checkpoint, learner.facts) is not None) else None
    before = torch.get_num_threads()
    torch.set_num_threads(numerics["threads"])
    try:
        with _quiet(), torch.random.fork_rng(devices=[torch.cuda.current_device()] if devices.accelerator == "gpu" else []):
            if not (resumed and _takes_up(learner, read_checkpoint(resumed))):
                with _interrupted_as_it_was(), processes.heeding_stop() if checkpoint else contextlib.nullcontext():
                    trainer = _trainer(epochs, devices, numerics["precision"], [SaveCheckpoints(checkpoint)] if checkpoint else [])
                    trainer.fit(learner, train_dataloaders=loader, ckpt_path=resumed)
            if not learner.is_finished:
                learner.judge_at_rest()
    finally:
        torch.set_num_threads(before)


def _takes_up(learner: Learner, kept: JSON) -> bool:
    """Whether a checkpoint is already as far as this session should get; then the learner is as it was saved."""
    if kept["learner"]["progress"] < learner.progress.until and not kept["learner"]["is_stopped"]:
        return False
    learner.load_state_dict(kept["state_dict"])
    learner.on_load_checkpoint(kept)
    return True


def _trainer(epochs: int, devices: Trainer, precision: str, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """Lightning's trainer, over the devices of this process's group."""
    number = ranks.own().size
    return lightning.Trainer(
        max_epochs=epochs, min_epochs=0, accelerator=devices.accelerator, devices=number,
        strategy=devices.strategy() if number > 1 else "auto", precision=PRECISION_OF[precision], logger=False,
        enable_checkpointing=bool(callbacks), enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        limit_val_batches=0, callbacks=callbacks, plugins=[SafeCheckpointIO()],
    )  # fmt: skip


def _readable(checkpoint: Path | None, facts: JSON) -> Path | None:
    """The checkpoint, if there is a whole one. Raises `UsageError` for that of another training."""
    if checkpoint is None or not checkpoint.exists():
        return None
    try:
        kept = read_checkpoint(checkpoint)
    except ValueError as error:
        warnings.warn(f"{error}; training starts anew", stacklevel=2)
        return None
    require_same(checkpoint, kept["learner"]["facts"], facts)
    return checkpoint


class SaveCheckpoints(Checkpoint):
    """Saves a checkpoint when an epoch ends, unless the last one is too young; always after the last epoch; and every
    `WITHIN_SECONDS` within one. In a worker that is asked to stop (SIGTERM) at once, and that is its last act.

    Being a `Checkpoint`, it is called after the learner's own hook, so that what is saved has been judged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._saved_at, self._cost = path, 0.0, 0.0
        self._at_sigterm = signal.getsignal(signal.SIGTERM)
        path.parent.mkdir(parents=True, exist_ok=True)

    def on_train_start(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        assert isinstance(learner, Learner)
        if callable(self._at_sigterm) and threading.current_thread() is threading.main_thread():
            # Lightning's own handler, put before it, broadcasts whatever else is under way, and ends the loop unsaved.
            signal.signal(signal.SIGTERM, self._at_sigterm)
        learner.after_step = lambda: self._save_if(learner, WITHIN_SECONDS)

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        assert isinstance(learner, Learner)
        self._save_if(learner, 0.0 if learner.progress.is_over else CHECKPOINT_SECONDS)

    def _save_if(self, learner: Learner, seconds: float) -> None:
        """Saves, if the last checkpoint is at least so old and what saving costs is small beside that; always if `seconds` is 0."""
        now, stops = learner.progress.session_seconds, learner.clock.is_asked_to_stop
        if stops or not seconds or now - self._saved_at >= max(seconds, self._cost / CHECKPOINT_SHARE):
            learner.trainer.save_checkpoint(self.path)
            self._saved_at = learner.progress.session_seconds
            self._cost = self._saved_at - now
        if stops:
            processes.leave()


def _result(learner: Learner, loader: BatchLoader, rest: int) -> Fit:
    network = learner.whole_average().cpu()
    network.load_state_dict(learner.best)
    progress = learner.progress
    return Fit(
        network=network.to(memory_format=torch.contiguous_format).eval(), metrics=dict(learner.best_metrics),
        history=tuple(learner.history), epochs=round(progress.steps / len(loader), 3), steps=progress.steps,
        truncated=progress.steps < rest * len(loader) and not progress.is_stopped, seconds=round(progress.total_seconds, 3),
    )  # fmt: skip


@contextlib.contextmanager
def _interrupted_as_it_was() -> Iterator[None]:
    """Lightning ends a process that is interrupted, with exit code 1; whose process it is decides that here."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's advice (accelerators, loader workers, tips) from the user; errors still raise."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
