"""How much memory data take that are streamed, and how fast images are read.

    python benchmarks/streaming.py                          # 50,000 images of 96x96 and a table of 5,000,000 rows: a quarter of an hour
    python benchmarks/streaming.py --images 5000 --rows 500000 --repeats 1 --cases images,speed

Each case is a process of its own. Its figure is the most resident memory (VmHWM) over what was resident before the case
began, libraries loaded. Versioning: from files to arrays. Training: one epoch with a validation pass, rows forced to be
streamed. Speed: images a second, read alone and through a training step, with PyTorch's DataLoader and threads as they
are by default, and with what ours chooses automatically; they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import measure

SIDE, CLASSES, COLUMNS = 96, 10, 10
BATCH, STEPS = 64, 60
SPLIT = {"validation": 0.15, "test": 0.2}
CONVNET = {
    "block": "residual", "width": 16, "growth": 2.0, "depths": [1, 1], "kernel": 3, "downsample": "max", "pooling": "average",
    "activation": "relu", "norm": "batch", "largest_side": 32,
}  # fmt: skip
MLP = {"width": 64, "depth": 2, "members": 1, "activation": "relu", "residual": True, "embedding": 4}
HOW = {"optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.01, "dropout": 0.0, "label_smoothing": 0.0}


# ---- what is read ---------------------------------------------------------------------------------------------


def make_images(folder: Path, count: int) -> None:
    """JPEG photographs of a sort: a smooth field of colours with a disc whose place is the class, and noise."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"))
    for number in range(count):
        label = number % CLASSES
        path = folder / f"class{label}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 255, (4, 4, 3)).astype(np.uint8))
        field = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        disc = ((grid - np.array([[[10 + 8 * label]], [[48]]])) ** 2).sum(0) < 200
        noise = generator.integers(0, 24, (SIDE, SIDE, 1), dtype=np.uint8)
        picture = np.where(disc[..., None], 255 - field // 2, field // 4 * 3) + noise.astype(np.int64)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def make_table(path: Path, count: int) -> None:
    """Nine numbers of six digits, a category of 50 values with gaps, and a target that follows from three of them."""
    import numpy as np

    generator = np.random.default_rng(0)
    with path.open("w") as file:
        file.write(",".join([*(f"x{i}" for i in range(COLUMNS - 1)), "plan", "left"]) + "\n")
        for start in range(0, count, 50_000):
            size = min(50_000, count - start)
            numbers = generator.normal(size=(size, COLUMNS - 1))
            plans = generator.integers(0, 51, size)
            target = numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + (plans % 3 == 0) > 0.3
            for row, plan, left in zip(numbers.round(5).tolist(), plans.tolist(), target.tolist()):
                file.write(",".join(map(repr, row)) + f",{f'p{plan}' if plan else ''},{'yes' if left else 'no'}\n")


# ---- cases, each in a process of its own ----------------------------------------------------------------------


def resident_mb(word: str) -> float:
    """VmRSS or VmHWM of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(word))
    return int(line.split()[1]) / 1024


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of some work, and the most memory over what was resident before it."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, started = resident_mb("VmRSS"), time.monotonic()
    told = work()
    peak, seconds = resident_mb("VmHWM"), time.monotonic() - started
    return {"over_start_mb": round(peak - before), "start_mb": round(before), "seconds": round(seconds, 1), **told}


def version_case(folder: Path, name: str, dataset: dict[str, Any]) -> dict[str, Any]:
    """Makes a version and leaves its record in the folder."""
    import numpy  # noqa: F401  loaded before the measure begins, like the rest
    import yaml

    from components.data.version import version
    from components.workspace import Workspace

    reader = "image_folder" if "images" in dataset["path"] else "csv"
    node = yaml.safe_load((measure.ROOT / "conf" / "dataset" / f"{reader}.yaml").read_text())
    node.pop("defaults")

    def work() -> dict[str, Any]:
        record = version({"dataset": {**node, **dataset}, "split": SPLIT}, Workspace(out=folder / name))
        (folder / f"{name}.json").write_text(json.dumps(record.to_json()))
        return {"rows": sum(record.splits.values()), "arrays_mb": round(sum(file.size for file in record.files.values()) / 2**20)}

    return measured(work)


def train_case(folder: Path, name: str) -> dict[str, Any]:
    """One epoch over streamed rows."""
    import lightning  # noqa: F401

    from components.artifacts import Candidate, DatasetVersion
    from components.augmentation.policy.none import Unchanged
    from components.models.network import build_network
    from components.training import rows
    from components.training.fit import fit

    rows.MEMORY_SHARE = 0.0  # nothing fits: rows are streamed
    dataset = DatasetVersion.from_json(json.loads((folder / f"{name}.json").read_text()))
    image = dataset.modality == "image"
    how = {**HOW, "batch_size": BATCH if image else 1024}
    candidate = Candidate(space="it", architecture=CONVNET if image else MLP, hyperparameters=how)
    space = "components.models.space.convnet.ConvNet" if image else "components.models.space.mlp.MLP"
    network = build_network({"_target_": space}, candidate, dataset, 0)

    def work() -> dict[str, Any]:
        fitted = fit(
            network, dataset, candidate.hyperparameters, policy=Unchanged(), seed=0, epochs=1, objective="accuracy",
            optimizers={"adamw": {"_target_": "torch.optim.AdamW", "fused": True}}, scratch=folder / f"scratch-{name}",
        )  # fmt: skip
        return {"steps": fitted.steps, "accuracy": round(fitted.metrics["accuracy"], 4)}

    return measured(work)


def speed_case(folder: Path, kind: str) -> dict[str, Any]:
    """Images a second, read alone and through a network's training step: `default`, or ours over `files` or `pixels`."""
    import torch

    from components.artifacts import Candidate, DatasetVersion
    from components.models.network import build_network
    from components.processes import available_cores
    from components.training.batches import BatchLoader, load_rows
    from components.training.calibrate import FORMATS, calibrate

    dataset = DatasetVersion.from_json(json.loads((folder / f"{'pixels' if kind == 'default' else kind}.json").read_text()))
    candidate = Candidate(space="it", architecture=CONVNET, hyperparameters={**HOW, "batch_size": BATCH})
    network = build_network({"_target_": "components.models.space.convnet.ConvNet"}, candidate, dataset, 0).train()
    told: dict[str, Any] = {"threads": torch.get_num_threads(), "memory_format": "contiguous"}
    loader: Iterable[Any]
    if kind == "default":
        loader = plain_loader(folder / "images")
    else:
        rows = load_rows(dataset, "train", data="stream")
        sample, _ = rows.at(slice(0, BATCH))
        told = calibrate(network, list(sample.values()), threads=sorted({1, available_cores()}), precisions=("fp32",))
        loader = BatchLoader(rows, BATCH, 0, lambda: 0)
    torch.set_num_threads(told["threads"])
    network = network.to(memory_format=FORMATS[told["memory_format"]])
    numerics = f"{told['threads']} threads, {told['memory_format']}"
    return {"read": images_per_second(None, loader), "trained": images_per_second(network, loader), "numerics": numerics}


def plain_loader(folder: Path) -> Iterable[Any]:
    """What everybody begins with: a Dataset that opens a file per row, and a DataLoader as it is by default."""
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Folder(Dataset[Any]):
        def __init__(self) -> None:
            classes = sorted(path.name for path in folder.iterdir())
            self.files = [(file, classes.index(file.parent.name)) for file in sorted(folder.rglob("*.jpg"))]

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, row: int) -> Any:
            file, label = self.files[row]
            with Image.open(file) as image:
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1), label

    return DataLoader(Folder(), batch_size=BATCH, shuffle=True)


def images_per_second(network: Any, loader: Iterable[Any]) -> float:
    """Over `STEPS` steps, after a tenth of them; without a network batches are only read."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(network.parameters(), lr=0.01) if network else None
    started = 0.0
    for step, (images, targets) in zip(range(STEPS + STEPS // 10), loader):
        if step == STEPS // 10:
            started = time.perf_counter()
        if optimizer is None:
            continue
        images = next(iter(images.values())) if isinstance(images, dict) else images
        optimizer.zero_grad()
        functional.cross_entropy(network(images.to(torch.float32)), targets).backward()
        optimizer.step()
    return round(STEPS * BATCH / (time.perf_counter() - started), 1)


# ---- the whole ------------------------------------------------------------------------------------------------


def in_a_process(folder: Path, *words: str) -> dict[str, Any]:
    """One case, told as JSON."""
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS" or words[0] != "speed"}
    done = subprocess.run(
        [sys.executable, __file__, "--folder", str(folder), "--case", *words], stdout=subprocess.PIPE, text=True, check=True,
        env={**env, "ATHANOR_HOME": str(folder / "home")},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_case(folder: Path, words: list[str]) -> dict[str, Any]:
    """What a process of a case does."""
    if words[0] == "version":
        return version_case(folder, words[1], json.loads(words[2]))
    return train_case(folder, words[1]) if words[0] == "train" else speed_case(folder, words[1])


def show(title: str, told: list[dict[str, Any]]) -> None:
    """A line of the table."""
    peak = measure.spread([row["over_start_mb"] for row in told], 0)
    rest = ", ".join(f"{key} {value}" for key, value in told[-1].items() if key != "over_start_mb")
    print(f"| {title} | {peak} MB | {rest} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default="images,speed,table")
    parser.add_argument("--folder", type=Path, help="keep everything here; what is there already is used")
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_case(options.folder, options.case)))
        return
    with tempfile.TemporaryDirectory(prefix="athanor-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(measure.machine(), "\n| case | most memory over the start | |\n|---|---|---|")
        for case in options.cases.split(","):
            {"images": images, "speed": speed, "table": table}[case](folder, options)


def images(folder: Path, options: argparse.Namespace) -> None:
    """Versioning and training, images kept as pixels and as files."""
    if not (folder / "images").exists():
        make_images(folder / "images", options.images)
    for keep in ("pixels", "files"):
        what = f"{options.images:,} images of {SIDE}x{SIDE}, kept as {keep}"
        dataset = json.dumps({"path": str(folder / "images"), "keep": keep})
        show(f"version: {what}", [in_a_process(folder, "version", keep, dataset)])
        show(f"train: {what}", [in_a_process(folder, "train", keep)])


def speed(folder: Path, options: argparse.Namespace) -> None:
    """Images a second, the three in turns."""
    found: dict[str, list[dict[str, Any]]] = {"default": [], "files": [], "pixels": []}
    for _ in range(options.repeats):
        for kind, rows in found.items():
            rows.append(in_a_process(folder, "speed", kind))
    for kind, rows in found.items():
        numerics = "; ".join(sorted({row["numerics"] for row in rows}))
        for what in ("read", "trained"):
            values = [row[what] for row in rows]
            middle = f"median {statistics.median(values):.0f}"
            print(f"| images a second {what}: {kind} | {middle} | {measure.spread(values, 0)} ({numerics}) |", flush=True)


def table(folder: Path, options: argparse.Namespace) -> None:
    """Versioning and training of a large table."""
    path = folder / "table.csv"
    if not path.exists():
        make_table(path, options.rows)
    what = f"{options.rows:,} rows of {COLUMNS} columns"
    show(f"version: {what}", [in_a_process(folder, "version", "table", json.dumps({"path": str(path), "target": "left"}))])
    show(f"train: {what}", [in_a_process(folder, "train", "table")])


if __name__ == "__main__":
    main()
