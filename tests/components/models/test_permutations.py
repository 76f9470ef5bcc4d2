"""Units change places without a change in what is computed, and a permuted copy is put in order again, exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from components.artifacts import DatasetVersion
from components.build import build
from components.models.permutations import Symmetry, match
from components.training.batches import load_rows
from tests.components.fusion.twins import permuted
from tests.components.models import tiny

CONVNET: dict[str, Any] = {
    "block": "plain", "width": 8, "growth": 1.5, "depths": [2, 1], "kernel": 3, "downsample": "max", "pooling": "average",
    "activation": "relu", "norm": "batch", "largest_side": 16,
}  # fmt: skip
CELL = {"cell": "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|", "channels": 8}
MLP: dict[str, Any] = {"width": 12, "depth": 3, "members": 1, "activation": "relu", "residual": False, "embedding": 4}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("convnet.ConvNet", CONVNET),
    "flatten": ("convnet.ConvNet", {**CONVNET, "pooling": "flatten"}),
    "residual": ("convnet.ConvNet", {**CONVNET, "block": "residual", "downsample": "stride", "norm": "layer"}),
    "squeezed": ("convnet.ConvNet", {**CONVNET, "block": "residual", "squeeze": 2}),
    "separable": ("convnet.ConvNet", {**CONVNET, "block": "separable", "expansion": 2, "squeeze": 2, "pooling": "max"}),
    "cell": ("cell.CellSpace", {**CELL, "cells": 1, "stacks": 2, "largest_side": 32}),
    "mlp": ("mlp.MLP", MLP),
    "residual mlp": ("mlp.MLP", {**MLP, "residual": True, "categories": "one_hot"}),
    "members": ("mlp.MLP", {**MLP, "members": 3, "numbers": "none"}),
    "periodic": ("mlp.MLP", {**MLP, "numbers": "periodic", "frequencies": 4, "frequency_scale": 0.1, "number_width": 4}),
}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DatasetVersion]:
    return {"image": tiny.stripes(tmp_path_factory.mktemp("image")), "table": tiny.table(tmp_path_factory.mktemp("table"))}


def drawn(name: str, datasets: dict[str, DatasetVersion], seed: int = 0) -> tuple[nn.Module, list[torch.Tensor]]:
    """A network whose every tensor differs from unit to unit, as after training, and rows that it takes."""
    target, architecture = ARCHITECTURES[name]
    dataset = datasets["table" if target.startswith("mlp") else "image"]
    torch.manual_seed(seed)
    network = build({"_target_": f"components.models.space.{target}"}).build(architecture, dataset.inputs, dataset.num_outputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(std=0.1)
                part.running_var.uniform_(0.5, 1.5)
    fields = load_rows(dataset, "validation").fields
    return network.eval(), [fields[field.name] for field in dataset.inputs]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_permuted_copy_computes_the_same_with_other_weights(name: str, datasets: dict[str, DatasetVersion]) -> None:
    """Which axes belong together is right: most of the weights have moved, and no answer has changed."""
    network, inputs = drawn(name, datasets)
    twin = permuted(network, inputs, seed=3)
    with torch.no_grad():
        assert torch.allclose(network(*inputs), twin(*inputs), atol=1e-5)
    moved = [not torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters()) if a.ndim > 1]
    assert sum(moved) > 0.5 * len(moved)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_permuted_copy_is_put_in_order_exactly(name: str, datasets: dict[str, DatasetVersion]) -> None:
    """The mean of a network and its aligned copy is the network."""
    network, inputs = drawn(name, datasets)
    twin = permuted(network, inputs, seed=5)
    symmetry = Symmetry(network, inputs)
    orders = match(symmetry, network.state_dict(), twin.state_dict(), [name for name, _ in network.named_parameters()])
    aligned = symmetry.permuted(twin.state_dict(), orders)
    for key, tensor in network.state_dict().items():
        assert torch.allclose(tensor, aligned[key], atol=1e-6), key


def test_another_network_comes_nearer(datasets: dict[str, DatasetVersion]) -> None:
    """Of two networks that have nothing to do with each other, the weights lie nearer after alignment, the answers unchanged."""
    (network, inputs), (other, _) = drawn("residual", datasets), drawn("residual", datasets, seed=1)
    symmetry, mine, theirs = Symmetry(network, inputs), network.state_dict(), other.state_dict()
    names = [name for name, _ in network.named_parameters()]
    aligned = symmetry.permuted(theirs, match(symmetry, mine, theirs, names))
    before, after = (sum(float((mine[n] * state[n]).sum()) for n in names) for state in (theirs, aligned))
    assert after > before + 1.0
    answers = other(*inputs)
    other.load_state_dict(aligned)
    assert torch.allclose(answers, other(*inputs), atol=1e-5)


class Branching(nn.Module):
    """Decides by its input, which no trace can follow."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if float(image.sum()) > 0 else -image


def test_what_cannot_be_followed_is_said() -> None:
    with pytest.raises(ValueError, match="Branching cannot be traced"):
        Symmetry(Branching(), [torch.ones(1)])
