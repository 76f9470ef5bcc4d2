"""The digits run, cold, seeds 0, 1 and 2: wall time, trials, accuracy, what each step adds, and where the time goes.

.venv/bin/python benchmarks/digits.py            about 12 minutes on two slow cores
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from measure import Run, machine, run, spread, state_folder, test_score

SEEDS = (0, 1, 2)
SWITCHED_OFF = ("augmentation=none", "distillation=none", "quantization=none", "distillation.weight=0")


def main() -> None:
    rows = [measure(seed) for seed in SEEDS]
    print(f"\ndigits, `athanor run seed=S`, cold process, S = {SEEDS}\n{machine()}\n")
    for name in dict.fromkeys(name for row in rows for name in row if name != "parts"):
        print(f"{name:<44} {spread([row[name] for row in rows if name in row])}")  # what is exported differs: fuse may choose a trial
    print("\nseconds in which no trial or training step runs, by part (mean)")
    for part in rows[0]["parts"]:
        print(f"  {part:<24} {statistics.mean(row['parts'][part] for row in rows):6.2f}")
    print("\nwith one step switched off, same budget, seed 0 (test accuracy of what was promoted)")
    print(f"  {'(all on)':<24} {rows[0]['promoted accuracy']:.4f}")
    for word in SWITCHED_OFF:
        with state_folder() as home:
            found = run(home, word)
            print(f"  {word:<24} {found.document['metrics']['accuracy']['value']:.4f}  {found.document['deployable']['name']}", flush=True)


def measure(seed: int) -> dict[str, Any]:
    """One cold run's figures."""
    with state_folder() as home:
        found = run(home, f"seed={seed}")
        records, parts = found.records(), idle_parts(found)
        trials = [trial for trial in records["search"].trials if trial.state == "complete"]
        dataset, objective = records["version"], records["search"].objective
        exported = {model.name: model for model in (*records["export"], *records["quantize"])}
        scores = {name: test_score(model, dataset, "accuracy") for name, model in exported.items()}
        return {
            "wall seconds": found.seconds,
            "trials completed": len(trials),
            "architectures among them": len({json.dumps(trial.candidate.architecture, sort_keys=True) for trial in trials}),
            "promoted accuracy": found.document["metrics"]["accuracy"]["value"],
            "validation: trial 0": next((t.values[objective] for t in trials if t.number == 0), float("nan")),
            "validation: best trial": records["search"].best_trial.values[objective],
            **{f"test: {name}": score for name, score in sorted(scores.items())},
            "seconds without a trial or training step": sum(parts.values()),
            "parts": parts,
        }


def idle_parts(found: Run) -> dict[str, float]:
    """Seconds of each part of the run in which neither a trial nor a training step was running."""
    events, document = found.events(), found.document
    stages = {name: row["seconds"] for name, row in document["stages"].items()}
    launch = next(row["launch_seconds"] for row in events if row["event"] == "run.started")
    records = found.records()
    stages["search"] -= _covered([row for row in events if row["event"].startswith("trial.")])
    for name in ("train", "distill"):
        stages[name] = max(0.0, stages[name] - records[name].seconds)
    rest = found.seconds - launch - sum(row["seconds"] for row in document["stages"].values())
    return {"start to first stage": launch, **stages, "report, tracking and exit": rest}


def _covered(events: list[dict[str, Any]]) -> float:
    """Seconds in which at least one trial was running."""
    running, covered, since = 0, 0.0, 0.0
    for row in events:
        if row["event"] == "trial.started":
            since = row["time"] if running == 0 else since
            running += 1
        elif row["event"] in ("trial.finished", "trial.failed") and running:
            running -= 1
            covered += row["time"] - since if running == 0 else 0.0
    return covered


if __name__ == "__main__":
    main()
