"""Schedules, losses and regularisers in a training: each has the effect that it is named after, and can be searched."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml

from components.artifacts import DatasetVersion
from components.errors import UnknownNameError, UsageError
from components.models.blocks import Residual, Skipping, drop_residuals, left_out
from components.models.points import Points
from components.training.searched import fitting, mistakes, settled, training_program
from tests.components.models import tiny
from tests.components.training.test_fit import train

CONF = Path(__file__).resolve().parents[3] / "conf"
SCHEDULES = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "schedule").glob("*.yaml")}
LOSSES = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "loss").glob("*.yaml")}
OPTIMIZERS = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "optimizer").glob("*.yaml")}


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path / "data")


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_trains_a_network(dataset: DatasetVersion, name: str) -> None:
    """In the middle of its own ranges."""
    ranges = {key: (low * high) ** 0.5 for key, (low, high) in OPTIMIZERS[name]["search"].items()}
    found = train(dataset, how={"optimizer": name, **ranges}, optimizers=OPTIMIZERS, epochs=6)
    assert found.metrics["accuracy"] > 0.8


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_named_schedule_is_followed(dataset: DatasetVersion, name: str) -> None:
    """The rate after each epoch is the peak times the schedule's factor at the last step of it."""
    from components.build import build

    found = train(dataset, how={"schedule": name}, schedules=SCHEDULES, training={"ema": 0.0})
    schedule, per_epoch = build(SCHEDULES[name]), found.steps // 4
    expected = [0.01 * schedule.factor((epoch * per_epoch - 1) / found.steps) for epoch in range(1, 5)]
    assert [row["learning_rate"] for row in found.history] == pytest.approx(expected)


def test_the_named_loss_is_minimised(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Focal loss turns away from rows that are right; a loss for another task is refused with those that fit."""
    usual, focal = (train(dataset, how={"loss": name, "label_smoothing": 0.0}, losses=LOSSES) for name in ("cross_entropy", "focal"))
    assert focal.metrics["accuracy"] > 0.8
    assert focal.history[-1]["train_loss"] < 0.5 * usual.history[-1]["train_loss"]
    with pytest.raises(UnknownNameError, match="cross_entropy"):
        train(dataset, how={"loss": "mse"}, losses=LOSSES)
    with pytest.raises(UsageError, match="loss must list one for regression"):
        fitting({"focal": LOSSES["focal"]}, "regression")


def test_l1_shrinks_what_is_not_needed(dataset: DatasetVersion) -> None:
    networks = [train(dataset, training={"l1": l1}).network for l1 in (0.0, 1e-2)]
    sums = [sum(float(weight.abs().sum()) for weight in network.parameters() if weight.ndim > 1) for network in networks]
    assert sums[1] < 0.8 * sums[0]


def test_stochastic_depth_leaves_branches_out_while_training_only() -> None:
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 1, 1)
    dropped = left_out(branch, 0.25, training=True)
    assert float((dropped[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(dropped[:, 0], dropped[:, 1]), "a row loses its whole branch"
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03), "what is kept makes up for it"
    assert left_out(branch, 0.25, training=False) is branch


def test_later_branches_are_left_out_more_often(dataset: DatasetVersion) -> None:
    make = {"kernel": 3, "stride": 1, "norm_name": "batch", "activation_name": "relu"}
    network = torch.nn.Sequential(*(Residual(4, 4, **make) for _ in range(4)))
    drop_residuals(network, 0.4)
    assert [module.drop for module in network if isinstance(module, Skipping)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    one, other = (train(dataset, epochs=1, training={"stochastic_depth": rate}) for rate in (0.0, 0.5))
    assert one.history[0]["train_loss"] != other.history[0]["train_loss"]


def test_training_stops_when_nothing_is_gained(tmp_path: Path) -> None:
    """On labels without meaning the objective soon stops to rise; what is returned is the best, and it is not called cut short."""
    dataset = tiny.stripes(tmp_path / "data")
    long = {"epochs": 60, "training": {"patience": 3}}
    found = train(dataset, **long)
    values = [row["accuracy"] for row in found.history]
    assert len(values) < 60
    assert max(values[:-3]) == max(values)
    assert not found.truncated


def test_a_stopped_training_stays_stopped(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path / "data")
    first = train(dataset, epochs=60, training={"patience": 2}, scratch=tmp_path / "s")
    again = train(dataset, epochs=60, training={"patience": 2}, scratch=tmp_path / "s")
    assert again.steps == first.steps
    assert again.metrics == first.metrics


# ---- what is searched ----


def drawn(dataset: DatasetVersion, config: dict[str, Any], count: int = 40) -> list[dict[str, Any]]:
    points, rng = Points(training_program(dataset, config)), Random(0)
    return [points.draw(rng).value for _ in range(count)]


def test_one_choice_is_no_parameter_and_several_are(dataset: DatasetVersion) -> None:
    config = {"schedule": {"cosine": SCHEDULES["cosine"]}, "loss": LOSSES, "training": {"ema": 0.9}}
    fixed = Points(training_program(dataset, config))
    assert set(fixed.draw(Random(0)).params) == {"hp.loss"}
    training = {"ema": [0.9, 0.99], "l1": {"low": 1e-6, "high": 1e-3, "log": True}, "clip": 1.0}
    found = drawn(dataset, {"schedule": SCHEDULES, "loss": LOSSES, "training": training})
    assert {row["schedule"] for row in found} == set(SCHEDULES)
    assert {row["loss"] for row in found} == {"cross_entropy", "class_weighted", "focal"}
    assert {row["ema"] for row in found} == {0.9, 0.99}
    assert all(1e-6 <= row["l1"] <= 1e-3 for row in found)
    assert all("clip" not in row for row in found)


def test_a_candidates_own_settings_come_first() -> None:
    assert settled({"ema": [0.9, 0.99], "clip": 1.0}, {"ema": 0.9}) == {"ema": 0.9, "clip": 1.0}
    with pytest.raises(UsageError, match=r"training\.ema names several values"):
        settled({"ema": [0.9, 0.99]}, {})


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"ema": 1.0}, r"training\.ema must be a number of at least 0 and below 1"),
        ({"clip": [1.0, -1]}, r"training\.clip must be a number of at least 0"),
        ({"l1": {"low": 0, "high": 1, "log": True}}, r"training\.l1 as a range needs low below high, above 0 with log"),
        ({"l1": {"low": 0, "hihg": 1}}, r"did you mean 'high'"),
        ({"stochastic_depth": []}, "got an empty list"),
    ],
)
def test_mistakes_are_said_in_one_sentence(training: dict[str, Any], words: str) -> None:
    import re

    (found,) = mistakes(training)
    assert re.search(words, found)
    assert "\n" not in found
