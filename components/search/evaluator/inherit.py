"""Starts the candidate from the weights of the most similar one so far, and trains it for a part of the epochs.

What both have in common is taken over, what has grown goes on computing the same (components/models/inheritance.py); the
more a candidate is a stranger to its ancestor, the longer it is trained. So the children of good candidates cost little,
which is what makes evolution affordable (Elsken, Metzen and Hutter, "Efficient Multi-Objective Neural Architecture
Search via Lamarckian Evolution", 2019).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import Candidate, Trial
from components.errors import UsageError
from components.search.interface import WEIGHTS, Ancestor, Assignment
from components.store import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

ROWS = 256  # by which layers that are put in between learn the scale of their features


@dataclass(frozen=True)
class _Birth:
    """Weights to start from, from whom they come, the share of them that does, and how far the two answer apart."""

    state: dict[str, Tensor]
    ancestor: int
    share: float
    difference: float

    @property
    def strangeness(self) -> float:
        """0 where everything was taken over and computes the same, 1 where nothing was and the answers have nothing in common:
        half of it for the weights that are new, half for the answers that differ."""
        return 0.5 * (1.0 - self.share) + 0.5 * min(1.0, self.difference)

    def give(self, network: nn.Module) -> None:
        network.load_state_dict(self.state)


class Inherit:
    """`share` is the part of the epochs that a candidate is trained for which begins by computing what its ancestor computes."""

    offers = frozenset({"epochs"})
    needs: frozenset[str] = frozenset()
    keeps_weights = True
    judges_on_folds = False  # the ancestor has been trained on rows that a fold would hold out

    def __init__(self, share: float = 0.25) -> None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise UsageError(f"evaluator.share is a part of the epochs above 0 and at most 1, got {share!r}")
        self.share = float(share)

    def evaluate(self, task: Assignment, scratch: Path, *, emit: Callable[..., Any]) -> Trial:
        """Raises `UsageError` with `search.folds`: the ancestor has been trained on rows that a fold would hold out."""
        from components.training.trial import failed, folds_asked  # imports torch, which the parent of a search does without

        started = time.monotonic()
        if folds_asked(task.config, task.dataset) is not None:
            raise UsageError("search.folds would judge a child on rows that its ancestor has learned; choose evaluator=train or folds=null")
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            birth = _birth(task, _ancestor(task, scratch), emit)
        except Exception as error:
            return failed(task.number, task.candidate, error, scratch, started)
        part = 1.0 if birth is None else self.share + (1.0 - self.share) * birth.strangeness
        trial = self._train(task, scratch, part, birth, emit)
        told = {} if birth is None else {"inherited_from": birth.ancestor, "inherited": round(birth.share, 4)}
        return trial.replace(fidelity={**trial.fidelity, **told}, seconds=round(time.monotonic() - started, 3))

    def _train(self, task: Assignment, scratch: Path, part: float, birth: _Birth | None, emit: Callable[..., Any]) -> Trial:
        from components.training.trial import planned_epochs, run_trial

        rows = task.config["search"].get("rows")
        full = math.ceil(part * (task.full_epochs or planned_epochs(task.dataset, task.config, rows)))
        rung = None if task.epochs is None else min(full, math.ceil(part * task.epochs))
        return run_trial(
            task.dataset, task.policy, task.candidate, task.config, task.number, scratch, task.seconds, rows, epochs=rung,
            full_epochs=full, prepare=birth.give if birth else None, weights=scratch / WEIGHTS, emit=emit,
        )  # fmt: skip


def _ancestor(task: Assignment, scratch: Path) -> Ancestor | None:
    """The ancestor that this trial was first given: when it goes on, another trial may be nearer."""
    note = scratch / "ancestor.json"
    if note.exists():
        kept = json.loads(note.read_text())
        return kept and Ancestor(number=kept["number"], candidate=Candidate.from_json(kept["candidate"]), weights=Path(kept["weights"]))
    found = task.ancestor
    body = found and {"number": found.number, "candidate": found.candidate.to_json(), "weights": str(found.weights)}
    write_atomically(note, json.dumps(body))
    return found


def _birth(task: Assignment, ancestor: Ancestor | None, emit: Callable[..., Any]) -> _Birth | None:
    """The candidate's first weights; None without an ancestor, or where its file is gone or does not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from components.models.inheritance import inherit
    from components.models.network import build_network
    from components.training.trial import seed_of_trial

    if ancestor is None:
        return None
    seed = seed_of_trial(task.config, task.number)
    child = build_network(task.config["space"], task.candidate, task.dataset, seed)
    parent = build_network(task.config["space"], ancestor.candidate, task.dataset, seed)
    try:
        parent.load_state_dict(load_file(ancestor.weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        emit("inherited", ancestor=ancestor.number, share=0.0, reason=f"weights {ancestor.weights} cannot be read: {error}")
        return None
    inputs = _some_rows(task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        share = inherit(child, parent.eval(), inputs)
    difference = _difference(child, parent, inputs)
    emit("inherited", ancestor=ancestor.number, share=round(share, 4), difference=round(difference, 4))
    return _Birth(child.state_dict(), ancestor.number, share, difference)


def _some_rows(task: Assignment) -> list[Tensor]:
    from components.training.batches import load_rows

    rows = load_rows(task.dataset, "train", limit=ROWS)
    return [rows.fields[field.name] for field in task.dataset.inputs]


def _difference(child: nn.Module, parent: nn.Module, inputs: Sequence[Tensor]) -> float:
    """How far the two answer apart, in deviations of the parent's answers; 0 where the function was preserved."""
    import torch

    was_training = child.training
    with torch.no_grad():
        ours, theirs = child.eval()(*inputs), parent(*inputs)
    child.train(was_training)
    return float((ours - theirs).square().mean().sqrt() / theirs.std().clamp_min(1e-12))
