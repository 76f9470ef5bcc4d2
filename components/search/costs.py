"""What a candidate costs whoever uses it.

    num_parameters   numbers that are trained
    macs             multiply-accumulates of products and convolutions for one row
    size_kb          KiB of the exported ONNX file
    latency_ms       median milliseconds for one row on ONNX Runtime, one thread

They follow from the architecture and the data's shape alone, not from weights or training, so they are measured on a
fresh network and kept on disk by architecture, input spec, code and machine: the next trial or study of the same
architecture reads them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import JSON, Candidate, DatasetVersion, InputField, digest_of
from components.store import locked, write_atomically

if TYPE_CHECKING:
    from torch import nn

MEASURED = ("size_kb", "latency_ms")  # on the exported graph, which takes seconds to make
ROUNDS, ROUND_SECONDS = 3, 0.2  # of the medians of so many rounds the least counts: what else the machine does only adds
ROWS = 16
EXPORTER = "components.export.exporter.onnx"


def measure(names: Iterable[str], space: JSON, candidate: Candidate, dataset: DatasetVersion, kept: Path) -> dict[str, float]:
    """The costs of `names` for a candidate of a space, from the folder `kept` where they are known.

    One process of a machine measures at a time: two would only measure each other.
    """
    names = list(names)
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = kept / f"{_key(space, candidate, dataset, kept)}.json"
    found = _read(path)
    if any(name not in found for name in names):
        with locked(kept / "measuring.lock"):
            found = _read(path)
            found |= _measure([name for name in names if name not in found], space, candidate, dataset)
            write_atomically(path, json.dumps({"architecture": candidate.architecture, "costs": found}))
    return {name: found[name] for name in names}


def num_macs(network: nn.Module, inputs: Sequence[Any]) -> float:
    """Multiply-accumulates of one row through the network's matrix products and convolutions; `inputs` hold one row."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    was_training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(*inputs)
    network.train(was_training)
    return counter.get_total_flops() / 2  # it counts a product and a sum as two


def row_of(inputs: Sequence[InputField], rows: int = 1) -> list[Any]:
    """Rows of zeros in the form in which a network takes them."""
    import torch

    return [torch.zeros((rows, *field.shape), dtype=getattr(torch, field.dtype)) for field in inputs]


def _measure(names: Sequence[str], space: JSON, candidate: Candidate, dataset: DatasetVersion) -> dict[str, float]:
    from components.models.network import build_network, num_parameters

    network = build_network(space, candidate, dataset, seed=0).eval()
    found: dict[str, float] = {}
    if "num_parameters" in names:
        found["num_parameters"] = float(num_parameters(network))
    if "macs" in names:
        found["macs"] = num_macs(network, row_of(dataset.inputs))
    if any(name in MEASURED for name in names):
        found |= _on_the_graph(network, dataset)
    return found


def _on_the_graph(network: nn.Module, dataset: DatasetVersion) -> dict[str, float]:
    from components.export.exporter.onnx import OnnxExporter
    from components.export.parity import rows_of
    from components.export.runtime import Session, feeds

    with tempfile.TemporaryDirectory(prefix="athanor-costs-") as folder:
        path = Path(folder) / "candidate.onnx"
        OnnxExporter().export(network, dataset, path)
        size = path.stat().st_size
        session = Session(path)
    return {"size_kb": size / 1024, "latency_ms": latency_ms(session, feeds(dataset, rows_of(dataset, 0, ROWS)))}


def latency_ms(session: Any, feeds: Any) -> float:
    """Median milliseconds of single-row runs on the session's one thread, after a warm-up; of several rounds the least."""
    import numpy as np

    from components.export.runtime import latencies

    return min(float(np.median(latencies([session], feeds, ROUND_SECONDS)[0])) for _ in range(ROUNDS))


def _key(space: JSON, candidate: Candidate, dataset: DatasetVersion, kept: Path) -> str:
    """Everything that a cost follows from: what is built and by which code, what it takes and returns, and on what it runs."""
    from importlib.metadata import version

    from components.fingerprint import SourceCache, closure, cpu

    sources = SourceCache(kept / "sources.json")
    code, _ = closure([str(space["_target_"]).rpartition(".")[0], EXPORTER], sources)
    sources.save()
    inputs = [[f.name, f.dtype, f.shape, [[c.kind, c.vocabulary, len(c.quantiles)] for c in f.columns]] for f in dataset.inputs]
    machine = [cpu(), version("torch"), version("onnxruntime")]
    return digest_of([space, candidate.architecture, inputs, dataset.num_outputs, dataset.task, code, machine])


def _read(path: Path) -> dict[str, float]:
    """What is known; nothing where the file is absent or not what was written."""
    try:
        found = json.loads(path.read_text())["costs"]
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
