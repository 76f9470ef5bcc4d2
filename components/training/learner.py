"""The LightningModule: loss, schedule, averaged weights, validation, and what a checkpoint must hold to go on exactly.

Everything random within an epoch follows from (seed, epoch); a checkpoint within one holds the generators' states too. So
a run resumed at any step takes the same steps.
Legend: B rows of a batch, M members of a network that is an ensemble, K outputs.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from components import metrics
from components.artifacts import JSON, DatasetVersion
from components.errors import UsageError
from components.training import memory, ranks
from components.training.batches import Batch, Rows, seed_of
from components.training.failure import DivergedError, cause_of
from components.training.interface import Loss, Schedule
from components.training.joining import Joining
from components.training.progress import Progress
from components.training.searched import is_weight
from components.training.share import ShareOfRows, cut

# Averaged weights span about the last twentieth of the steps taken so far, at most 1 / (1 - ema) of them.
AVERAGED_SHARE = 0.05
VALIDATION_BATCH = 512
# A validation pass may cost this share of the training between two of them (a training step costs about 3 forward passes).
VALIDATION_SHARE = 0.15
MOST_CLASSES = 100  # of which a history's last row tells each one's recall


class Learner(lightning.LightningModule):
    """Trains `network` on what its loader gives and keeps the averaged weights that did best on validation."""

    def __init__(
        self,
        network: nn.Module,
        dataset: DatasetVersion,
        *,
        optimizer: Callable[[list[JSON]], torch.optim.Optimizer],
        learning_rate: float,
        label_smoothing: float,
        policy: Callable[..., Any],
        strength: float,
        validation: Rows,
        objective: str,
        progress: Progress,
        epochs: int,
        train_rows: int,
        seed: int,
        training: JSON,
        schedule: Schedule,
        loss: Loss,
        train_targets: Tensor,
        emit: Callable[..., Any],
        teacher: nn.Module | None = None,
        distiller: Callable[..., Tensor] | None = None,
        joins: Mapping[str, float] | None = None,
        rates: Mapping[str, float] | None = None,
        clock: ranks.Clock | None = None,
        accumulate: int = 1,
        compiles: bool = False,
        halvings: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.averaged = network, copy.deepcopy(network).eval().requires_grad_(False)
        self.dataset, self.make_optimizer, self.learning_rate = dataset, optimizer, learning_rate
        self.label_smoothing, self.policy, self.strength = label_smoothing, policy, strength
        self.validation, self.objective, self.progress, self.epochs = validation, objective, progress, epochs
        self.seed, self.clip, self.emit, self.distiller = seed, float(training["clip"]), emit, distiller
        self.schedule, self.loss, self.l1, self.patience = schedule, loss, float(training["l1"]), training["patience"]
        self._teacher = [teacher.eval()] if teacher is not None else []  # in a list: not part of this module's state
        self.validate_every = max(1, math.ceil(len(validation) / (3 * VALIDATION_SHARE * max(train_rows, 1))))
        self.facts: JSON = {}  # what a checkpoint of this training may be resumed by
        self.history: list[JSON] = []
        self.best: dict[str, Tensor] = {}
        self.best_metrics: dict[str, float] = {}
        self.best_objective = math.nan
        self.is_finished, self._without_gain = False, 0
        self.after_step: Callable[[], None] = lambda: None  # called within an epoch, when a checkpoint of it would be whole
        self._batches, self._within = 0, {}  # type: int, JSON
        self._losses: list[Tensor] = []
        # In a list: not part of this module's state.
        self._weights = [class_weights(loss, training.get("class_weights"), dataset, train_targets)]
        self._ema = float(training["ema"])
        self._joining, self._rates = Joining(network, joins or {}), rates or {}
        self.clock, self.accumulate, self.compiles, self.halvings = clock or ranks.Clock(), accumulate, compiles, halvings
        self._shell: list[nn.Module] = []  # a whole network, where `averaged` is in shards

    # ---- training ---------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.make_optimizer(parameter_groups(self.network, self._rates))
        if settle := getattr(self.trainer.strategy, "settle", None):
            settle(optimizer)
        return optimizer

    def configure_model(self) -> None:
        """Called before the network is moved to its device: where the strategy shards, each rank keeps a part of it."""
        if shard := getattr(self.trainer.strategy, "shard", None):
            if not self._shell:
                self._shell = [copy.deepcopy(self.averaged)]
            shard(self.network)
            shard(self.averaged)

    def on_train_start(self) -> None:
        self._trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._average = Average(self.averaged, self.network, self._ema)
        self._teacher = [teacher.to(self.device) for teacher in self._teacher]
        self._weights = [None if weights is None else weights.to(self.device, self.dtype) for weights in self._weights]
        every_member = getattr(self.network, "every_member", None)
        self._members_outputs = torch.compile(every_member) if self.compiles and every_member else every_member
        if self.compiles:
            self.network.compile()
        self._restore()

    def _restore(self) -> None:
        """Gives restored optimizer tensors the layout of their parameters: torch's fused steps read memory, not strides."""
        for optimizer in self.trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        if self._within:
            self._set_random_state(self._within["rng"])
            self._generator = torch.Generator()
            self._generator.set_state(self._within["generator"])
            losses = self._within["losses"] if ranks.own().rank == 0 else torch.zeros_like(self._within["losses"])
            self._losses, self._batches = list(losses.to(self.device).unbind()), self._within["batches"]

    def first_batch(self) -> int:
        """The batch that the current epoch goes on with: 0 but in one that a checkpoint was taken in."""
        return int(self._within["batches"]) if self._within and self._within["epoch"] == self.current_epoch else 0

    def on_train_epoch_start(self) -> None:
        seed = seed_of(self.seed, "epoch", self.current_epoch)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes note of its caller for every kind of device: 0.5 ms
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._losses.clear()

    def training_step(self, dataloader_iter: Iterator[tuple[Batch, int, int]]) -> None:
        """The epoch's steps, one after another: what Lightning does around each is dearer than a small network's step.
        Devices that exchange gradients and types that are cast need it, so there it is one step."""
        for batch, _, _ in dataloader_iter:
            self._step(*self._at_hand(batch))
            self._count_step(len(batch[1]))
            if self.trainer.should_stop or not self._is_alone():
                break

    def _is_alone(self) -> bool:
        """Whether a step concerns this process and plain types only: what Lightning does around it is for others."""
        return ranks.own().size == 1 and self.trainer.precision != "bf16-mixed"

    def _at_hand(self, batch: Batch) -> Batch:
        """The batch on this device, its numbers in the type of the weights."""
        kind = torch.get_default_dtype()
        fields, targets = batch

        def moved(values: Tensor) -> Tensor:
            return values.to(self.device, kind if values.dtype == torch.uint8 or values.is_floating_point() else None)

        return {name: moved(values) for name, values in fields.items()}, moved(targets)

    def _step(self, fields: dict[str, Tensor], targets: Tensor) -> None:
        """One step of the optimizer: a whole batch, of which this rank takes its rows, in as many parts as memory asks for."""
        self.clock.tick()
        self._follow_schedule(self.progress.value)
        self._joining.follow(self.progress.value)
        fields, targets = self.policy(fields, targets, self._generator, self.strength)
        inputs = [fields[field.name] for field in self.dataset.inputs]
        loss = self._gradient(inputs, targets)
        if not math.isfinite(loss.item()):
            where = f"epoch {self.current_epoch + 1}, step {self._batches + 1}"
            raise DivergedError(f"training loss became {loss.item()} in {where}; {self._likely_cause(inputs)}")
        self._losses.append(loss)
        if self.l1:
            add_l1(self._trained, self.l1)
        self._joining.hold(self.progress.value)
        if self.clip:
            clip_gradient(self._trained, self.clip)
        self.trainer.optimizers[0].step()

    def _count_step(self, rows: int) -> None:
        self._batches += 1
        self.progress.steps += 1
        self._average.step(self.progress.steps)
        if not self.history and self.progress.seconds is not None:
            self._expect_validation(rows)
        if self.progress.is_over:
            self.trainer.should_stop = True
        if not self.trainer.should_stop and self._batches < self.trainer.num_training_batches:
            self.after_step()

    def _gradient(self, inputs: list[Tensor], targets: Tensor) -> Tensor:
        """Leaves the gradient of the batch's mean loss at the weights and returns this rank's share of that loss. Where
        memory runs out the parts are halved; what batch normalisation has seen by then stays in its statistics."""
        while True:
            before = self._random_state()
            try:
                return self._gradient_in_parts(inputs, targets)
            except (RuntimeError, MemoryError) as error:
                if not self._may_halve(error, len(targets)):
                    raise
            self._halve(len(targets))  # not above, where the error still holds all that was in memory
            self._set_random_state(before)

    def _gradient_in_parts(self, inputs: list[Tensor], targets: Tensor) -> Tensor:
        group, rows = ranks.own(), len(targets)
        shares = cut(rows, rank=group.rank, size=group.size, parts=self.parts)
        self._drop_gradient()
        state = self._random_state() if len(shares) > 1 else []
        found = []
        for number, share in enumerate(shares, start=1):
            if number > 1 and not self.compiles:
                self._set_random_state(state)
            loss = self._loss_of(share, inputs, targets)
            found.append(loss.detach())
            self._backward(loss * group.size if group.size > 1 else loss, is_last=number == len(shares))
        return found[0] if len(found) == 1 else torch.stack(found).sum()

    def _drop_gradient(self) -> None:
        for parameter in self._trained:
            parameter.grad = None

    def _loss_of(self, share: slice, inputs: list[Tensor], targets: Tensor) -> Tensor:
        """What the rows of a share add to the mean loss over all rows."""
        rows, taken = len(targets), share.stop - share.start
        if taken == rows:
            return self._loss(inputs, targets)
        weights, hard = self._weights[0], 1.0
        if weights is not None:  # their mean is over the sum of the rows' weights
            hard = float(weights[targets[share]].sum() / weights[targets].sum()) * rows / taken
        # A compiled network draws for itself.
        with contextlib.nullcontext() if self.compiles else ShareOfRows(share, rows):
            return self._loss([values[share] for values in inputs], targets[share], hard) * (taken / rows)

    def _backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Devices exchange gradients once a step, with its last part."""
        if self._is_alone():
            loss.backward()
            return
        held_back = getattr(self.trainer.strategy, "block_backward_sync", None)
        with contextlib.nullcontext() if is_last or held_back is None else held_back():
            if self.trainer.precision == "bf16-mixed":
                with torch.autocast(self.device.type, enabled=False):  # the backward pass has its types from the forward pass
                    self.manual_backward(loss)
            else:
                self.manual_backward(loss)

    @property
    def parts(self) -> int:
        """In how many parts a rank takes its rows of a batch."""
        return int(self.accumulate * 2**self.halvings)

    def _may_halve(self, error: Exception, rows: int) -> bool:
        """In a group the others wait for this rank's gradients: there all start anew (`components.training.group`)."""
        return cause_of(error) == "oom" and ranks.own().size == 1 and self.halvings < memory.MOST and self.parts < rows

    def _halve(self, rows: int) -> None:
        self.halvings += 1
        self._drop_gradient()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.emit("batch.halved", halvings=self.halvings, parts=self.parts, rows=rows, step=self.progress.steps + 1)

    def _random_state(self) -> list[Tensor]:
        """Of the generators that a network draws from."""
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if self.device.type == "cuda" else [])]

    def _set_random_state(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda" and len(states) > 1:
            torch.cuda.set_rng_state(states[1])

    def _follow_schedule(self, progress: float) -> None:
        factor, momentum = self.schedule.factor(progress), self.schedule.momentum(progress)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * factor * group.get("rate", 1.0)
            if momentum is not None and group.get("momentum"):
                group["momentum"] = momentum
            if momentum is not None and "betas" in group:
                group["betas"] = (momentum, group["betas"][1])

    def _likely_cause(self, inputs: list[Tensor]) -> str:
        """What most often is behind a loss that is not finite, as far as can be seen."""
        if any(not bool(torch.isfinite(values).all()) for values in inputs if values.is_floating_point()):
            return "the inputs hold values that are not finite"
        if any(not bool(torch.isfinite(weight).all()) for weight in self.network.parameters()):
            return f"weights are no longer finite: learning_rate {self.learning_rate:g} is likely too large"
        return f"the outputs overflow: learning_rate {self.learning_rate:g} is likely too large"

    def _loss(self, inputs: list[Tensor], targets: Tensor, hard_share: float = 1.0) -> Tensor:
        """The mean loss; `hard_share` multiplies that against the targets."""
        every_member = self._members_outputs
        outputs = every_member(*inputs).transpose(0, 1) if every_member else self.network(*inputs).unsqueeze(0)
        members = outputs.shape[0]
        outputs_MBK, repeated = outputs.flatten(0, 1), targets.repeat(members) if members > 1 else targets
        hard = self._hard_loss(outputs_MBK, repeated)
        hard = hard if hard_share == 1.0 else hard * hard_share
        if self.distiller is None or not self._teacher:
            return hard
        with torch.no_grad():
            taught = self._teacher[0](*inputs).repeat(members, 1)
        return self.distiller(outputs_MBK, taught, hard, self.dataset.task)

    def _hard_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets, weights_K=self._weights[0], label_smoothing=self.label_smoothing)

    def _expect_validation(self, batch_rows: int) -> None:
        """Keeps time for the first validation pass before one has been measured: a forward pass is a third of a step."""
        per_row = self.progress.session_seconds / (self.progress.steps * batch_rows)
        self.progress.reserve = per_row * len(self.validation) / 2

    # ---- validation -------------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        self.is_finished, self._batches = self.progress.is_complete, 0
        was_best = self.best_objective
        due = self.is_finished or (self.current_epoch + 1) % self.validate_every == 0
        row: JSON = {
            "epoch": self.current_epoch + 1,
            "train_loss": float(ranks.summed(torch.stack(self._losses)).mean()),
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        if due:
            before = self.progress.session_seconds
            row |= self.judge()
            self.clock.tick()
            self._stop_if_nothing_gains(self.best_objective != was_best)
            # The last pass must fit into the time limit as well.
            self.progress.reserve = max(self.progress.reserve, 1.5 * (self.progress.session_seconds - before))
            if self.is_finished and 2 < len(self.dataset.classes) <= MOST_CLASSES:
                row["classes"] = self._recalls()
        row["seconds"] = round(self.progress.total_seconds, 3)
        self.history.append(row)
        self.emit("epoch", epoch=row["epoch"], epochs=self.epochs, value=row.get(self.objective), seconds=row["seconds"])

    def _stop_if_nothing_gains(self, gained: bool) -> None:
        """Early stopping (Prechelt, 1998): after `patience` validations without a better objective."""
        self._without_gain = 0 if gained else self._without_gain + 1
        if self.patience is not None and self._without_gain >= self.patience:
            self.progress.is_stopped = self.is_finished = self.trainer.should_stop = True

    def judge(self) -> dict[str, float]:
        """Validation metrics of the averaged weights, which are kept if they are the best so far."""
        averaged = self.whole_average()
        found = ranks.shared(lambda: validate(averaged, self.dataset, self.validation, self.objective))
        if metrics.is_better(self.objective, found[self.objective], self.best_objective):
            self.best_objective = found[self.objective]
        if not self.best or prefers(self.objective, found, self.best_metrics, self.best_objective, len(self.validation)):
            self.best_metrics = found
            self.best = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}
        return found

    def _recalls(self) -> list[JSON]:
        averaged, targets = self.whole_average(), self.validation.targets
        return ranks.shared(lambda: recalls(predict(averaged, self.dataset, self.validation), targets.cpu().numpy()))

    def whole_average(self) -> nn.Module:
        """The network with averaged weights; where they are in shards, all of them gathered on rank 0 (every rank takes part)."""
        if not self._shell:
            return self.averaged
        whole = self._shell[0]
        if gather := getattr(self.trainer.strategy, "gather", None):
            whole.load_state_dict(gather(self.averaged) or whole.state_dict())
        return whole.to(self.device)

    def judge_at_rest(self) -> None:
        """Judges the epoch that training rests at, if it was not due. What is checkpointed does not know of it, so that
        going on is as if there had been no rest."""
        if self.history and self.objective not in self.history[-1]:
            self.history[-1] = {**self.history[-1], **self.judge()}

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["learner"] = {
            "steps": self.progress.steps, "elapsed": self.progress.total_seconds, "progress": self.progress.value,
            "history": self.history, "best": self.best, "best_metrics": self.best_metrics,
            "best_objective": self.best_objective, "is_finished": self.is_finished, "without_gain": self._without_gain,
            "is_stopped": self.progress.is_stopped, "within": self._within_epoch(), "halvings": self.halvings, "facts": self.facts,
        }  # fmt: skip

    def _within_epoch(self) -> JSON:
        """Where in an epoch this is; empty between two."""
        if not self._batches:
            return {}
        states = {"rng": self._random_state(), "generator": self._generator.get_state()}
        return {"epoch": self.current_epoch, "batches": self._batches, "losses": ranks.summed(torch.stack(self._losses)), **states}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["learner"]
        self.progress.resume(steps=kept["steps"], elapsed=kept["elapsed"], progress=kept["progress"])
        self.history, self.best, self.best_metrics = list(kept["history"]), kept["best"], kept["best_metrics"]
        self.best_objective, self.is_finished = kept["best_objective"], kept["is_finished"]
        self._without_gain, self.progress.is_stopped = kept["without_gain"], kept["is_stopped"]
        self._within, self.halvings = kept["within"], max(self.halvings, kept["halvings"])


def class_weights(loss: Loss, given: Mapping[str, float] | None, dataset: DatasetVersion, targets: Tensor) -> Tensor | None:
    """The weight of each class in the loss [K]: the loss's own times those `given`; None: all alike. Raises `UsageError`."""
    own = None
    if dataset.task == "classification":
        own = loss.class_weights(torch.bincount(targets, minlength=dataset.num_outputs).to(torch.float32))
    if not given:
        return own
    weights = weights_of(given, dataset)
    return weights if own is None else own * weights


def clip_gradient(parameters: Sequence[nn.Parameter], most: float) -> None:
    """Scales the gradient down to the norm `most`; of a network in shards it is the norm over all of them."""
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if norm.device.type == "cpu" and bool(norm < most):
        return  # elsewhere looking at it would wait for the device
    nn.utils.clip_grads_with_norm_(parameters, most, norm)


@torch.no_grad()
def add_l1(parameters: Sequence[nn.Parameter], penalty: float) -> None:
    """Adds the gradient of `penalty` times the absolute weights of matrices and kernels, which keeps them small (Tibshirani, 1996)."""
    for parameter in parameters:
        if parameter.ndim > 1 and parameter.grad is not None:
            own_part(parameter.grad).add_(own_part(parameter).sign(), alpha=penalty)


def weights_of(given: Mapping[str, float], dataset: DatasetVersion) -> Tensor:
    """The weight of each class in the loss [K]: 1 unless `given`, by the class's index. Raises `UsageError`."""
    weights = torch.ones(dataset.num_outputs)
    for index, weight in given.items():
        if not is_weight(index, weight) or int(index) >= len(dataset.classes):
            raise UsageError(
                f"training.class_weights maps class indices from 0 to {len(dataset.classes) - 1} to positive numbers, got {index}: {weight}"
            )
        weights[int(index)] = float(weight)
    return weights


def recalls(probabilities_NK: np.ndarray, targets_N: np.ndarray) -> list[JSON]:
    """Rows and recall of each class, in the order of the classes."""
    counts_KK = metrics.confusion(probabilities_NK, targets_N)
    rows_K = counts_KK.sum(axis=1)
    return [{"rows": int(n), "recall": round(float(hit) / max(int(n), 1), 4)} for n, hit in zip(rows_K, counts_KK.diagonal())]


def parameter_groups(network: nn.Module, rates: Mapping[str, float] | None = None) -> list[JSON]:
    """Matrices and kernels with weight decay, biases and scales without; those with a rate of their own (a factor on the
    learning rate, by name) apart from the others."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(((rates or {}).get(name, 1.0), parameter.ndim <= 1), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda row: (-row[0][0], row[0][1]))
    return [
        {"params": found, **({"weight_decay": 0.0} if is_free else {}), **({"rate": rate} if rate != 1.0 else {})}
        for (rate, is_free), found in ordered
    ]  # fmt: skip


class Average:
    """Moves averaged weights and running statistics towards the network's, by a share that shrinks with the steps taken."""

    def __init__(self, averaged: nn.Module, network: nn.Module, decay: float) -> None:
        self.least_share = 1.0 - decay
        pairs = list(zip(map(own_part, averaged.state_dict().values()), map(own_part, network.state_dict().values())))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def step(self, steps: int) -> None:
        share = max(self.least_share, 1.0 / (1.0 + AVERAGED_SHARE * steps))
        torch._foreach_lerp_([kept for kept, _ in self._floats], [fresh for _, fresh in self._floats], share)
        for kept, fresh in self._counts:
            kept.copy_(fresh)


def own_part(tensor: Tensor) -> Tensor:
    """The tensor itself, or of one in shards this rank's, the same memory."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def prefers(objective: str, found: dict[str, float], kept: dict[str, float], best: float, rows: int) -> bool:
    """Whether the metrics `found` at a later epoch are preferred to those `kept`, `best` being the best objective so far.

    A count of hits on few rows is coarse: its best epoch is often a lucky one. So of the epochs whose objective lies
    within one standard error of the best, the one with the lowest loss is preferred.
    """
    if "log_loss" not in found or objective == "log_loss":
        return not metrics.is_better(objective, kept[objective], found[objective])
    error = math.sqrt(max(best * (1 - best), 1 / rows) / rows) if 0 <= best <= 1 else 0.0
    near_found, near_kept = found[objective] >= best - error, kept[objective] >= best - error
    if near_found != near_kept:
        return near_found
    return not metrics.is_better("log_loss", kept["log_loss"], found["log_loss"])


def validate(network: nn.Module, dataset: DatasetVersion, rows: Rows, objective: str) -> dict[str, float]:
    """Metrics of a network on rows: the objective, with accuracy and log_loss, or rmse, mae and r2."""
    outputs, targets = predict(network, dataset, rows), rows.targets.cpu().numpy()
    if dataset.task == "classification":
        named = dict.fromkeys((objective, "accuracy", "log_loss"))
    else:
        named = dict.fromkeys((objective, "rmse", "mae", "r2"))
        targets = targets * dataset.target_std + dataset.target_mean
    return {name: metrics.compute(name, outputs, targets) for name in named}


@torch.no_grad()
def predict(network: nn.Module, dataset: DatasetVersion, rows: Rows) -> np.ndarray:
    """Probabilities [N, K], or values [N] in the target's unit; the network must be in eval mode."""
    parts, device = [], next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    for fields, _ in rows.in_order(VALIDATION_BATCH):
        parts.append(network(*(fields[field.name].to(device) for field in dataset.inputs)))
    outputs = torch.cat(parts).cpu()
    if dataset.task == "classification":
        return outputs.softmax(dim=1).numpy()
    return (outputs.squeeze(-1) * dataset.target_std + dataset.target_mean).numpy()
