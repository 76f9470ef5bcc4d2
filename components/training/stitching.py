"""A training that begins with stages of trained networks: every possible stitch is judged, the best one is the start.

    space, start = begin_stitched(candidate, parents, config, dataset, seed)
    train_model(..., {**config, "space": space}, ..., start=start)

A stitch is judged by a few steps of training: all of it on half of some training rows, and the loss on the other half
counts; twice, from other first weights and with the halves exchanged, for one draw says more of itself than of the stitch.
On Fashion-MNIST that tells stitches apart as their training does; with the inherited stages at rest it does so less, and
scores that need no training (NASWOT, a linear probe of the first features, the share of what is inherited) do not.
`benchmarks/inheritance.py --every` measures it.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.artifacts import JSON, Candidate, DatasetVersion
from components.errors import UsageError
from components.models.lending import lend
from components.models.network import build_network, load_network, num_parameters
from components.models.parent import Parent, require_intact, require_kin
from components.models.stitches import Base, Stitch, possible
from components.store import write_atomically
from components.training import ranks
from components.training.batches import Rows, load_rows, seed_of
from components.training.rows import BATCH_BYTES
from components.training.tuning import Start
from components.workspace import Workspace

ROWS, LEAST_ROWS = 256, 16  # by which adapters and running statistics are set; the fewer the larger they are
JUDGED_ROWS, STEPS, STEP_ROWS, STEP_RATE = 1024, 60, 64, 5e-3
# Of the training, in which the inherited stages rest: what is new learns to read them before it may change them.
RESTING = 0.2
# Of the time that there is, for judging; what is not judged by then is not chosen.
JUDGING = 0.15


def begin_stitched(
    candidate: Candidate, parents: Sequence[Parent], config: JSON, dataset: DatasetVersion, seed: int, work: Workspace
) -> tuple[JSON, Start]:
    """The space and the start of the best network of `candidate`'s shape in which stages of the parents' are put.

    `config` holds space and perhaps constraint (`num_parameters`). Judges within a part of `work.seconds`, if they are
    given, and once: what was chosen is kept in `work.scratch`. Raises `UsageError` where nothing fits, `DataError` for a parent's weights.
    """
    if not parents:
        raise UsageError("inherit=stages needs a parent to take stages from; name one by parent=run:ID, file:PATH or mlflow:models:/NAME")
    for parent in parents:
        require_kin(parent, dataset)
        require_intact(parent)
    stitches = stitches_of(candidate, parents, config, dataset)
    number = ranks.shared(lambda: _kept(work.scratch, lambda: _best(stitches, candidate, dataset, seed, work.left(), work.emit)))
    return stitches[number].space, start_of(stitches[number], candidate, dataset, seed)


def stitches_of(candidate: Candidate, parents: Sequence[Parent], config: JSON, dataset: DatasetVersion) -> list[Stitch]:
    """All stitches that keep the limit on parameters. Raises `UsageError` where there is none."""
    norm = candidate.architecture.get("norm", "batch") == "batch"
    found = possible(Base.of(config["space"], candidate, dataset), [Base.of_parent(parent) for parent in parents], norm)
    most = (config.get("constraint") or {}).get("num_parameters")
    if most is None:
        return found
    sizes = [size_of(stitch, candidate, dataset) for stitch in found]
    if min(sizes) > most:
        raise UsageError(
            f"constraint.num_parameters={most} leaves no network with a stage of the parent's, the smallest has {min(sizes)}; "
            "allow more, name a smaller parent or choose inherit=none"
        )
    return [stitch for stitch, size in zip(found, sizes) if size <= most]


def size_of(stitch: Stitch, candidate: Candidate, dataset: DatasetVersion) -> int:
    """How many numbers the stitched network trains."""
    with torch.device("meta"):
        return num_parameters(build_network(stitch.space, _stitched(stitch, candidate), dataset, 0))


def start_of(stitch: Stitch, candidate: Candidate, dataset: DatasetVersion, seed: int) -> Start:
    """The stitched network with its first weights; its inherited stages rest while the new parts learn to read them."""
    new = _stitched(stitch, candidate)
    network = build_network(stitch.space, new, dataset, seed)
    lenders = {number: load_network(base.parent.model, base.parent.dataset) for number, base in enumerate(stitch.bases) if base.parent}
    field = dataset.inputs[0]
    count = max(LEAST_ROWS, min(ROWS, BATCH_BYTES // (4 * math.prod(field.shape))))
    image = load_rows(dataset, "train", limit=count, seed=seed).fields[field.name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "stitch"))
        inherited = lend(network, stitch.architecture, lenders, image)
    taken = sum(num_parameters(network.get_submodule(name)) for name in inherited)
    facts = {"inherit": "stages", "stages": stitch.words, "inherited": round(taken / num_parameters(network), 4)}
    parents = tuple(parent.model.identity for parent in stitch.parents)
    return Start(network, new, joins=dict.fromkeys(inherited, RESTING), facts=facts, parents=parents)


def _stitched(stitch: Stitch, candidate: Candidate) -> Candidate:
    """The candidate with the stitch as its architecture; its numerics are to be measured anew."""
    return candidate.replace(architecture=stitch.architecture, numerics={})


# ---- which stitch ----


def _kept(scratch: Path | None, choose: Callable[[], int]) -> int:
    """What was chosen before, else what is chosen now."""
    kept = scratch / "stitch.json" if scratch else None
    if kept and kept.exists():
        return int(json.loads(kept.read_text())["number"])
    number = choose()
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps({"number": number}))
    return number


def _best(
    stitches: Sequence[Stitch], candidate: Candidate, dataset: DatasetVersion, seed: int, seconds: float | None, emit: Callable[..., Any]
) -> int:
    """The number of the stitch with the best score."""
    rows = load_rows(dataset, "train", limit=JUDGED_ROWS, seed=seed)
    started, scores = time.monotonic(), list[float]()
    for number, stitch in enumerate(stitches):
        if scores and seconds is not None and time.monotonic() - started > JUDGING * seconds:
            break
        scores.append(judged(stitch, candidate, rows, dataset, seed))
        emit("stitch", number=number + 1, of=len(stitches), stages=stitch.words, loss=round(-scores[-1], 4))
    best = max(range(len(scores)), key=lambda number: -math.inf if math.isnan(scores[number]) else scores[number])
    emit("stitched", stages=stitches[best].words, loss=round(-scores[best], 4), judged=len(scores), of=len(stitches))
    return best


def judged(stitch: Stitch, candidate: Candidate, rows: Rows, dataset: DatasetVersion, seed: int) -> float:
    """The mean score of a stitch over both halves of the rows."""
    seeds = [seed_of(seed, "judge", fold) for fold in range(2)]
    return statistics.fmean(score(start_of(stitch, candidate, dataset, own), rows, dataset, own, fold) for fold, own in enumerate(seeds))


def score(start: Start, rows: Rows, dataset: DatasetVersion, seed: int, fold: int = 0) -> float:
    """How well a network does after a few steps of training all of it on one half of the rows: the negative loss on the other.

    The rate falls to nothing, for else the last steps' noise is larger than the difference between two stitches.
    """
    network, halves = start.network, torch.arange(len(rows)).chunk(2)
    learned, held_out = halves[fold % len(halves)], halves[(fold + 1) % len(halves)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=STEP_RATE)
    generator = torch.Generator().manual_seed(seed_of(seed, "score"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "score"))
        network.train()
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = STEP_RATE * (1 - step / STEPS)
            optimizer.zero_grad()
            _loss(network, rows, learned[torch.randint(len(learned), (STEP_ROWS,), generator=generator)], dataset).backward()
            optimizer.step()
    with torch.no_grad():
        network.eval()
        return -sum(float(_loss(network, rows, part, dataset)) * len(part) for part in held_out.split(STEP_ROWS)) / len(held_out)


def _loss(network: nn.Module, rows: Rows, index: Tensor, dataset: DatasetVersion) -> Tensor:
    fields, targets = rows.at(index)
    outputs = network(*(fields[field.name] for field in dataset.inputs))
    if dataset.task == "classification":
        return functional.cross_entropy(outputs, targets)
    return functional.mse_loss(outputs.squeeze(-1), targets)
