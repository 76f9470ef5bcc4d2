"""Scores without training: against their formulas written out, and against a published table of trained cells."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from components.artifacts import Candidate, InputField
from components.models.network import build_network
from components.models.space.cell import CellSpace
from components.search.zero_cost import naswot, scores, synflow
from tests.components.models import tiny
from tests.components.training.test_fit import CONVNET, HOW, MLP, SMALL_CONVNET, SMALL_MLP


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def test_naswot_counts_the_units_that_agree() -> None:
    """Against codes compared two by two."""
    network, rows = small().eval(), torch.randn(6, 5)
    with torch.no_grad():
        first = network[1](network[0](rows))
        codes = torch.cat([first, network[3](first.relu())], dim=1) > 0
    kernel = torch.tensor([[float((a == b).sum()) for b in codes] for a in codes], dtype=torch.float64)
    assert naswot(network, [rows]) == pytest.approx(float(torch.logdet(kernel + torch.eye(6))), rel=1e-9)


def test_synflow_is_the_flow_through_positive_weights() -> None:
    """Of a chain of linear layers, each layer's flow is the sum over all paths of the products of their weights."""
    network = small()
    weights = [network[i].weight.abs().double() for i in (0, 3, 5)]  # type: ignore[union-attr]
    biases = [network[i].bias.abs().double() for i in (0, 3, 5)]  # type: ignore[union-attr]
    features, flow = torch.ones(5, dtype=torch.float64), 0.0
    for place, (weight, bias) in enumerate(zip(weights, biases)):
        after = torch.ones(3, dtype=torch.float64)
        for later in reversed(weights[place + 1 :]):
            after = later.T @ after
        flow += float((after @ (weight @ features + bias)).detach())
        features = weight @ features + bias
    assert synflow(network, [torch.randn(4, 5)]) == pytest.approx(math.log10(flow), rel=1e-9)


@pytest.mark.parametrize(("space", "architecture"), [(CONVNET, SMALL_CONVNET), (MLP, SMALL_MLP)])
def test_scores_of_our_spaces_are_finite_and_leave_the_network_alone(
    space: dict[str, Any], architecture: dict[str, Any], tmp_path: Path
) -> None:
    dataset = tiny.stripes(tmp_path) if space is CONVNET else tiny.table(tmp_path)
    network = build_network(space, Candidate(space="it", architecture=architecture, hyperparameters=HOW), dataset, 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inputs = [torch.zeros(8, *f.shape, dtype=getattr(torch, f.dtype)).random_(0, 3) for f in dataset.inputs]
    found = scores(["naswot", "synflow", "num_parameters", "macs"], network, inputs)
    assert all(math.isfinite(value) for value in found.values())
    assert found == scores(["naswot", "synflow", "num_parameters", "macs"], network, inputs)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_cell_that_connects_nothing_has_the_lowest_scores() -> None:
    image = InputField(name="image", dtype="uint8", shape=(3, 16, 16), mean=(120.0,) * 3, std=(60.0,) * 3)
    empty = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    whole = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    found = [_of_cell(cell, image) for cell in (empty, whole)]
    assert all(found[0][name] < found[1][name] for name in ("naswot", "synflow", "num_parameters", "macs"))
    assert all(math.isfinite(value) for value in found[0].values())


def _of_cell(cell: str, image: InputField, cells: int = 1) -> dict[str, float]:
    architecture = {"cell": cell, "channels": 16, "cells": cells, "stacks": 3, "largest_side": 32}
    torch.manual_seed(0)
    network = CellSpace().build(architecture, [image], 10)
    rows = torch.randint(0, 256, (32, *image.shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return scores(["naswot", "synflow", "num_parameters", "macs"], network, [rows])


@pytest.mark.slow
def test_scores_rank_trained_cells(shared_data: Path) -> None:
    """Over 60 cells of NAS-Bench-201, noise for images: each score goes with the accuracy after training."""
    with gzip.open(shared_data / "nas-bench-201" / "cifar10.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))[::260]
    image = InputField(name="image", dtype="uint8", shape=(3, 32, 32), mean=(128.0,) * 3, std=(74.0,) * 3)
    found = [_of_cell(row["arch"], image) for row in rows]
    for name in ("naswot", "synflow", "num_parameters"):
        correlation = spearmanr([row[name] for row in found], [float(row["c10_test_200ep"]) for row in rows]).statistic
        assert correlation > 0.4, name
