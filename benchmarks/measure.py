"""What the benchmark scripts share: run `athanor` cold in a state folder of its own, and say where a figure comes from."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ATHANOR = Path(sys.executable).with_name("athanor")


@dataclass(frozen=True)
class Run:
    """One finished `athanor run`: its document, wall-clock seconds from process start to exit, and its state folder."""

    document: dict[str, Any]
    seconds: float
    home: Path

    def records(self) -> dict[str, Any]:
        """The records of its stages."""
        os.environ["ATHANOR_HOME"] = str(self.home)
        from flows.status import records_of

        return records_of(self.home / "runs" / self.document["run"])

    def events(self) -> list[dict[str, Any]]:
        """Its journal."""
        from components.journal import read

        return list(read(self.home / "runs" / self.document["run"] / "journal.jsonl"))


@contextmanager
def state_folder() -> Iterator[Path]:
    """A fresh state folder, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="athanor-benchmark-") as folder:
        yield Path(folder) / "home"


def run(home: Path, *words: str) -> Run:
    """`athanor run WORDS` in a process of its own; progress goes to this script's standard error."""
    started = time.monotonic()
    done = subprocess.run(
        [ATHANOR, "run", *words, "--json"], env={**os.environ, "ATHANOR_HOME": str(home)}, stdout=subprocess.PIPE, text=True, check=True
    )
    return Run(json.loads(done.stdout), time.monotonic() - started, home)


def seconds_of(words: Sequence[str], home: Path, repeats: int, code: int = 0) -> list[float]:
    """Wall-clock seconds of a command that must end with `code`, repeated."""
    found = []
    for _ in range(repeats):
        started = time.monotonic()
        done = subprocess.run(words, env={**os.environ, "ATHANOR_HOME": str(home)}, capture_output=True, cwd=ROOT)
        found.append(time.monotonic() - started)
        assert done.returncode == code, done.stderr.decode()
    return found


def test_score(exported: Any, dataset: Any, metric: str) -> float:
    """A metric of one exported model on the test split, on ONNX Runtime."""
    from components import metrics
    from components.data.arrays import load_inputs, load_target
    from components.export.runtime import Session, feeds

    session = Session(exported.file.path)
    outputs = session.run_in_batches(feeds(session.spec, load_inputs(dataset, "test")))
    return float(metrics.compute(metric, outputs, load_target(dataset, "test")))


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and range, and of how many."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}, n={len(values)})"


def machine() -> str:
    """The machine and the versions that matter."""
    from components.fingerprint import cpu
    from flows.run import library_versions

    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    return f"{cpu()}, {os.cpu_count()} cores, {platform.system()}; load {os.getloadavg()[0]:.1f}; {versions}"


def choice(name: str) -> dict[str, Any]:
    """A choice's node as `conf/<name>.yaml` has it, such as `space/convnet`."""
    import yaml

    node: dict[str, Any] = yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text())
    node.pop("defaults", None)
    return node


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean, by Student's t."""
    from scipy.stats import t as student

    mean, half = statistics.mean(values), 0.0
    if len(values) > 1:
        half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def data_folder(name: str) -> Path:
    """A real data set's folder: the script's first argument, else below ATHANOR_DATA."""
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(os.environ.get("ATHANOR_DATA") or ROOT.parent / "shared" / "data") / name
    if not base.is_dir():
        raise SystemExit(f"no folder {base}; name it as the first argument or set ATHANOR_DATA")
    return base
