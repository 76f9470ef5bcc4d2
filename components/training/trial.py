"""One trial of a search: a candidate trained at the search's fidelity, its result told as a record whatever happens.

This is what the search's worker processes run. The outcome is a function of (seed, number) and the candidate.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from components import metrics
from components.artifacts import JSON, AugmentationPolicy, Candidate, DatasetVersion, Trial
from components.build import build
from components.errors import DataError, UsageError
from components.models.network import build_network, num_parameters
from components.training.batches import load_rows, seed_of
from components.training.calibrate import settle
from components.training.extent import trial_epochs
from components.training.failure import cause_of, reason_of
from components.training.fit import Fit, fit


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
    emit: Callable[..., Any] = lambda event, **fields: None,
) -> Trial:
    """Trains `candidate` for `search.epochs` (or within `seconds`) on `rows` training rows; values are validation metrics.

    Never raises for what a candidate can do: a loss that is not finite, memory that runs out and a bug become a
    failed trial with its cause. `config` holds the search stage's sections; `scratch` is this trial's own folder.
    """
    started = time.monotonic()
    network: nn.Module | None = None
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        seed = seed_of(int(config.get("seed", 0)), "trial", number)
        network = build_network(config["space"], candidate, dataset, seed)
        candidate, fitted = _fit(network, dataset, policy, candidate, config, seed, scratch, seconds, rows, emit)
    except (UsageError, DataError):
        raise  # a mistake in the settings or the data is the user's to mend, not this candidate's failure
    except Exception as error:
        (scratch / "error.txt").write_text(traceback.format_exc())
        return Trial(
            number=number, candidate=candidate, state="failed", cause=cause_of(error), reason=reason_of(error),
            num_parameters=num_parameters(network) if network else 0, seconds=round(time.monotonic() - started, 3),
        )  # fmt: skip
    return Trial(
        number=number, candidate=candidate, state="complete", values=fitted.metrics, num_parameters=num_parameters(network),
        fidelity={"epochs": fitted.epochs, "rows": min(rows or dataset.splits["train"], dataset.splits["train"])},
        history=fitted.history, seconds=round(time.monotonic() - started, 3),
    )  # fmt: skip


def _fit(
    network: nn.Module,
    dataset: DatasetVersion,
    policy: AugmentationPolicy,
    candidate: Candidate,
    config: JSON,
    seed: int,
    scratch: Path,
    seconds: float | None,
    rows: int | None,
    emit: Callable[..., Any],
) -> tuple[Candidate, Fit]:
    training, hyperparameters = config.get("training") or {}, candidate.hyperparameters
    num_rows = min(rows or dataset.splits["train"], dataset.splits["train"])
    candidate = with_numerics(network, dataset, candidate, training, scratch)
    fitted = fit(
        network, dataset, hyperparameters, policy=build(policy.config), optimizers=config["optimizer"], seed=seed,
        epochs=trial_epochs((config.get("search") or {}).get("epochs"), num_rows), rows=rows, seconds=seconds,
        objective=metrics.objective((config.get("metrics") or {}).get("objective"), dataset.task), numerics=candidate.numerics,
        training=training, scratch=scratch, emit=emit,
    )  # fmt: skip
    return candidate, fitted


def with_numerics(
    network: nn.Module, dataset: DatasetVersion, candidate: Candidate, training: JSON, scratch: Path | None, *, alone: bool = False
) -> Candidate:  # fmt: skip
    """The candidate with its numerics written down (measured on one of its own batches if they are not yet); see `settle`."""
    batch = load_rows(dataset, "train", limit=int(candidate.hyperparameters["batch_size"]))
    inputs = [batch.fields[field.name] for field in dataset.inputs]
    return candidate.replace(numerics=settle(network, inputs, candidate.numerics, training, scratch, alone=alone))
