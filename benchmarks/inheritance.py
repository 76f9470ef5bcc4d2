"""VGG stages in a MobileNet against scratch, and growing against beginning anew, on Fashion-MNIST.

A plain (VGG-like) parent learns classes 0-4. A separable (MobileNet-like) child of the same side learns classes 5-9 from few
rows: from scratch, as the stitch that `components.fusion.inherit` judges best, as the same stitch from a parent whose
kernels were shuffled (the same network without what the parent knows), and from scratch the same stitched network. All
have the same rows, hyper-parameters and epochs. Then the child from scratch is widened and deepened and trained for as
many epochs again, against the larger network from scratch at these epochs and at twice as many, which is all that the
grown one saw. What counts is the accuracy on the 5,000 rows of the test file; the intervals are Student's, of differences
on the same seed. `--every` trains all stitches and tells how well the score ranks them, `--stitches` leaves out growing.

.venv/bin/python benchmarks/inheritance.py [--data FOLDER] [--seeds 5] [--rows 1000] [--epochs 10] [--every] [--stitches]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, choice, interval, machine
from scipy.stats import spearmanr

CLASSES = {"parent": (0, 1, 2, 3, 4), "child": (5, 6, 7, 8, 9)}
PARENT_ROWS, PARENT_EPOCHS, VALIDATION = 20_000, 5, 1_000
COMMON = {"growth": 2.0, "depths": [1, 1, 1], "kernel": 3, "downsample": "max", "pooling": "average", "activation": "relu", "norm": "batch"}
PARENT = {**COMMON, "block": "plain", "width": 24, "largest_side": 16}
CHILD = {**COMMON, "block": "separable", "width": 16, "expansion": 2, "largest_side": 16}
HOW = {
    "optimizer": "adamw", "learning_rate": 5e-3, "weight_decay": 1e-2, "batch_size": 64, "dropout": 0.0, "label_smoothing": 0.0,
    "augmentation_strength": 0.0,
}  # fmt: skip
AGAINST = (
    ("stitched", "scratch"), ("stitched", "shuffled"), ("stitched", "same network, scratch"), ("shuffled", "scratch"),
    ("widened", "wide"), ("widened", "wide, twice"), ("deepened", "deep"), ("deepened", "deep, twice"),
)  # fmt: skip


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="athanor-inheritance-") as folder:
        os.environ["ATHANOR_HOME"] = folder
        bench = Bench(arguments, Path(folder))
        print(f"Fashion-MNIST, classes 5-9 from {arguments.rows} rows in {arguments.epochs} epochs, parent on classes 0-4 "
              f"({PARENT_ROWS:,} rows, {PARENT_EPOCHS} epochs), n={arguments.seeds} seeds\n{machine()}\n", flush=True)  # fmt: skip
        print(f"parent: {bench.parent.model.num_parameters:,} parameters, {bench.parent.model.metrics['accuracy']:.4f}", flush=True)
        rows = [bench.seed(seed) for seed in range(arguments.seeds)]
    _tell(rows)


class Bench:
    """The data, the parent and the trainings of one seed after another."""

    def __init__(self, arguments: argparse.Namespace, home: Path) -> None:
        from components.models.parent import Parent

        self.arguments, self.home = arguments, home
        self.whole = _version(arguments.data, home / "data")
        data = _subset(self.whole, CLASSES["parent"], PARENT_ROWS, home / "parent", 0)
        model = self._train(data, PARENT, PARENT_EPOCHS, 0, "parent", batch_size=128)
        self.parent = Parent.of(model, data)
        self.ignorant = _shuffled(self.parent, home / "shuffled")

    def seed(self, seed: int) -> dict[str, Any]:
        """Test accuracy by name, with what was chosen."""
        from components.fusion.inherit import inherit
        from components.workspace import Workspace

        started = time.monotonic()
        data = _subset(self.whole, CLASSES["child"], self.arguments.rows, self.home / f"child-{seed}", seed)
        child, epochs, found = _candidate(CHILD), self.arguments.epochs, dict[str, Any]()
        scratch = self._train(data, CHILD, epochs, seed, "scratch")
        stitched = inherit(data, _policy(), child, [self.parent], _config(epochs), Workspace(out=self.home / f"stitched-{seed}", seed=seed))
        found |= {"scratch": _test(scratch, data), "stitched": _test(stitched, data)}
        found |= self._controls(data, seed, stitched.candidate.architecture)
        if not self.arguments.stitches:
            found |= self._growth(data, seed, scratch)
        if self.arguments.every:
            found["ranks"] = self._every(data, seed)
        sizes = f"{scratch.num_parameters:,} and {stitched.num_parameters:,} parameters"
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items() if name != "ranks") +
              f"; {stitched.adopted['stages']}; {sizes}; {time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
        return found

    def _controls(self, data: Any, seed: int, architecture: dict[str, Any]) -> dict[str, float]:
        """The network that was chosen, without what the parent knows: its kernels shuffled, and its weights drawn anew."""
        from components.training.stitching import start_of, stitches_of

        (stitch,) = (s for s in stitches_of(_candidate(CHILD), [self.ignorant], _config(1), data) if s.architecture == architecture)
        start = start_of(stitch, _candidate(CHILD), data, seed)
        models = {
            "shuffled": self._train(data, architecture, self.arguments.epochs, seed, "shuffled", space=stitch.space, start=start),
            "same network, scratch": self._train(data, architecture, self.arguments.epochs, seed, "same", space=stitch.space),
        }
        return {name: _test(model, data) for name, model in models.items()}

    def _growth(self, data: Any, seed: int, small: Any) -> dict[str, float]:
        from components.models.growth import deepen, widen
        from components.models.network import load_network
        from components.training.batches import load_rows
        from components.training.tuning import Start

        epochs, found = self.arguments.epochs, dict[str, float]()
        inputs = [load_rows(data, "train", limit=256).fields["image"]]
        for verb, name, grow, options in (("widened", "wide", widen, {"width": 32}), ("deepened", "deep", deepen, {"blocks": 1})):
            grown: Any = grow(small.candidate, load_network(small, data), small.space, data, inputs, **options)  # type: ignore[operator]
            start = Start(grown.network.train(), grown.candidate)
            architecture = grown.candidate.architecture
            found[verb] = _test(self._train(data, architecture, epochs, seed, verb, start=start), data)
            found[name] = _test(self._train(data, architecture, epochs, seed, name), data)
            found[f"{name}, twice"] = _test(self._train(data, architecture, 2 * epochs, seed, f"{name}-twice"), data)
        return found

    def _every(self, data: Any, seed: int) -> dict[str, float]:
        """Spearman's correlation of scores with the test accuracy over all stitches."""
        from components.search.zero_cost import naswot
        from components.training.batches import load_rows
        from components.training.stitching import JUDGED_ROWS, judged, start_of, stitches_of

        rows, child = load_rows(data, "train", limit=JUDGED_ROWS, seed=seed), _candidate(CHILD)
        table: list[dict[str, float]] = []
        for number, stitch in enumerate(stitches_of(child, [self.parent, self.ignorant], _config(1), data)):
            start = start_of(stitch, child, data, seed)
            found = {"naswot": naswot(start.network, [rows.fields["image"][:64]]), "inherited": float(start.facts["inherited"])}
            found["score"] = judged(stitch, child, rows, data, seed)
            name, epochs = f"every-{number}", self.arguments.epochs
            model = self._train(data, stitch.architecture, epochs, seed, name, space=stitch.space, start=start)
            table.append({**found, "test": _test(model, data)})
        tests = [row["test"] for row in table]
        return {name: float(spearmanr([row[name] for row in table], tests).statistic) for name in table[0] if name != "test"}

    def _train(
        self, data: Any, architecture: dict[str, Any], epochs: int, seed: int, name: str, *, batch_size: int = 64, space: Any = None,
        start: Any = None,
    ) -> Any:  # fmt: skip
        from components.training.train import train_model
        from components.workspace import Workspace

        config = _config(epochs) | ({"space": space} if space else {})
        candidate = _candidate(architecture, batch_size)
        work = Workspace(out=self.home / f"{name}-{seed}", seed=seed)
        return train_model(data, _policy(), candidate, config, work, role="model", start=start)


def _test(model: Any, data: Any) -> float:
    from components.models.network import load_network
    from components.training.batches import load_rows
    from components.training.learner import validate

    return validate(load_network(model, data), data, load_rows(data, "test"), "accuracy")["accuracy"]


def _shuffled(parent: Any, folder: Path) -> Any:
    """The parent with the numbers of each kernel in another order."""
    import torch
    from safetensors.torch import load_file, save_file

    from components.artifacts import StoredFile

    generator, path = torch.Generator().manual_seed(0), folder / "weights.safetensors"
    folder.mkdir(parents=True)
    state = load_file(parent.model.weights.path)
    for tensor in state.values():
        if tensor.ndim > 1:
            tensor.copy_(tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape))
    save_file(state, path)
    return parent.replace(model=parent.model.replace(weights=StoredFile.of(path)))


def _candidate(architecture: dict[str, Any], batch_size: int = 64) -> Any:
    from components.artifacts import Candidate

    return Candidate(space="convnet", architecture=architecture, hyperparameters={**HOW, "batch_size": batch_size})


def _config(epochs: int) -> dict[str, Any]:
    training = {"epochs": epochs, "threads": 1, "memory_format": "channels_last", "precision": "fp32"}
    return {"space": choice("space/convnet"), "optimizer": {"adamw": choice("optimizer/adamw")}, "training": training, "metrics": {}}


def _policy() -> Any:
    from components.artifacts import AugmentationPolicy

    return AugmentationPolicy(name="none", modality="image", config=choice("augmentation/none"))


def _version(folder: Path, out: Path) -> Any:
    from components.data.version import version
    from components.workspace import Workspace

    config = {"dataset": {**choice("dataset/idx"), "path": str(folder)}, "split": {"validation": 0.15, "test": 0.2}}
    return version(config, Workspace(out=out))


def _subset(whole: Any, classes: Sequence[int], rows: int, out: Path, seed: int) -> Any:
    """Some classes' rows, `rows` of them to train on, drawn by the seed; validation is cut to `VALIDATION`, the test split is whole."""
    from components.artifacts import StoredFile

    out.mkdir(parents=True)
    files, splits = {}, {}
    for split, most in (("train", rows), ("validation", VALIDATION), ("test", None)):
        target = np.load(whole.files[f"{split}/target"].path)
        index = np.random.default_rng(seed).permutation(np.flatnonzero(np.isin(target, classes)))[:most]
        arrays = {"image": np.load(whole.files[f"{split}/image"].path)[index], "target": np.searchsorted(classes, target[index])}
        for name, array in arrays.items():
            np.save(out / f"{split}-{name}.npy", array)
            files[f"{split}/{name}"] = StoredFile.of(out / f"{split}-{name}.npy")
        splits[split] = len(index)
    names = tuple(whole.classes[number] for number in classes)
    return whole.replace(files=files, splits=splits, classes=names, digest=f"{whole.digest[:32]}-{out.name}")


def _tell(rows: Sequence[dict[str, Any]]) -> None:
    print("\n| network | test accuracy, mean (range) |\n|---|---|")
    for name in (name for name in rows[0] if name != "ranks"):
        values = [100 * row[name] for row in rows]
        print(f"| {name} | {statistics.mean(values):.2f} % ({min(values):.2f} to {max(values):.2f}) |")
    print("\n| difference, paired by seed | points, mean [95 % interval] |\n|---|---|")
    for one, other in (pair for pair in AGAINST if set(pair) <= set(rows[0])):
        print(f"| {one} over {other} | {_interval([100 * (row[one] - row[other]) for row in rows])} |")
    for name in rows[0].get("ranks", {}):
        print(f"Spearman of {name} with test accuracy: {_interval([row['ranks'][name] for row in rows])}")


def _interval(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.2f}"
    low, high = interval(values)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    base = Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=base / "fashion-mnist")
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--stitches", action="store_true")
    for name, default in (("seeds", 5), ("rows", 1_000), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


if __name__ == "__main__":
    main()
