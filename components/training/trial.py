"""One trial of a search: a candidate trained at the search's fidelity, its result told as a record whatever happens.

This is what the search's worker processes run. The outcome is a function of (seed, number) and the candidate.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from components import metrics
from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, Trial
from components.build import build
from components.errors import DataError, UsageError
from components.models.network import num_parameters, save_weights
from components.models.parent import Parent, may_share_rows
from components.training.batches import load_rows, seed_of
from components.training.calibrate import settle
from components.training.extent import num_folds, trial_epochs
from components.training.failure import cause_of, reason_of
from components.training.fit import Fit, fit
from components.training.tuning import begin


def run_trial(
    dataset: DatasetVersion,
    policy: AugmentationPolicy,
    candidate: Candidate,
    config: JSON,
    number: int,
    scratch: Path,
    seconds: float | None = None,
    rows: int | None = None,
    *,
    epochs: int | None = None,
    full_epochs: int | None = None,
    prepare: Callable[[nn.Module], Any] | None = None,
    weights: Path | None = None,
    emit: Callable[..., Any] = lambda event, **fields: None,
) -> Trial:
    """Trains `candidate` for `search.epochs` (or within `seconds`) on `rows` training rows; values are validation metrics.

    With `epochs` it rests there, on the way to `full_epochs` (None: `search.epochs`), and goes on from `scratch` when it
    is called again. With `search.folds` it is trained once a fold and the values are means over the folds. With `parent` it
    begins from that model's weights. `prepare`
    may change the fresh network in place; `weights` is where the trained ones are to be kept.

    Never raises for what a candidate can do: a loss that is not finite, memory that runs out and a bug become a
    failed trial with its cause. `config` holds the search stage's sections; `scratch` is this trial's own folder.
    """
    started = time.monotonic()
    network: nn.Module | None = None
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        seed = seed_of_trial(config, number)
        start = begin(candidate, config, dataset, seed)
        network, candidate = start.network, start.candidate
        if prepare:
            prepare(network)
        candidate = with_numerics(network, dataset, candidate, config.get("training") or {}, scratch, trainer=config.get("trainer"))
        how = _how(dataset, policy, candidate, config, seed, rows, epochs, full_epochs) | {"joins": start.joins, "rates": start.rates}
        fits = _fits(network, dataset, candidate, how, folds_asked(config, dataset), scratch, seconds, emit)
        if weights:
            save_weights(start.finished(fits[0].network), weights)
    except (UsageError, DataError):
        raise  # a mistake in the settings or the data is the user's to mend, not this candidate's failure
    except Exception as error:
        return failed(number, candidate, error, scratch, started, network)
    return Trial(
        number=number, candidate=candidate, state="complete", values=_mean([fitted.metrics for fitted in fits]),
        num_parameters=start.num_parameters, fidelity=_fidelity(fits, dataset, rows) | start.facts, history=_history(fits),
        seconds=round(time.monotonic() - started, 3),
    )  # fmt: skip


def failed(number: int, candidate: Candidate, error: Exception, scratch: Path, started: float, network: nn.Module | None = None) -> Trial:
    """The record of a trial that ended with `error`, whose traceback is left in `scratch`; `started` by the monotonic clock."""
    (scratch / "error.txt").write_text("".join(traceback.format_exception(error)))
    return Trial(
        number=number, candidate=candidate, state="failed", cause=cause_of(error), reason=reason_of(error),
        num_parameters=num_parameters(network) if network else 0, seconds=round(time.monotonic() - started, 3),
    )  # fmt: skip


def seed_of_trial(config: JSON, number: int) -> int:
    """From what a trial's weights, batches and dropout are drawn."""
    return seed_of(int(config.get("seed", 0)), "trial", number)


def planned_epochs(dataset: DatasetVersion, config: JSON, rows: int | None = None) -> int:
    """Epochs of a trial that nobody cuts short."""
    return trial_epochs((config.get("search") or {}).get("epochs"), _used_rows(dataset, rows))


def _used_rows(dataset: DatasetVersion, rows: int | None) -> int:
    return min(rows or dataset.splits["train"], dataset.splits["train"])


def folds_asked(config: JSON, dataset: DatasetVersion) -> int | None:
    """Folds that trials of this dataset are judged on; None for the validation split.

    Raises `UsageError` where a parent may have been trained on rows that a fold would hold out; `auto` is none then."""
    asked = (config.get("search") or {}).get("folds")
    if asked is not None and config.get("parent"):
        parent = Parent.from_json(config["parent"])
        if may_share_rows(parent, dataset):
            if asked == "auto":
                return None
            raise UsageError(f"search.folds would judge trials on rows that parent {parent.name} may have learned; choose folds=null")
    return num_folds(asked, dataset.splits["train"] + dataset.splits["validation"])


def _how(
    dataset: DatasetVersion, policy: AugmentationPolicy, candidate: Candidate, config: JSON, seed: int, rows: int | None,
    epochs: int | None, full_epochs: int | None,
) -> JSON:  # fmt: skip
    """The arguments of every fit of this trial."""
    full = full_epochs or planned_epochs(dataset, config, rows)
    return {
        "policy": build(policy.config), "optimizers": config["optimizer"], "seed": seed, "epochs": full, "until": epochs, "rows": rows,
        "objective": metrics.objective((config.get("metrics") or {}).get("objective"), dataset.task),
        "numerics": candidate.numerics, "training": config.get("training") or {}, "schedules": config.get("schedule"),
        "losses": config.get("loss"), "trainer": {k: v for k, v in (config.get("trainer") or {}).items() if k != "compile"},
    }  # fmt: skip


def _fits(
    network: nn.Module, dataset: DatasetVersion, candidate: Candidate, how: JSON, folds: int | None, scratch: Path,
    seconds: float | None, emit: Callable[..., Any],
) -> list[Fit]:  # fmt: skip
    """One training, or one a fold, each from the same network and within its share of what is left of the time."""
    given = candidate.hyperparameters
    if folds is None:
        return [fit(network, dataset, given, seconds=seconds, scratch=scratch, emit=emit, **how)]
    started, fits = time.monotonic(), []
    for fold in range(folds):
        share = None if seconds is None else max(0.0, seconds - (time.monotonic() - started)) / (folds - fold)
        fits.append(
            fit(copy.deepcopy(network), dataset, given, fold=(fold, folds), seconds=share, scratch=scratch / f"fold{fold}",
                emit=_counting_on(emit, fold, folds), **how)
        )  # fmt: skip
    return fits


def _counting_on(emit: Callable[..., Any], fold: int, folds: int) -> Callable[..., Any]:
    """Tells the epochs of one fold as a part of all."""

    def tell(event: str, **fields: Any) -> None:
        if event == "epoch":
            epochs = fields["epochs"]
            fields |= {"epoch": fold * epochs + fields["epoch"], "epochs": folds * epochs}
        emit(event, **fields)

    return tell


def _fidelity(fits: Sequence[Fit], dataset: DatasetVersion, rows: int | None) -> JSON:
    if len(fits) == 1:
        return {"epochs": fits[0].epochs, "rows": _used_rows(dataset, rows)}
    total, folds = dataset.splits["train"] + dataset.splits["validation"], len(fits)
    others = total - math.ceil(total / folds)
    return {"epochs": statistics.fmean(f.epochs for f in fits), "rows": min(rows or others, others), "folds": folds}


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def _history(fits: Sequence[Fit]) -> tuple[JSON, ...]:
    if len(fits) == 1:
        return fits[0].history
    return tuple({"fold": fold, **row} for fold, fitted in enumerate(fits) for row in fitted.history)


def with_numerics(
    network: nn.Module, dataset: DatasetVersion, candidate: Candidate, training: JSON, scratch: Path | None, *, alone: bool = False,
    trainer: JSON | None = None,
) -> Candidate:  # fmt: skip
    """The candidate with its numerics written down (measured on one of its own batches if they are not yet); see `settle`."""
    batch = load_rows(dataset, "train", limit=int(candidate.hyperparameters["batch_size"]))
    inputs = [batch.fields[field.name] for field in dataset.inputs]
    own = build(trainer) if trainer else None
    device = "cuda" if own and own.accelerator == "gpu" else "cpu"
    numerics = settle(network, inputs, candidate.numerics, training, scratch, alone=alone, device=device)
    if alone and own and hasattr(own.strategy(), "shard"):  # shards have one layout, whatever was measured for a trial
        numerics = {**numerics, "memory_format": "contiguous"}
    return candidate.replace(numerics=numerics)
