"""What a space tells of itself through its program, and layers that are counted before they are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from components.artifacts import JSON
from components.models.blocks import Residual, SqueezeExcite
from components.models.conditional import ConditionalSpace, axes_of
from components.models.interface import Suggest
from components.models.layers import Layer, num_parameters_of
from components.models.points import Points
from tests.components.models import tiny


class Trees(ConditionalSpace):
    """Choices below choices, a small whole number and a number."""

    def sample(self, trial: Suggest, dataset: Any) -> JSON:
        kind = trial.suggest_categorical("arch.kind", ["leaf", "bush", "tree"])
        if kind == "leaf":
            return {"kind": kind, "size": trial.suggest_float("arch.size", 0.1, 10.0, log=True)}
        branches = trial.suggest_int("arch.branches", 1, 3)
        if kind == "tree" and branches == 3:
            return {"kind": kind, "branches": branches, "birds": trial.suggest_categorical("arch.birds", [False, True])}
        return {"kind": kind, "branches": branches}

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        return {f"arch.{name}": value for name, value in architecture.items()}


def test_parameters_that_only_some_points_have_are_all_found() -> None:
    """Also one that needs two values at once."""
    points = Points(lambda trial: Trees().sample(trial, None))
    assert list(axes_of(points)) == ["arch.birds", "arch.branches", "arch.kind", "arch.size"]


def test_an_encoding_is_zero_where_nothing_is_drawn(tmp_path: Path) -> None:
    """By hand: birds (2 values), branches (drawn, place), kind (3 values), size (drawn, place in the logarithm)."""
    dataset = tiny.table(tmp_path)
    assert Trees().encode({"kind": "leaf", "size": 1.0}, dataset) == pytest.approx([0, 0, 0, 0, 1, 0, 0, 1, 0.5])
    tree = {"kind": "tree", "branches": 3, "birds": True}
    assert Trees().encode(tree, dataset) == pytest.approx([0, 1, 1, 5 / 6, 0, 0, 1, 0, 0])


def test_neighbours_of_a_conditional_architecture(tmp_path: Path) -> None:
    """Every other value of each choice, with what it newly asks for; a number moves one step down and one up."""
    dataset = tiny.table(tmp_path)
    found = Trees().neighbours({"kind": "tree", "branches": 3, "birds": True}, dataset)
    assert len(found) == 2 + 2 + 1
    assert {"kind": "tree", "branches": 3, "birds": False} in found
    assert {"kind": "tree", "branches": 1} in found
    assert {"kind": "bush", "branches": 3} in found
    sizes = [near["size"] for near in Trees().neighbours({"kind": "leaf", "size": 1.0}, dataset) if near["kind"] == "leaf"]
    assert min(sizes) < 1.0 < max(sizes)
    assert Trees().size(dataset) is None


def test_a_space_counts_a_network_that_it_does_not_make() -> None:
    """Without a method of its own, over tensors that hold no numbers."""

    class Lines(Trees):
        def build(self, architecture: JSON, inputs: Any, num_outputs: int, dropout: float = 0.0) -> nn.Module:
            return nn.Linear(architecture["branches"], num_outputs)

    before = torch.get_rng_state()
    assert Lines().num_parameters({"branches": 100}, [], 10**9) == 101 * 10**9
    assert torch.equal(before, torch.get_rng_state())


def test_layers_are_counted_as_they_are_built() -> None:
    layers = [Layer.of(Residual, 8, 16, kernel=5, stride=2, norm_name="batch", activation_name="relu", squeeze=4), Layer.of(nn.ReLU)]
    built = [layer.build() for layer in layers]
    assert num_parameters_of(layers) == sum(p.numel() for module in built for p in module.parameters())


def test_squeeze_and_excite_scales_channels_by_their_averages() -> None:
    """Against the formula in numpy."""
    torch.manual_seed(0)
    module, features = SqueezeExcite(8, 2), torch.randn(3, 8, 4, 4)
    first, second = module.gate[1], module.gate[3]
    weights = [layer.weight.detach().numpy()[:, :, 0, 0] for layer in (first, second)]
    averages = features.numpy().mean((2, 3))
    inner = np.maximum(averages @ weights[0].T + first.bias.detach().numpy(), 0)
    gate = 1 / (1 + np.exp(-(inner @ weights[1].T + second.bias.detach().numpy())))
    np.testing.assert_allclose(module(features).detach().numpy(), features.numpy() * gate[:, :, None, None], rtol=1e-5)


@pytest.mark.parametrize("squeeze", [0, 4])
def test_a_residual_block_begins_as_its_shortcut(squeeze: int) -> None:
    block = Residual(8, 8, kernel=3, stride=1, norm_name="batch", activation_name="relu", squeeze=squeeze)
    features = torch.rand(2, 8, 5, 5)
    assert torch.equal(block(features), features)
