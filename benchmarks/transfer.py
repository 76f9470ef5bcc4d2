"""Every method of `finetune=` against training from fresh weights: a parent of Fashion-MNIST's classes 0-4, children of 5-9.

For each seed a parent learns the first five classes; then the other five are learned from 50, 200 and 1,000 rows, from
the parent by each method and from fresh weights (`none`): the same rows, network, hyper-parameters, number of steps and
validation rows (as many as training rows, at most 500), which choose the epoch. What counts is the accuracy on the 5,000
rows of the test file. The interval is Student's, of the difference to `none` (and of lora to full) on the same seed.

.venv/bin/python benchmarks/transfer.py [--data FOLDER] [--seeds 5] [--first-seed 0] [--rows 50,200,1000] [--steps 200]
                                        [--methods full,lora] [--set lora.rank=3]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from measure import ROOT, choice, interval, machine

CLASSES = {"parent": (0, 1, 2, 3, 4), "child": (5, 6, 7, 8, 9)}
PARENT_ROWS, PARENT_EPOCHS, MOST_VALIDATION = 10_000, 4, 500
BATCH = 32
ARCHITECTURE = {
    "block": "residual", "width": 32, "growth": 2.0, "depths": [1, 1], "kernel": 3, "downsample": "max", "pooling": "average",
    "activation": "relu", "norm": "batch", "largest_side": 8,
}  # fmt: skip
# Without label smoothing, which makes features that tell the parent's own classes apart and little else (Kornblith et al.,
# "Why Do Better Loss Functions Lead to Less Transferable Features?", 2021); a parent trained for longer did worse as well.
HOW = {
    "optimizer": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-2, "batch_size": BATCH, "dropout": 0.1, "label_smoothing": 0.0,
    "augmentation_strength": 0.0,
}  # fmt: skip


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="athanor-transfer-") as folder:
        os.environ["ATHANOR_HOME"] = folder
        bench = Bench(arguments, Path(folder))
        print(f"Fashion-MNIST, classes 5-9 from a parent of 0-4, {arguments.steps} steps of {BATCH} rows, n={arguments.seeds} "
              f"seeds from {arguments.first_seed}\n{machine()}\n", flush=True)  # fmt: skip
        found: dict[tuple[str, int], list[float]] = {}
        started = time.monotonic()
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            parent = bench.parent(seed)
            for rows in arguments.rows:
                for method in ("none", *arguments.methods):
                    found.setdefault((method, rows), []).append(bench.child(parent, method, rows, seed))
                print(f"seed {seed}, {rows} rows: " + ", ".join(f"{m} {found[m, rows][-1]:.4f}" for m in ("none", *arguments.methods)) +
                      f"; {time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
    _tell(found, bench.trained, arguments)


class Bench:
    """The data of parents and children, and their trainings."""

    def __init__(self, arguments: argparse.Namespace, home: Path) -> None:
        self.arguments, self.home = arguments, home
        self.whole = _version(arguments.data, home / "data")
        self.methods = {name: choice(f"finetune/{name}") for name in arguments.methods}
        for word in arguments.set:
            name, _, value = word.partition("=")
            method, _, key = name.partition(".")
            self.methods[method][key] = yaml.safe_load(value)
        self.trained: dict[str, tuple[int, int]] = {}

    def parent(self, seed: int) -> Any:
        from components.models.parent import Parent

        data = _subset(self.whole, CLASSES["parent"], PARENT_ROWS, self.home / f"parent-{seed}", seed)
        how = {**HOW, "batch_size": 128}
        return Parent.of(self._train(data, {}, how, PARENT_EPOCHS, seed, self.home / f"parent-{seed}" / "out"), data)

    def child(self, parent: Any, method: str, rows: int, seed: int) -> float:
        """Accuracy on the test file."""
        from components.models.network import load_network
        from components.models.parent import adopting
        from components.training.batches import load_rows
        from components.training.learner import validate

        place = self.home / f"{method}-{rows}-{seed}"
        data = _subset(self.whole, CLASSES["child"], rows, place, seed)
        config = {} if method == "none" else {**adopting({}, parent), "finetune": {method: self.methods[method]}}
        epochs = math.ceil(self.arguments.steps / (rows // BATCH))
        model = self._train(data, config, HOW, epochs, seed, place / "out")
        self.trained[method] = model.adopted.get("trained_parameters", model.num_parameters), model.num_parameters
        return validate(load_network(model, data), data, load_rows(data, "test"), "accuracy")["accuracy"]

    def _train(self, data: Any, config: dict[str, Any], how: dict[str, Any], epochs: int, seed: int, out: Path) -> Any:
        from components.artifacts import AugmentationPolicy, Candidate
        from components.training.train import train
        from components.workspace import Workspace

        config = {"space": choice("space/convnet"), **config, "optimizer": {"adamw": choice("optimizer/adamw")}, "metrics": {}}
        config["training"] = {"epochs": epochs, "threads": 1, "memory_format": "contiguous", "precision": "fp32"}
        policy = AugmentationPolicy(name="none", modality="image", config=choice("augmentation/none"))
        candidate = Candidate(space="convnet", architecture=ARCHITECTURE, hyperparameters=how)
        return train(data, policy, candidate, config, Workspace(out=out, seed=seed))


def _tell(found: dict[tuple[str, int], list[float]], trained: dict[str, tuple[int, int]], arguments: argparse.Namespace) -> None:
    heads = " | ".join(f"{rows} rows: test accuracy | difference to none" for rows in arguments.rows)
    print(f"\n| method | trained parameters | {heads} |")
    print("|---|---|" + "---|---|" * len(arguments.rows))
    for method in ("none", *arguments.methods):
        cells = []
        for rows in arguments.rows:
            cells += [f"{100 * statistics.mean(found[method, rows]):.2f} %", "" if method == "none" else
                      _interval(found[method, rows], found["none", rows])]  # fmt: skip
        count, total = trained[method]
        print(f"| {method} | {count:,} ({count / total:.1%}) | " + " | ".join(cells) + " |")
    if {"lora", "full"} <= set(arguments.methods):
        print("\nlora to full, in points: " + ", ".join(f"{rows} rows {_interval(found['lora', rows], found['full', rows])}" for rows in
                                                        arguments.rows))  # fmt: skip


def _interval(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Mean of the paired differences in points, with its 95 % interval."""
    differences = [100 * (one - other) for one, other in zip(ours, theirs, strict=True)]
    if len(differences) < 2:
        return f"{differences[0]:+.2f}"
    low, high = interval(differences)
    return f"{statistics.mean(differences):+.2f} [{low:+.2f}, {high:+.2f}]"


def _version(folder: Path, out: Path) -> Any:
    from components.data.version import version
    from components.workspace import Workspace

    config = {"dataset": {**choice("dataset/idx"), "path": str(folder)}, "split": {"validation": 0.15, "test": 0.2}}
    return version(config, Workspace(out=out))


def _subset(whole: Any, classes: Sequence[int], rows: int, out: Path, seed: int) -> Any:
    """Rows of some classes, renumbered: `rows` drawn by the seed for training, evenly over the classes, as many at most for
    validation, all for test."""
    from components.artifacts import StoredFile

    out.mkdir(parents=True)
    files: dict[str, StoredFile] = {}
    sizes: dict[str, int | None] = {"train": rows, "validation": min(rows, MOST_VALIDATION), "test": None}
    arrays: dict[str, np.ndarray] = {}
    for number, (split, most) in enumerate(sizes.items()):
        target = np.load(whole.files[f"{split}/target"].path)
        rng = np.random.default_rng([seed, number])
        each = None if most is None else int(most) // len(classes)
        index = np.sort(np.concatenate([rng.permutation(np.flatnonzero(target == label))[:each] for label in classes]))
        image = np.load(whole.files[f"{split}/{whole.inputs[0].name}"].path, mmap_mode="r")[index]
        arrays |= {f"{split}/{whole.inputs[0].name}": image, f"{split}/target": np.searchsorted(classes, target[index])}
    for name, array in arrays.items():
        path = out / f"{name.replace('/', '-')}.npy"
        np.save(path, array)
        files[name] = StoredFile.of(path)
    image = arrays[f"train/{whole.inputs[0].name}"].astype(np.float64)
    field = whole.inputs[0].replace(mean=(float(image.mean()),), std=(float(image.std()),))
    return whole.replace(
        name=f"fashion-{classes[0]}-{classes[-1]}", digest=f"{whole.digest[:32]}-{classes[0]}-{rows}-{seed}", inputs=(field,), files=files,
        classes=tuple(whole.classes[label] for label in classes), splits={s: len(arrays[f"{s}/target"]) for s in sizes},
    )  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    base = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=base / "fashion-mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=lambda text: [int(word) for word in text.split(",")], default=[50, 200, 1000])
    every = sorted(path.stem for path in (ROOT / "conf" / "finetune").glob("*.yaml"))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=every)
    parser.add_argument("--set", action="append", default=[], help="an argument of a method, such as lora.rank=3")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        raise SystemExit(f"no folder {arguments.data}; name it by --data or set ATHANOR_DATA")
    return arguments


if __name__ == "__main__":
    main()
