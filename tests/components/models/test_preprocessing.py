"""Raw rows become what a network works on: against independent formulas, with missing and unseen values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from components.artifacts import Column, InputField
from components.errors import UnknownNameError, UsageError
from components.models.hyperparameters import sample_hyperparameters
from components.models.preprocessing import (
    EmbedCategories,
    EncodeNumbers,
    OneHotCategories,
    PeriodicNumbers,
    ScaleImage,
    StandardNumbers,
)
from components.models.space.convnet import ConvNet
from tests.components.models import tiny


def test_images_are_scaled_per_channel_from_bytes_or_floats() -> None:
    field = InputField(name="image", dtype="uint8", shape=(2, 3, 3), mean=(10.0, 100.0), std=(2.0, 0.0))
    image = torch.randint(0, 255, (4, 2, 3, 3), dtype=torch.uint8)
    scaled = ScaleImage(field)(image)
    assert torch.allclose(scaled[:, 0], (image[:, 0].float() - 10) / 2)
    assert torch.isfinite(scaled).all(), "a constant channel must not become infinite"
    assert torch.equal(scaled, ScaleImage(field)(image.float()))


def test_numbers_are_encoded_piecewise_linearly() -> None:
    """Bins against numpy's interpolation; a missing value is marked and all else of it is zero."""
    knots = (0.0, 1.0, 3.0, 10.0)
    columns = (
        Column(name="a", kind="number", mean=2.0, std=4.0, quantiles=knots),
        Column(name="flat", kind="number", mean=5.0, std=0.0, quantiles=(5.0,)),
    )
    encoder = EncodeNumbers(columns)
    values = np.array([-1.0, 0.5, 2.0, 9.0, 99.0, math.nan], dtype=np.float32)
    encoded = encoder(torch.tensor(np.stack([values, np.full(6, 5.0, np.float32)], 1))).reshape(6, 2, 5)
    for row, value in enumerate(values[:5]):
        bins = [float(np.interp(value, knots[k : k + 2], (0, 1))) for k in range(3)]
        assert encoded[row, 0].tolist() == pytest.approx([min(5.0, (value - 2) / 4), 0.0, *bins])
    assert encoded[5, 0].tolist() == [0, 1, 0, 0, 0]
    assert encoded[:, 1, 2:].abs().sum() == 0
    assert encoder.width == 10


def test_categories_out_of_the_vocabulary_say_nothing() -> None:
    columns = (Column(name="a", kind="category", vocabulary=("x", "y")), Column(name="b", kind="category", vocabulary=("z",)))
    embed = EmbedCategories(columns, 4)
    known, unseen = embed(torch.tensor([[1, 1], [2, 1]])), embed(torch.tensor([[0, 0]]))
    assert not torch.equal(known[0, :4], known[1, :4])
    assert torch.equal(known[0, 4:], known[1, 4:])
    assert unseen.abs().sum() == 0


def test_waves_are_those_of_the_paper() -> None:
    """Sine and cosine of learned frequencies of a number's rank, then linear and ReLU; a missing number is its mark alone."""
    columns = (
        Column(name="a", kind="number", mean=2.0, std=4.0, quantiles=(0.0, 1.0, 3.0, 10.0)),
        Column(name="flat", kind="number", mean=5.0, std=0.0, quantiles=(5.0,)),
    )
    torch.manual_seed(0)
    encoder = PeriodicNumbers(columns, frequencies=3, scale=0.5, width=4)
    values = np.array([-1.0, 0.5, 2.0, 99.0, math.nan], dtype=np.float32)
    encoded = encoder(torch.tensor(np.stack([values, np.full(5, 5.0, np.float32)], 1))).detach().numpy().reshape(5, 2, 6)
    frequencies, weight, bias = (p.detach().numpy()[0] for p in (encoder.frequencies, encoder.weight, encoder.bias))
    for row, value in enumerate(values[:4]):
        rank = np.interp(value, (0.0, 1.0, 3.0, 10.0), (-1, -1 / 3, 1 / 3, 1))
        angle = 2 * np.pi * frequencies * rank
        expected = np.maximum(np.concatenate([np.sin(angle), np.cos(angle)]) @ weight + bias, 0)
        np.testing.assert_allclose(encoded[row, 0], [min(5.0, (value - 2) / 4), 0.0, *expected], rtol=1e-4, atol=1e-5)
    assert encoded[4, 0].tolist() == [0, 1, 0, 0, 0, 0]
    assert encoder.width == 12


def test_numbers_without_an_embedding_are_standardised_and_marked() -> None:
    columns = (Column(name="a", kind="number", mean=2.0, std=4.0, quantiles=(0.0, 1.0)),)
    encoded = StandardNumbers(columns)(torch.tensor([[4.0], [math.nan], [-1e9]]))
    assert encoded.tolist() == [[0.5, 0.0], [0.0, 1.0], [-5.0, 0.0]]


def test_categories_as_ones_and_zeros() -> None:
    """A place for every known value; none for one that is unknown or beyond the vocabulary."""
    columns = (Column(name="a", kind="category", vocabulary=("x", "y")), Column(name="b", kind="category", vocabulary=("z",)))
    encoder = OneHotCategories(columns)
    assert encoder(torch.tensor([[1, 1], [2, 0], [7, 1]])).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert encoder.width == 3


def test_hyperparameters_are_drawn_under_the_optimizers_name_within_its_ranges(tmp_path: Path) -> None:
    """So that a sampler never mixes a rate for SGD with one for AdamW."""
    dataset = tiny.stripes(tmp_path)
    optimizers = {"sgd": {"search": {"learning_rate": [0.1, 0.2]}}, "adamw": {}}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        trial = study.ask()
        drawn = sample_hyperparameters(trial, dataset, optimizers)
        seen.add(drawn["optimizer"])
        low, high = (0.1, 0.2) if drawn["optimizer"] == "sgd" else (1e-3, 1e-2)
        assert low <= drawn["learning_rate"] <= high
        assert f"hp.{drawn['optimizer']}.learning_rate" in trial.params
        study.tell(trial, 0.0)
    assert seen == {"sgd", "adamw"}


def test_one_optimizer_is_no_parameter(tmp_path: Path) -> None:
    trial = optuna.create_study().ask()
    assert sample_hyperparameters(trial, tiny.table(tmp_path, task="regression"), ["adamw"])["label_smoothing"] == 0
    assert "hp.optimizer" not in trial.params


def test_wrong_choices_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown space\.blocks 'residul'; did you mean 'residual'"):
        ConvNet(blocks=["residul"])
    with pytest.raises(UsageError, match="two positive numbers, low then high"):
        sample_hyperparameters(
            optuna.create_study().ask(), tiny.stripes(tmp_path), {"adamw": {"search": {"learning_rate": [0.1, 0.01]}}}
        )  # fmt: skip
