"""The processes that train one network together: who this one is, and how they come to agree.

Alone a process is rank 0 of 1, agrees with itself at no cost, and nothing of torch.distributed is touched. Decisions
(the clock, validation's figures, when to stop) are rank 0's and shared as JSON: nothing is pickled.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from components import processes

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# A rank may wait while rank 0 judges; one that died is seen by torchrun, which ends the rest.
PATIENCE = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Group:
    """Which of how many this process is."""

    rank: int = 0
    size: int = 1


_group = Group()


def own() -> Group:
    """The group this process belongs to: itself alone, unless it joined one."""
    return _group


def join(store: Path, accelerator: str) -> Group:
    """Meets the other processes that torchrun started, at a file: no port is opened beyond this machine."""
    global _group
    import torch.distributed

    _group = Group(rank=int(os.environ["RANK"]), size=int(os.environ["WORLD_SIZE"]))
    if accelerator == "gpu":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if accelerator == "gpu" else "gloo", init_method=f"file://{store}", rank=_group.rank,
        world_size=_group.size, timeout=PATIENCE,
    )  # fmt: skip
    return _group


def shared(make: Callable[[], T]) -> T:
    """What `make` gives on rank 0, on every rank: a JSON value. The others do not call it."""
    if _group.size == 1:
        return make()
    import torch
    from torch import distributed

    told = list(json.dumps(make()).encode()) if _group.rank == 0 else []
    length = torch.tensor([len(told)])
    distributed.broadcast(length, 0)
    text = torch.tensor(told, dtype=torch.uint8) if told else torch.empty(int(length), dtype=torch.uint8)
    distributed.broadcast(text, 0)
    return json.loads(bytes(text.tolist()))  # type: ignore[no-any-return]


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, on each of them."""
    if _group.size == 1:
        return values
    from torch import distributed

    total = values.clone()
    distributed.all_reduce(total)
    return total


class Clock:
    """Seconds that every rank reads alike, and whether rank 0 was asked to stop: both stand still between two ticks."""

    def __init__(self) -> None:
        self._now, self._is_asked_to_stop = 0.0, False
        self.tick()

    def tick(self) -> None:
        """Reads rank 0's clock. Every rank must call it at the same places."""
        if _group.size > 1:
            import torch
            from torch import distributed

            told = torch.tensor([time.monotonic(), float(processes.is_asked_to_stop())], dtype=torch.float64)
            distributed.broadcast(told, 0)
            self._now, self._is_asked_to_stop = float(told[0]), bool(told[1])

    def __call__(self) -> float:
        return time.monotonic() if _group.size == 1 else self._now

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether this process, or rank 0, was sent SIGTERM."""
        return processes.is_asked_to_stop() if _group.size == 1 else self._is_asked_to_stop


def spans(config: dict[str, Any]) -> bool:
    """Whether a full training with this configuration is to be started as a group of processes."""
    from components.build import build

    return _group.size == 1 and "trainer" in config and bool(build(config["trainer"]).devices > 1)
