"""Two workers against one: the same real trials on digits, trained to their end, and the wall-clock time that they took.

.venv/bin/python benchmarks/workers.py            about 8 minutes on two free cores
.venv/bin/python benchmarks/workers.py --trials 4 --repeats 1

The random strategy suggests the same candidates however many workers there are, and the memory layout is not measured but
given, so both do the same work to the last bit. The time is
from the start of the first trial to the end of the last; loading torch, once, comes before it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import machine, spread

from components import processes
from components.artifacts import AugmentationPolicy, DatasetVersion
from components.workspace import Workspace


def seconds_of(
    dataset: DatasetVersion, policy: AugmentationPolicy, config: dict[str, Any], workers: int, folder: Path
) -> tuple[float, list[Any]]:
    """Seconds from the first trial's start to the last one's end, and what the trials came to."""
    from components.search.search import search

    moments = []

    def emit(event: str, **fields: Any) -> None:
        if event in ("trial.started", "trial.finished", "trial.failed"):
            moments.append(time.monotonic())

    chosen = {**config, "search": {**config["search"], "workers": workers}}
    work = Workspace(out=folder / "out", scratch=folder / "study", emit=emit)
    result = search(dataset, policy, chosen, work)
    return moments[-1] - moments[0], [(t.number, t.state, t.values) for t in result.trials]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--trials", type=int, default=16)
    words.add_argument("--repeats", type=int, default=3)
    asked = words.parse_args()
    from components.augmentation.augment import augment
    from components.data.version import version
    from components.search.workers import steps_per_second
    from flows.config import load

    processes.start()
    same = ["strategy=random", "training.memory_format=channels_last", "budget=null"]
    config = load(["dataset=digits", *same, f"search.trials={asked.trials}"]).values
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="athanor-workers-") as name:
        folder = Path(name)
        dataset = version(config, Workspace(out=folder / "data"))
        policy = augment(dataset, config, Workspace(out=folder / "policy"))
        with processes.Worker() as warm:  # the first fork waits for torch
            warm.call(steps_per_second, 0.1)
        for repeat in range(asked.repeats):
            outcomes = []
            for workers in (1, 2) if repeat % 2 == 0 else (2, 1):
                seconds, outcome = seconds_of(dataset, policy, config, workers, folder / f"{workers}-{repeat}")
                found[workers].append(seconds)
                outcomes.append(outcome)
            assert outcomes[0] == outcomes[1], "the two did not do the same work"
    ratios = [one / two for one, two in zip(found[1], found[2])]
    print(machine())
    print(f"{asked.trials} trials, seconds with one worker {spread(found[1], 1)}, with two {spread(found[2], 1)}")
    print(json.dumps({"trials": asked.trials, "repeats": asked.repeats, "speed_up": round(statistics.mean(ratios), 2), "ratios": ratios}))


if __name__ == "__main__":
    main()
