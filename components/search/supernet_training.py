"""Trains the shared weights of a supernet, candidate by candidate, and judges candidates by them on rows held out.

What a step does follows from (seed, step) and the weights before it, so a training that was killed goes on from its last
checkpoint as if nothing had happened. Legend: B rows of a batch, K outputs.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion
from components.build import build
from components.errors import CorruptArtifactError
from components.models.points import Point
from components.search.derivation import derive
from components.search.supernet import FILE, Recipe, SupernetTask, is_supernet, save_supernet
from components.search.supernet_data import Data, Forward, as_float
from components.training.batches import Rows, seed_of
from components.training.checkpoint import SafeCheckpointIO, read_checkpoint
from components.training.failure import DivergedError
from components.training.progress import Progress
from components.training.schedule.cosine import Cosine

CHECKPOINT = "supernet.ckpt"
TRAINED_SHARE = 0.85  # of the given time; the rest is for judging
CHECKPOINT_SECONDS = 20.0  # a kill loses at most so much
REPORT_EVERY = 0.02  # of the steps
STRENGTH = 1.0  # of the augmentation: shared weights see few rows very often
SCHEDULE = Cosine()
MOMENTUM, CLIP = 0.9, 5.0  # as in DARTS (Liu et al., ICLR 2019)

class Curriculum(Protocol):
    """What is trained at a step, and what a strategy does after it."""

    def forwards(self, step: int, progress: float) -> Sequence[Forward]:
        """What the step runs, each on a batch of its own; their gradients are averaged."""
        ...

    def after_step(self, step: int, progress: float) -> None: ...

    def state(self) -> JSON:
        """What a checkpoint must hold of it: tensors and plain values."""
        ...

    def restore(self, state: JSON) -> None: ...

    def figures(self) -> JSON:
        """What the report shows of it."""
        ...


def trained(
    task: SupernetTask,
    recipe: Recipe,
    curriculum_of: Callable[[Any, Any, Data], Curriculum],
    *,
    tuned: float = 0.0,
    allowed: Callable[[Point], bool] = lambda point: True,
    emit: Callable[..., Any],
) -> Path:
    """The file of the task's supernet, at once if it is there: trained as the curriculum of (supernet, space, data) says,
    judged, and the best candidates that are `allowed` derived. Raises `DivergedError`."""
    path = task.scratch / FILE
    if is_supernet(path):
        return path
    space, rows = build(task.config["space"]), (task.config.get("search") or {}).get("rows")
    data = Data.of(task.dataset, task.policy, recipe.holdout, rows, task.seed, tuned=tuned)
    with one_thread():
        supernet = supernet_of(space, task.dataset, task.seed)
        curriculum = curriculum_of(supernet, space, data)
        loop = _Loop(supernet, data, curriculum, recipe, task)
        figures = loop.run(emit)
        derived = derive(supernet, space, data, views=recipe.views, count=recipe.candidates, seed=task.seed, allowed=allowed)
    save_supernet(path, supernet.state_dict(), derived.with_evidence({**figures, **curriculum.figures()}))
    return path


def supernet_of(space: Any, dataset: DatasetVersion, seed: int) -> Any:
    """The space's supernet with initial weights drawn from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "supernet"))
        return space.supernet(dataset)


def load_supernet(space: Any, dataset: DatasetVersion, path: Path) -> Any:
    """A trained supernet. Raises `CorruptArtifactError` for a file that does not hold one of this space."""
    try:
        weights = load_file(path)
        supernet = space.supernet(dataset, weights)
        supernet.load_state_dict(weights)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CorruptArtifactError(f"{path} is no supernet of this space and data set: {error}") from error
    return supernet


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread: small networks are slower on more, and the order of sums is the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Loop:
    def __init__(self, supernet: nn.Module, data: Data, curriculum: Curriculum, recipe: Recipe, task: SupernetTask) -> None:
        self.supernet, self.data, self.curriculum, self.recipe = supernet, data, curriculum, recipe
        self.seed, self.checkpoint = task.seed, task.scratch / CHECKPOINT
        self.optimizer = torch.optim.SGD(
            supernet.parameters(), lr=recipe.learning_rate, momentum=MOMENTUM, weight_decay=recipe.weight_decay, nesterov=True
        )
        self.batches = _Batches(data.trained, recipe.batch_size, task.seed)
        self.per_step = len(curriculum.forwards(0, 0.0))
        total = math.ceil(recipe.epochs * len(self.batches) / self.per_step)
        self.progress = Progress(total_steps=max(1, total), seconds=task.seconds and TRAINED_SHARE * task.seconds)
        self.mean_loss, self._saved_at, self._reported = math.nan, time.monotonic(), 0.0

    def run(self, emit: Callable[..., Any]) -> JSON:
        """Trains in place, from the last checkpoint on; returns steps, seconds and the last training loss."""
        self.resume()
        while not self.progress.is_over:
            self.step()
            self.report(emit)
            self.save_if_due()
        self.save()
        return {"steps": self.progress.steps, "seconds": round(self.progress.total_seconds, 1), "train_loss": round(self.mean_loss, 4)}

    def step(self) -> None:
        step, progress = self.progress.steps, self.progress.value
        generator = torch.Generator().manual_seed(seed_of(self.seed, "step", step))
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * SCHEDULE.factor(progress)
        self.optimizer.zero_grad()
        for place, forward in enumerate(self.curriculum.forwards(step, progress)):
            self._backward(forward, self.batches.at(step * self.per_step + place), generator)
        nn.utils.clip_grad_norm_(self.supernet.parameters(), CLIP)
        self.optimizer.step()
        self.curriculum.after_step(step, progress)
        self.progress.steps += 1

    def _backward(self, forward: Forward, batch: tuple[dict[str, Tensor], Tensor], generator: torch.Generator) -> None:
        fields, targets = batch
        fields = {name: as_float(values) for name, values in fields.items()}
        fields, targets = self.data.vary(fields, targets, generator, STRENGTH)
        loss = self.data.loss(forward, fields, targets)
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(
                f"the supernet's training loss became {value} in step {self.progress.steps + 1}; lower strategy.learning_rate"
            )
        self.mean_loss = value if math.isnan(self.mean_loss) else 0.99 * self.mean_loss + 0.01 * value
        (loss / self.per_step).backward()

    def report(self, emit: Callable[..., Any]) -> None:
        done = self.progress.value
        if done >= 1 or done - self._reported >= REPORT_EVERY:
            self._reported = done
            emit("progress", share=round(done, 3), loss=round(self.mean_loss, 4), seconds=round(self.progress.total_seconds, 1))

    # ---- checkpoints ----

    def save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        progress = {"steps": self.progress.steps, "elapsed": self.progress.total_seconds, "progress": self.progress.value}
        state = {
            "weights": self.supernet.state_dict(), "optimizer": self.optimizer.state_dict(), "curriculum": self.curriculum.state(),
            "progress": progress, "mean_loss": self.mean_loss,
        }  # fmt: skip
        SafeCheckpointIO().save_checkpoint(state, self.checkpoint)
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Goes on from the checkpoint, if a readable one is there."""
        try:
            kept = read_checkpoint(self.checkpoint) if self.checkpoint.exists() else None
        except ValueError as error:
            warnings.warn(f"{error}; the supernet's training starts anew", stacklevel=2)
            return
        if kept is None:
            return
        self.supernet.load_state_dict(kept["weights"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.curriculum.restore(kept["curriculum"])
        self.progress.resume(**kept["progress"])
        self.mean_loss = kept["mean_loss"]


class _Batches:
    """The batches of an endless training by their number; each epoch has an order of its own."""

    def __init__(self, rows: Rows, batch_size: int, seed: int) -> None:
        self._epoch = -1
        self._order: Tensor = torch.empty(0, dtype=torch.long)
        self._rows, self._seed = rows, seed
        self._size = max(1, min(batch_size, len(rows)))

    def __len__(self) -> int:
        return len(self._rows) // self._size

    def at(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        epoch, place = divmod(number, len(self))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of(self._seed, "order", epoch))
            self._order, self._epoch = torch.randperm(len(self._rows), generator=generator), epoch
        return self._rows.at(self._order[place * self._size : (place + 1) * self._size])
