"""Which memory layout and thread count are fastest for a network here: measured in a few steps, then written down.

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
from components.store import write_atomically

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# A layout must be this much faster than plain contiguous to be chosen: noise must not decide.
CLEARLY = 0.9


def calibrate(network: nn.Module, inputs: Sequence[Tensor], *, threads: Sequence[int] = (1,), steps: int = 3) -> JSON:
    """The fastest of layouts and thread counts for a training step on `inputs`: `{"threads": n, "memory_format": name}`.

    The network is measured on copies and left as it is; a network without convolutions has no layout to choose.
    """
    formats = ["contiguous", "channels_last"] if any(isinstance(m, nn.Conv2d) for m in network.modules()) else ["contiguous"]
    choices = [(count, name) for count in threads for name in formats]
    if len(choices) == 1:
        return {"threads": choices[0][0], "memory_format": choices[0][1]}
    before = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            seconds = {choice: _step_seconds(network, inputs, *choice, steps) for choice in choices}
    finally:
        torch.set_num_threads(before)
    fastest = min(seconds, key=lambda choice: seconds[choice])
    plain = choices[0]
    chosen = fastest if seconds[fastest] < CLEARLY * seconds[plain] else plain
    return {"threads": chosen[0], "memory_format": chosen[1]}


def settle(network: nn.Module, inputs: Sequence[Tensor], written: JSON, training: JSON, scratch: Path | None) -> JSON:
    """The numerics to train with: the candidate's own if `written`, those an earlier session measured, or measured now.

    `training.memory_format` and `training.threads` other than `auto` are taken as they are.
    """
    if written:
        return written
    memory_format, threads = training.get("memory_format", "auto"), training.get("threads", 1)
    if memory_format != "auto" and memory_format not in FORMATS:
        raise UnknownNameError("training.memory_format", str(memory_format), ["auto", *FORMATS])
    if memory_format != "auto" and threads != "auto":
        return {"threads": int(threads), "memory_format": memory_format}
    kept = scratch / "numerics.json" if scratch else None
    if kept and kept.exists():
        return json.loads(kept.read_text())
    counts = sorted({1, torch.get_num_threads()}) if threads == "auto" else [int(threads)]
    numerics = calibrate(network, inputs, threads=counts)
    if memory_format != "auto":
        numerics["memory_format"] = memory_format
    if kept:
        write_atomically(kept, json.dumps(numerics))
    return numerics


def _step_seconds(network: nn.Module, inputs: Sequence[Tensor], threads: int, memory_format: str, steps: int) -> float:
    torch.set_num_threads(threads)
    trial = copy.deepcopy(network).to(memory_format=FORMATS[memory_format]).train()
    best = float("inf")
    for _ in range(steps + 1):
        started = time.perf_counter()
        trial(*inputs).square().mean().backward()
        best = min(best, time.perf_counter() - started)
    return best
