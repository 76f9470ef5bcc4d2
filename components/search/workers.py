"""How many trials run at once: as many as asked for, or as many as were measured not to slow each other down too much.

Cores may be shared, throttled or hyper-threads of each other, so their number alone does not say it: a few training
steps of a small network are run in one process, in two at once, and so on up to one per core.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.artifacts import JSON
from components.errors import UsageError
from components.processes import Worker, answer_of, available_cores
from components.store import write_atomically

MEASURING_SECONDS = 0.2
ROUNDS = 2  # of each number the best round counts: what else the machine did for a moment is no property of it
LEAST_SPEED = 1 / 3  # each of several processes must run at this share of the speed of one alone


def count_workers(asked: Any, num_trials: int, notes: Path, emit: Callable[..., Any]) -> int:
    """Processes for `num_trials` trials: a whole number, or `auto` for what was measured here (once, kept in `notes`).

    Raises `UsageError` for anything else.
    """
    if asked != "auto" and (not isinstance(asked, int) or isinstance(asked, bool) or asked < 1):
        raise UsageError(f"search.workers must be auto or a whole number of at least 1, got {asked!r}")
    cores = available_cores()
    most = cores if asked == "auto" else asked
    if asked != "auto" or min(most, num_trials) <= 1:
        return max(1, min(most, num_trials))
    rates = _remembered(notes, cores) or _measure_and_note(notes, cores)
    chosen = choose(rates)
    emit("search.workers", workers=chosen, cores=cores, steps_per_second={str(n): round(rate, 1) for n, rate in rates.items()})
    return min(chosen, num_trials)


def choose(rates: dict[int, float]) -> int:
    """The most processes of which each still runs at a fair speed.

    The rule is lax on purpose: an idle core costs more trials than two processes that now and then share one.

    >>> choose({1: 100.0, 2: 190.0, 4: 200.0, 8: 200.0})
    4
    """
    return max(count for count, rate in rates.items() if rate / count >= LEAST_SPEED * rates[1])


def measure(cores: int) -> dict[int, float]:
    """Training steps a second, all processes together, by number of processes: 1, 2, 4, ... and one per core.

    Of each number the best round counts."""
    counts = sorted({2**power for power in range(cores.bit_length()) if 2**power < cores} | {cores})
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in range(cores)]
        rounds = [{count: _rate(workers[:count]) for count in counts} for _ in range(ROUNDS)]
    return {count: max(rates[count] for rates in rounds) for count in counts}


def _rate(workers: list[Worker]) -> float:
    for worker in workers:
        worker.submit(steps_per_second, MEASURING_SECONDS)
    return sum(float(answer_of(worker)) for worker in workers)


def steps_per_second(seconds: float, *, emit: Any = None) -> float:
    """Training steps a second of a small convolutional network on one thread."""
    import torch

    torch.set_num_threads(1)
    layers = [torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, padding=1)]
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.LazyLinear(10))
    images_BCHW, targets_B = torch.rand(32, 1, 12, 12), torch.randint(10, (32,))
    steps, started = -2, time.perf_counter()  # the first two set things up
    while steps < 1 or time.perf_counter() - started < seconds:
        torch.nn.functional.cross_entropy(network(images_BCHW), targets_B).backward()
        steps += 1
        if steps == 0:
            started = time.perf_counter()
    return steps / (time.perf_counter() - started)


def _measure_and_note(notes: Path, cores: int) -> dict[int, float]:
    rates = measure(cores)
    write_atomically(notes, json.dumps({"cores": cores, "steps_per_second": rates}))
    return rates


def _remembered(notes: Path, cores: int) -> dict[int, float] | None:
    try:
        found: JSON = json.loads(notes.read_text())
        rates = {int(count): float(rate) for count, rate in found["steps_per_second"].items()}
        return rates if found["cores"] == cores and rates else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
