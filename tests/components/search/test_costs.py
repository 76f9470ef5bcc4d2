"""What a candidate costs: counted by an independent reference, measured on the exported graph, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.artifacts import Candidate, DatasetVersion
from components.models.network import build_network, num_parameters
from components.search.costs import measure, num_macs, row_of
from tests.components.models import tiny
from tests.components.training.test_fit import CONVNET, HOW, MLP, SMALL_CONVNET, SMALL_MLP

NAMES = ("num_parameters", "macs", "size_kb", "latency_ms")


def candidate(architecture: dict[str, Any]) -> Candidate:
    return Candidate(space="it", architecture=architecture, hyperparameters=HOW)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path / "data")


def test_macs_are_those_of_the_textbook() -> None:
    """A convolution: outputs × kernel × input channels / groups; a linear layer: inputs × outputs."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    expected = 8 * 8 * 8 * 3 * 9 + 4 * 4 * 8 * 25 + 8 * 4 * 4 * 10
    assert num_macs(network, [torch.zeros(1, 3, 8, 8)]) == expected
    assert network.training, "counting leaves the network as it was"


def test_macs_of_a_network_that_is_an_ensemble(tmp_path: Path) -> None:
    """Every member's products count, whatever operation they are written as."""
    dataset = tiny.table(tmp_path)
    one, eight = (
        num_macs(build_network(MLP, candidate({**SMALL_MLP, "members": members}), dataset, 0), row_of(dataset.inputs)) for members in (1, 8)
    )
    assert 7 < eight / one < 9


def test_costs_are_measured_once_and_kept(dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported graph is made for the first question only; another architecture is another question."""
    first = measure(NAMES, CONVNET, candidate(SMALL_CONVNET), dataset, tmp_path / "kept")
    network = build_network(CONVNET, candidate(SMALL_CONVNET), dataset, 0)
    assert first["num_parameters"] == num_parameters(network)
    assert first["macs"] == num_macs(network, row_of(dataset.inputs))
    assert first["size_kb"] > 4 * first["num_parameters"] / 1024
    assert first["latency_ms"] > 0

    def fail(*args: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr("components.search.costs._measure", fail)
    trained_otherwise = candidate(SMALL_CONVNET).replace(hyperparameters={**HOW, "learning_rate": 1.0})
    assert measure(NAMES, CONVNET, trained_otherwise, dataset, tmp_path / "kept") == first
    with pytest.raises(AssertionError, match="measured again"):
        measure(["macs"], CONVNET, candidate({**SMALL_CONVNET, "width": 12}), dataset, tmp_path / "kept")
    with pytest.raises(AssertionError, match="measured again"):
        measure(["macs"], CONVNET, candidate(SMALL_CONVNET), tiny.stripes(tmp_path / "larger", side=16), tmp_path / "kept")


def test_what_is_counted_needs_no_graph_and_is_added_to(dataset: DatasetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting does not wait for an export; a torn file is measured again."""
    monkeypatch.setattr("components.search.costs._on_the_graph", lambda *args: {"size_kb": 1.0, "latency_ms": 2.0})
    counted = measure(["macs"], CONVNET, candidate(SMALL_CONVNET), dataset, tmp_path / "kept")
    assert set(counted) == {"macs"}
    (path,) = (path for path in (tmp_path / "kept").glob("*.json") if path.name != "sources.json")
    assert json.loads(path.read_text())["costs"] == counted
    path.write_text(path.read_text()[:30])
    assert measure(["size_kb"], CONVNET, candidate(SMALL_CONVNET), dataset, tmp_path / "kept") == {"size_kb": 1.0}
    assert measure(["macs"], CONVNET, candidate(SMALL_CONVNET), dataset, tmp_path / "kept") == counted
