"""A child begins where its parent ended: it computes the same where the change allows, and keeps what is the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.artifacts import Candidate, DatasetVersion
from components.models.inheritance import inherit
from components.models.network import build_network
from components.training.batches import load_rows
from tests.components.models import tiny
from tests.components.training.test_fit import CONVNET, HOW, MLP, SMALL_CONVNET, SMALL_MLP

CELL = {"_target_": "components.models.space.cell.CellSpace"}
CELLS = {"cell": "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|nor_conv_3x3~1|skip_connect~2|",
         "channels": 8, "cells": 1, "stacks": 2, "largest_side": 16}  # fmt: skip
PLAIN = {**SMALL_CONVNET, "block": "plain"}
SEPARABLE = {**SMALL_CONVNET, "block": "separable", "expansion": 2}
ONE = {**SMALL_MLP, "members": 1, "residual": False}
MANY = {**SMALL_MLP, "residual": False}
SPACES = {"image": CONVNET, "table": MLP, "cell": CELL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inheritance")


@pytest.fixture(scope="module")
def datasets(folder: Path) -> dict[str, DatasetVersion]:
    image = tiny.stripes(folder)
    return {"image": image, "cell": image, "table": tiny.table(folder)}


def network(kind: str, architecture: dict[str, Any], dataset: DatasetVersion, seed: int) -> nn.Module:
    return build_network(SPACES[kind], Candidate(space="it", architecture=architecture, hyperparameters=HOW), dataset, seed).eval()


def lived_in(net: nn.Module, dataset: DatasetVersion) -> nn.Module:
    """The network after a while: every weight, scale and running statistic away from where it began."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
        net.train()
        for _ in range(20):
            net(*inputs_of(dataset))
    return net.eval()


def inputs_of(dataset: DatasetVersion, rows: int = 64) -> list[Tensor]:
    fields, _ = load_rows(dataset, "train").at(slice(0, rows))
    return [fields[field.name] for field in dataset.inputs]


def born(kind: str, parent: dict[str, Any], child: dict[str, Any], dataset: DatasetVersion) -> tuple[nn.Module, nn.Module, float]:
    older, younger = lived_in(network(kind, parent, dataset, 0), dataset), network(kind, child, dataset, 1)
    torch.manual_seed(0)
    return older, younger, inherit(younger, older, inputs_of(dataset))


def difference(one: nn.Module, other: nn.Module, dataset: DatasetVersion) -> float:
    """Largest difference of the answers, in deviations of the first network's."""
    with torch.no_grad():
        a, b = one(*inputs_of(dataset)), other(*inputs_of(dataset))
    return float((a - b).abs().max() / a.std())


PRESERVING = [
    ("image", SMALL_CONVNET, {}, "the same"),
    ("image", SMALL_CONVNET, {"width": 12}, "wider"),
    ("image", SMALL_CONVNET, {"width": 20, "growth": 1.5}, "wider, one stage more than the other"),
    ("image", SMALL_CONVNET, {"depths": [2, 3]}, "deeper"),
    ("image", SMALL_CONVNET, {"depths": [2, 2], "width": 12, "kernel": 5}, "deeper, wider and with larger kernels"),
    ("image", SEPARABLE, {"depths": [2, 2], "width": 12, "kernel": 5}, "separable: deeper, wider, larger kernels"),
    ("image", SEPARABLE, {"expansion": 3}, "a wider inside"),
    ("image", PLAIN, {"width": 12, "kernel": 5}, "plain: wider, larger kernels"),
    ("image", PLAIN, {"depths": [2, 2]}, "plain: deeper"),
    ("image", {**PLAIN, "pooling": "average"}, {"pooling": "flatten", "width": 12}, "from the average to every place"),
    ("cell", CELLS, {"channels": 12}, "a wider cell"),
    ("table", ONE, {"width": 48}, "a wider table network"),
    ("table", MANY, {"width": 48}, "wider, with members"),
    ("table", ONE, {"depth": 3}, "a deeper table network"),
    ("table", MANY, {"depth": 4, "width": 40}, "deeper and wider, with members"),
]


@pytest.mark.parametrize(("kind", "parent", "change", "what"), PRESERVING, ids=[row[3] for row in PRESERVING])
def test_growing_keeps_the_function(
    kind: str, parent: dict[str, Any], change: dict[str, Any], what: str, datasets: dict[str, DatasetVersion]
) -> None:
    """Rounding apart, the child answers as its parent does; a stranger's weights would be off by deviations."""
    dataset = datasets[kind]
    older, younger, _ = born(kind, parent, {**parent, **change}, dataset)
    assert difference(older, younger, dataset) < 1e-3
    assert difference(older, network(kind, {**parent, **change}, dataset, 1), dataset) > 0.5


def test_a_layer_beside_a_shortcut_nearly_keeps_the_function(datasets: dict[str, DatasetVersion]) -> None:
    older, younger, _ = born("table", {**SMALL_MLP, "members": 1}, {**SMALL_MLP, "members": 1, "depth": 4}, datasets["table"])
    assert difference(older, younger, datasets["table"]) < 0.3


def test_the_share_is_of_what_was_taken_over(datasets: dict[str, DatasetVersion]) -> None:
    """All of an equal network, most of a deeper one, and next to nothing where every block is of another kind."""
    children = (SMALL_CONVNET, {**SMALL_CONVNET, "depths": [1, 2]}, SEPARABLE)
    shares = [born("image", SMALL_CONVNET, child, datasets["image"])[2] for child in children]
    assert shares[0] == 1.0
    assert 0.3 < shares[1] < 0.9
    assert shares[2] < 0.5


def test_a_change_of_one_operation_leaves_the_others(datasets: dict[str, DatasetVersion]) -> None:
    """What both cells have on an edge is the same tensor for tensor."""
    other = CELLS["cell"].replace("nor_conv_1x1~1", "avg_pool_3x3~1")
    older, younger, share = born("cell", CELLS, {**CELLS, "cell": other}, datasets["cell"])
    mine, theirs = younger.state_dict(), older.state_dict()
    assert set(mine) < set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert share == 1.0


def test_depth_is_added_where_it_belongs(datasets: dict[str, DatasetVersion]) -> None:
    """A block more in the first stage must not shift the second stage's weights into it."""
    older, younger, _ = born("image", SMALL_CONVNET, {**SMALL_CONVNET, "depths": [2, 1]}, datasets["image"])
    assert torch.equal(younger.features[-1].body[0].weight, older.features[-1].body[0].weight)  # type: ignore[union-attr,index]
    assert torch.equal(younger.features[1].body[0].weight, older.features[1].body[0].weight)  # type: ignore[union-attr,index]


def test_repeated_units_come_apart_when_trained(datasets: dict[str, DatasetVersion]) -> None:
    """Units that are repeated are read unevenly, so that their gradients differ."""
    _, younger, _ = born("table", ONE, {**ONE, "width": 64}, datasets["table"])
    younger.train()(*inputs_of(datasets["table"])).square().mean().backward()
    gradient = younger.hidden[0].linear.weight.grad  # type: ignore[union-attr,index]
    assert torch.equal(younger.hidden[0].linear.weight[:32], younger.hidden[0].linear.weight[32:])  # type: ignore[union-attr,index]
    assert not torch.allclose(gradient[:32], gradient[32:], rtol=0.05)  # type: ignore[index]


def test_what_becomes_smaller_keeps_the_first_units_and_the_middle_of_kernels(datasets: dict[str, DatasetVersion]) -> None:
    parent, child = {**PLAIN, "kernel": 5}, {**PLAIN, "kernel": 3, "width": 4, "depths": [1, 1]}
    older, younger, share = born("image", parent, child, datasets["image"])
    mine, theirs = younger.features[3][0].weight, older.features[3][0].weight  # type: ignore[union-attr,index]
    assert torch.equal(mine, theirs[:8, :4, 1:4, 1:4])  # type: ignore[index]
    assert torch.equal(younger.features[3][1].running_var, older.features[3][1].running_var[:8])  # type: ignore[union-attr,index]
    assert share == 1.0
