"""`evaluator=inherit` against `evaluator=train`: training epochs that evolution needs to the same best accuracy, on Fashion-MNIST.

Each seed runs one study with `train` and one with `inherit` and compares the epochs of the first with those after which
the second had its best validation accuracy; then the same for the best accuracy so far on the mean over the seeds. Both
have the same 10,000 training rows and 5,000 validation rows, the same space, strategy and seed, one worker, no time limit.
The best trials' own weights are judged once on Fashion-MNIST's test file. The space is `convnet` with networks a third as
wide, so that three seeds take an hour of one core. With `--out` studies are kept, and the command with more seeds goes on.

.venv/bin/python benchmarks/inherit.py [--data FOLDER] [--seeds 3] [--trials 30] [--epochs 8] [--rows 10000] [--widths 8,12,16]
    [--out FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, choice, machine, spread

Curve = list[tuple[float, float]]  # training epochs so far and the best accuracy so far, trial by trial
MORE = 2  # times the trials, as each is trained for fewer epochs; what goes beyond the same number of epochs does not count


def main() -> None:
    arguments = _arguments()
    with contextlib.nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory(prefix="athanor-inherit-") as folder:
        home = Path(folder)
        os.environ["ATHANOR_HOME"] = str(home)
        dataset = _subset(arguments.data, arguments.rows, home / "data")
        print(f"Fashion-MNIST, {dataset.splits['train']} training and {dataset.splits['validation']} validation rows, evolution, "
              f"{arguments.trials} trials of {arguments.epochs} epochs, widths {arguments.widths}, n={arguments.seeds} seeds\n"
              f"{machine()}\n",
              flush=True)  # fmt: skip
        pairs = [_compare(dataset, arguments, seed, home) for seed in range(arguments.seeds)]
    tell(pairs)


def tell(pairs: list[tuple[Curve, Curve]]) -> None:
    """What the curves of train and of inherit say together."""
    ratios = [_epochs_to(inherit, train[-1][1], train[-1][0]) / train[-1][0] for train, inherit in pairs]
    reached = [ratio for ratio in ratios if math.isfinite(ratio)]
    print(f"\nreached in {len(reached)} of {len(ratios)} seeds; epochs of inherit over those of train: "
          f"{spread(reached, 2) if reached else '-'}, median {statistics.median(ratios):.2f}")  # fmt: skip
    total = min(train[-1][0] for train, _ in pairs)
    ends = sorted({epochs for _, inherit in pairs for epochs, _ in inherit if epochs <= total})
    best, *values = (statistics.mean(_best(curve, at) for curve in curves) for curves, at in
                     [([train for train, _ in pairs], total), *(([inherit for _, inherit in pairs], end) for end in ends)])  # fmt: skip
    at = next((end for end, value in zip(ends, values) if value >= best), math.inf)
    print(f"on the mean over the seeds: train {best:.4f} after all its {total:.0f} epochs, inherit the same after {at:.0f} "
          f"({at / total:.2f}), {values[-1]:.4f} at equal epochs")  # fmt: skip


def _compare(dataset: Any, arguments: argparse.Namespace, seed: int, home: Path) -> tuple[Curve, Curve]:
    """The curves of train and of inherit."""
    started = time.monotonic()
    train = _search(dataset, arguments, seed, "train", arguments.trials, home)
    inherit = _search(dataset, arguments, seed, "inherit", MORE * arguments.trials, home)
    total = _curve(train)[-1][0]
    best = _curve(train)[-1][1]
    needed = next(epochs for epochs, value in _curve(train) if value >= best)
    at, equal = _epochs_to(_curve(inherit), best, total), _best(_curve(inherit), total)
    tests = [_on_test(dataset, arguments, result, home / f"{name}-{seed}") for name, result in (("train", train), ("inherit", inherit))]
    print(f"seed {seed}: train {best:.4f} after {needed:.0f} of {total:.0f} epochs (test {tests[0]:.4f}); inherit the same after {at:.0f} "
          f"({at / total:.2f} of all, {at / needed:.2f} of those needed), {equal:.4f} at equal epochs (test {tests[1]:.4f}); "
          f"{(time.monotonic() - started) / 60:.1f} min", flush=True)  # fmt: skip
    return _curve(train), _curve(inherit)


def _epochs_to(curve: Curve, value: float, most: float) -> float:
    """Epochs until a curve reaches a value; infinite where it takes more than `most`."""
    return next((epochs for epochs, found in curve if found >= value and epochs <= most), math.inf)


def _best(curve: Curve, epochs: float) -> float:
    """The best value after so many epochs, 0 before the first."""
    return max((value for at, value in curve if at <= epochs), default=0.0)


def _search(dataset: Any, arguments: argparse.Namespace, seed: int, evaluator: str, trials: int, home: Path) -> Any:
    from components.search.search import search
    from components.workspace import Workspace

    config = {name: choice(f"{name}/{member}") for name, member in (("scheduler", "none"), ("runner", "process"))}
    config |= {"space": _space(arguments), "strategy": choice("strategy/evolution"), "evaluator": choice(f"evaluator/{evaluator}")}
    if evaluator == "train":
        config["evaluator"]["keep_weights"] = True
    config |= {
        "optimizer": {"adamw": choice("optimizer/adamw")}, "training": {"memory_format": "channels_last", "precision": "fp32"},
        "metrics": {"objective": None}, "search": {"trials": trials, "workers": 1, "epochs": arguments.epochs, "rows": None},
    }  # fmt: skip
    place = home / f"{evaluator}-{seed}"
    return search(dataset, _policy(), config, Workspace(out=place / "out", scratch=place / "study", seed=seed))


def _space(arguments: argparse.Namespace) -> dict[str, Any]:
    return choice("space/convnet") | {"widths": [int(width) for width in arguments.widths.split(",")]}


def _curve(result: Any) -> Curve:
    """Training epochs so far and the best accuracy so far, trial by trial."""
    epochs, best, curve = 0.0, 0.0, []
    for trial in result.trials:
        epochs += trial.fidelity.get("epochs", 0.0)
        best = max(best, trial.values.get("accuracy", 0.0))
        curve.append((epochs, best))
    return curve


def _on_test(dataset: Any, arguments: argparse.Namespace, result: Any, place: Path) -> float:
    """Accuracy on the test file of the best trial's own weights."""
    from safetensors.torch import load_file

    from components.models.network import build_network
    from components.training.batches import load_rows
    from components.training.learner import validate

    network = build_network(_space(arguments), result.best, dataset, 0)
    network.load_state_dict(load_file(place / "study" / "trials" / str(result.best_number) / "weights.safetensors"))
    return validate(network.eval(), dataset, load_rows(dataset, "test"), "accuracy")["accuracy"]


def _subset(folder: Path, rows: int, out: Path) -> Any:
    """Fashion-MNIST with `rows` of its training and half as many of its validation rows, the first of each."""
    from components.artifacts import StoredFile
    from components.data.version import version
    from components.workspace import Workspace

    config = {"dataset": {**choice("dataset/idx"), "path": str(folder)}, "split": {"validation": 0.15, "test": 0.2}}
    dataset = version(config, Workspace(out=out))
    kept = {"train": rows, "validation": min(rows // 2, dataset.splits["validation"])}
    files = dict(dataset.files)
    for name, file in dataset.files.items():
        split = name.split("/")[0]
        if split in kept:
            path = out / f"first-{name.replace('/', '-')}.npy"
            np.save(path, np.load(file.path)[: kept[split]])
            files[name] = StoredFile.of(path)
    return dataset.replace(files=files, splits={**dataset.splits, **kept}, digest=f"{dataset.digest[:32]}-first-{rows}")


def _policy() -> Any:
    from components.artifacts import AugmentationPolicy

    return AugmentationPolicy(name="none", modality="image", config=choice("augmentation/none"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    base = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=base / "fashion-mnist")
    for name, default in (("seeds", 3), ("trials", 30), ("epochs", 8), ("rows", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--widths", default="8,12,16", help="channels of the first stage to choose from")
    parser.add_argument("--out", type=Path, help="a folder that keeps the studies; without it they are not kept")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        raise SystemExit(f"no folder {arguments.data}; name it by --data or set ATHANOR_DATA")
    return arguments


if __name__ == "__main__":
    main()
