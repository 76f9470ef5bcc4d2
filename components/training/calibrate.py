"""Which memory layout, precision and thread count are fastest for a network here: measured in a few steps, then written down.

Bit-identity holds for one choice only, so a resumed or reproduced training uses what was written and never measures again.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from components.artifacts import JSON
from components.errors import UnknownNameError
from components.processes import available_cores
from components.store import write_atomically
from components.training import ranks
from components.training.failure import cause_of

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# bf16: convolutions and products in bfloat16, weights and the rest in float32 (autocast).
PRECISIONS = ("fp32", "bf16")
PLAIN: JSON = {"threads": 1, "memory_format": "contiguous", "precision": "fp32"}
# What is measured unless a setting says otherwise: the layout alone. bf16 took 2/3 of the time a step on Fashion-MNIST
# and lost more than that time was worth: test accuracy 0.9145 in 12 epochs against 0.9187 in 10 (one seed each).
USUAL: JSON = {"threads": 1, "memory_format": "auto", "precision": "fp32"}
# A choice must be this much faster than what is simpler: noise must not decide.
CLEARLY = 0.85
WATCHED = 4  # times as many steps of several threads


def calibrate(
    network: nn.Module,
    inputs: Sequence[Tensor],
    *,
    threads: Sequence[int] = (1,),
    precisions: Sequence[str] = PRECISIONS,
    steps: int = 3,
    device: str = "cpu",
) -> JSON:
    """The fastest numerics for a training step on `inputs`: `{"threads": n, "memory_format": name, "precision": name}`.

    They are measured on `device` (cpu, cuda), with half the rows where memory does not do for all, on copies of the network.
    A network without convolutions has only its threads to choose.
    """
    chosen = {**PLAIN, "threads": threads[0], "precision": precisions[0]}
    options: dict[str, Sequence[object]] = {"threads": threads}
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        options |= {"memory_format": list(FORMATS), "precision": precisions}
    if all(len(values) == 1 for values in options.values()):
        return chosen
    before = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            return _fastest(network, inputs, chosen, options, steps, device)
    except (RuntimeError, MemoryError) as error:
        if cause_of(error) != "oom" or len(inputs[0]) < 2:
            raise
    finally:
        torch.set_num_threads(before)
    fewer = [values[: len(values) // 2] for values in inputs]
    return calibrate(network, fewer, threads=threads, precisions=precisions, steps=steps, device=device)


def _fastest(
    network: nn.Module, inputs: Sequence[Tensor], chosen: JSON, options: dict[str, Sequence[object]], steps: int, device: str
) -> JSON:
    """One choice after another, each kept if clearly faster than the best so far."""
    best = min(_step_seconds(network, inputs, chosen, steps, device))
    for name, values in options.items():
        for value in values:
            if value == chosen[name]:
                continue
            # Threads wait for each other: where others use the machine too, one step in a few costs many times the best.
            often = WATCHED * steps if name == "threads" else steps
            taken = _step_seconds(network, inputs, {**chosen, name: value}, often, device)
            if (max(taken) if name == "threads" else min(taken)) < CLEARLY * best:
                chosen, best = {**chosen, name: value}, min(taken)
    return chosen


def settle(
    network: nn.Module, inputs: Sequence[Tensor], written: JSON, training: JSON, scratch: Path | None, *, alone: bool = False,
    device: str = "cpu",
) -> JSON:  # fmt: skip
    """The numerics to train with: the candidate's own if `written`, those an earlier session measured, or measured now.

    `training.threads`, `training.memory_format` and `training.precision` other than `auto` are taken as they are. A
    training that has the machine `alone` also measures whether a thread per core is faster than one; trials, which run
    side by side, take one each. In a group of processes rank 0 measures for all.
    """
    return ranks.shared(lambda: _settled(network, inputs, written, training, scratch, alone=alone and ranks.own().size == 1, device=device))


def _settled(
    network: nn.Module, inputs: Sequence[Tensor], written: JSON, training: JSON, scratch: Path | None, *, alone: bool, device: str
) -> JSON:
    fixed = _fixed(training)
    choose_threads = alone and "threads" not in fixed and device == "cpu"
    if written and not choose_threads:
        return written
    if len(fixed) == len(PLAIN):
        return fixed
    kept = scratch / "numerics.json" if scratch else None
    if kept and kept.exists():
        return json.loads(kept.read_text())
    counts = sorted({1, available_cores()}) if choose_threads else [fixed.get("threads", 1)]
    precisions = [fixed["precision"]] if "precision" in fixed else PRECISIONS
    numerics = {**calibrate(network, inputs, threads=counts, precisions=precisions, device=device), **fixed}
    if kept:
        write_atomically(kept, json.dumps(numerics))
    return numerics


def _fixed(training: JSON) -> JSON:
    """The settings that leave nothing to measure. Raises `UnknownNameError` for a layout or precision that does not exist."""
    settings: JSON = {name: training.get(name, usual) for name, usual in USUAL.items()}
    for name, known in (("memory_format", tuple(FORMATS)), ("precision", PRECISIONS)):
        if settings[name] not in ("auto", *known):
            raise UnknownNameError(f"training.{name}", str(settings[name]), ["auto", *known])
    fixed = {name: value for name, value in settings.items() if value != "auto"}
    return {**fixed, "threads": int(fixed["threads"])} if "threads" in fixed else fixed


def _step_seconds(network: nn.Module, inputs: Sequence[Tensor], numerics: JSON, steps: int, device: str) -> list[float]:
    """Seconds of each step after the first: what one thread used, whatever other processes do meanwhile; several threads,
    or a GPU, by the clock."""
    clock = time.thread_time if numerics["threads"] == 1 and device == "cpu" else time.perf_counter
    torch.set_num_threads(numerics["threads"])
    trial = copy.deepcopy(network).to(device, memory_format=FORMATS[numerics["memory_format"]]).train()
    inputs = [values.to(device) for values in inputs]
    found = []
    for _ in range(steps + 1):
        started = clock()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=numerics["precision"] == "bf16"):
            loss = trial(*inputs).float().square().mean()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(clock() - started)
    return found[1:]
