"""Training learns, repeats itself bit for bit, goes on after a kill and keeps its time."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error

from components.artifacts import Candidate, DatasetVersion
from components.augmentation.policy.affine import Affine
from components.augmentation.policy.noise import Noise
from components.augmentation.policy.none import Unchanged
from components.compression.distillation.logits import Logits
from components.errors import UnknownNameError, UsageError
from components.models.network import build_network
from components.training.batches import BatchLoader, load_rows
from components.training.checkpoint import read_checkpoint
from components.training.failure import DivergedError
from components.training.fit import Fit, fit
from components.training.learner import Average, predict
from tests.components.models import tiny

CONVNET = {"_target_": "components.models.space.convnet.ConvNet"}
MLP = {"_target_": "components.models.space.mlp.MLP"}
SMALL_CONVNET = {
    "block": "residual", "width": 8, "growth": 2.0, "depths": [1, 1], "kernel": 3, "downsample": "max", "pooling": "flatten",
    "activation": "relu", "norm": "batch", "largest_side": 16,
}  # fmt: skip
SMALL_MLP = {"width": 32, "depth": 2, "members": 4, "activation": "relu", "residual": True, "embedding": 4}
OPTIMIZERS = {
    "adamw": {"_target_": "torch.optim.AdamW", "fused": True, "search": {"learning_rate": [0.001, 0.01]}},
    "sgd": {"_target_": "torch.optim.SGD", "momentum": 0.9},
}
HOW = {
    "optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01, "batch_size": 32, "dropout": 0.1, "label_smoothing": 0.05,
    "augmentation_strength": 0.3,
}  # fmt: skip


class Killed(Exception):
    """Stands for a kill at a chosen moment."""


def train(dataset: DatasetVersion, seed: int = 0, how: dict[str, Any] | None = None, **options: Any) -> Fit:
    image = dataset.modality == "image"
    candidate = Candidate(space="it", architecture=SMALL_CONVNET if image else SMALL_MLP, hyperparameters={**HOW, **(how or {})})
    network = build_network(CONVNET if image else MLP, candidate, dataset, seed)
    options = {"policy": Affine() if image else Noise(), "optimizers": OPTIMIZERS, "epochs": 4, **options}
    options.setdefault("objective", "accuracy" if dataset.classes else "rmse")
    return fit(network, dataset, candidate.hyperparameters, seed=seed, **options)


def weights(fitted: Fit) -> list[torch.Tensor]:
    return list(fitted.network.state_dict().values())


def equal(one: Fit, other: Fit) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other)))


def told(fitted: Fit) -> list[dict[str, Any]]:
    """The history without its clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in fitted.history]


@pytest.fixture(params=["image", "table"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path) if request.param == "image" else tiny.table(tmp_path)


def test_training_learns(dataset: DatasetVersion) -> None:
    """Well above the half of the rows that guessing gets, and no worse than when it began."""
    fitted = train(dataset, epochs=8)
    assert fitted.metrics["accuracy"] > 0.85
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_regression_learns_in_the_targets_unit(tmp_path: Path) -> None:
    dataset = tiny.table(tmp_path, task="regression")
    fitted = train(dataset, epochs=15)
    assert set(fitted.metrics) == {"rmse", "mae", "r2"}
    assert fitted.metrics["r2"] > 0.5
    assert fitted.metrics["rmse"] < dataset.target_std


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_validation_metrics_agree_with_scikit_learn(tmp_path: Path, task: str) -> None:
    dataset = tiny.table(tmp_path, task=task)
    fitted = train(dataset)
    rows = load_rows(dataset, "validation")
    outputs = predict(fitted.network, dataset, rows)
    if task == "classification":
        assert fitted.metrics["accuracy"] == pytest.approx(accuracy_score(rows.targets, outputs.argmax(1)))
        assert fitted.metrics["log_loss"] == pytest.approx(log_loss(rows.targets, outputs), rel=1e-5)
    else:
        targets = rows.targets.numpy() * dataset.target_std + dataset.target_mean
        assert fitted.metrics["rmse"] == pytest.approx(mean_squared_error(targets, outputs) ** 0.5, rel=1e-5)


def test_same_arguments_same_bits(dataset: DatasetVersion) -> None:
    first, again = train(dataset, seed=5), train(dataset, seed=5)
    assert equal(first, again)
    assert told(first) == told(again)
    assert not equal(first, train(dataset, seed=6))


def test_the_callers_random_state_is_left_alone(dataset: DatasetVersion) -> None:
    before = torch.get_rng_state()
    train(dataset, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cut", [1, 2, 4])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("memory_format", "precision"), [("contiguous", "fp32"), ("channels_last", "bf16")])
def test_resumed_after_a_kill_bit_for_bit(
    dataset: DatasetVersion,
    tmp_path: Path,
    cut: int,
    optimizer: str,
    memory_format: str,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At any epoch's end, the last included; with dropout and augmentation, in the plain numerics and the others."""
    monkeypatch.setattr("components.training.fit.CHECKPOINT_SECONDS", 0.0)
    how: dict[str, Any] = {"optimizer": optimizer}
    numerics = {"threads": 1, "memory_format": memory_format, "precision": precision}
    whole = train(dataset, how=how, numerics=numerics)
    seen: list[int] = []

    def kill_at_the_cut(event: str, **fields: Any) -> None:
        if len(seen) == cut:
            raise Killed
        seen.append(fields["epoch"])

    if cut < 4:
        with pytest.raises(Killed):
            train(dataset, how=how, numerics=numerics, scratch=tmp_path / "s", emit=kill_at_the_cut)
    else:
        train(dataset, how=how, numerics=numerics, scratch=tmp_path / "s")
    after: list[int] = []

    def note(event: str, **fields: Any) -> None:
        after.append(fields["epoch"])

    resumed = train(dataset, how=how, numerics=numerics, scratch=tmp_path / "s", emit=note)
    assert after == list(range(cut + 1, 5)), "finished epochs must not be run again"
    assert equal(resumed, whole)
    assert told(resumed) == told(whole)


STEPS = 28  # of four epochs on the small images


@pytest.mark.parametrize("cut", sorted(Random(0).sample(range(1, STEPS), 20)))
def test_resumed_after_any_step_bit_for_bit(tmp_path: Path, whole: Fit, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty random cut points, within epochs and at their ends; with dropout and augmentation."""
    monkeypatch.setattr("components.training.fit.WITHIN_SECONDS", 0.0)
    dataset = tiny.stripes(tmp_path / "data")
    step = Average.step

    def kill_at_the_cut(self: Average, steps: int) -> None:
        if steps == cut + 1:
            raise Killed
        step(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Average, "step", kill_at_the_cut)
        with pytest.raises(Killed):
            train(dataset, scratch=tmp_path / "s")
    kept = read_checkpoint(tmp_path / "s" / "last.ckpt")["learner"]
    assert cut - 1 <= kept["steps"] <= cut, "a step is lost at most"
    resumed = train(dataset, scratch=tmp_path / "s")
    assert whole.steps == STEPS
    assert equal(resumed, whole)
    assert told(resumed) == told(whole)


@pytest.mark.parametrize(("told", "saved"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_stop_of_the_process_that_trains_is_what_its_owner_makes_of_it(tmp_path: Path, told: signal.Signals, saved: bool) -> None:
    """Without a worker, as `athanor stage train` has it: Lightning would end the process with 1. SIGTERM saves the step first."""
    dataset, steps = tiny.stripes(tmp_path), []
    step = Average.step

    def send(self: Average, number: int) -> None:
        step(self, number)
        steps.append(number)
        if number == 9:
            os.kill(os.getpid(), told)

    def end(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end), signal.getsignal(signal.SIGINT)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Average, "step", send)
            with pytest.raises(KeyboardInterrupt):
                train(dataset, scratch=tmp_path / "s")
            assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before[0]), signal.signal(signal.SIGINT, before[1])
    assert steps[-1] == 9
    if saved:
        assert read_checkpoint(tmp_path / "s" / "last.ckpt")["learner"]["steps"] == 9
    assert equal(train(dataset, scratch=tmp_path / "s"), train(dataset))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """A training that nobody interrupted."""
    return train(tiny.stripes(tmp_path_factory.mktemp("whole")))


def test_a_torn_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path)
    whole = train(dataset, scratch=tmp_path / "s")
    checkpoint = tmp_path / "s" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.warns(UserWarning, match="starts anew"):
        assert equal(train(dataset, scratch=tmp_path / "s"), whole)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"how": {"learning_rate": 0.02}}, "learning_rate is 0.01 in it and 0.02 here"),
        ({"training": {"clip": 2.0}}, "training.clip is 1.0 in it and 2.0 here"),
        ({"seed": 3}, "seed is 0 in it and 3 here"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, whole: Fit, other: dict[str, Any], told: str) -> None:
    dataset = tiny.stripes(tmp_path)
    train(dataset, scratch=tmp_path / "s", until=2)
    with pytest.raises(UsageError, match=rf"last.ckpt is the checkpoint of another training: {told}; remove it"):
        train(dataset, scratch=tmp_path / "s", **other)
    assert equal(train(dataset, scratch=tmp_path / "s"), whole), "the checkpoint is still there"


def test_a_checkpoint_of_another_network_names_the_tensor(tmp_path: Path) -> None:
    train(tiny.stripes(tmp_path / "a"), scratch=tmp_path / "s", until=2)
    candidate = Candidate(space="it", architecture={**SMALL_CONVNET, "width": 12}, hyperparameters=HOW)
    dataset = tiny.stripes(tmp_path / "a")
    network = build_network(CONVNET, candidate, dataset, 0)
    with pytest.raises(UsageError, match=r"tensor features.0.0.weight is \[8, 1, 3, 3\] in it and \[12, 1, 3, 3\] here"):
        fit(network, dataset, HOW, seed=0, policy=Affine(), optimizers=OPTIMIZERS, epochs=4, objective="accuracy", scratch=tmp_path / "s")


def test_a_time_limit_is_kept_and_the_schedule_completed(tmp_path: Path) -> None:
    """The rate has fallen to its end although only a part of the planned epochs was run."""
    fitted = train(tiny.stripes(tmp_path), epochs=10_000, seconds=1.5)
    assert fitted.truncated
    assert 0.5 < fitted.seconds < 3
    assert fitted.epochs < 10_000
    assert fitted.history[-1]["learning_rate"] < 0.05 * HOW["learning_rate"]
    assert max(row["learning_rate"] for row in fitted.history) > 0.5 * HOW["learning_rate"]


def test_a_time_limit_within_the_first_epoch_still_gives_a_judged_model(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path, rows={"train": 4000, "validation": 80, "test": 80})
    fitted = train(dataset, how={"batch_size": 8}, epochs=1, seconds=0.3)
    assert 0 < fitted.epochs < 1
    assert "accuracy" in fitted.metrics


def test_a_resumed_time_limit_counts_from_the_resumption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.training.fit.CHECKPOINT_SECONDS", 0.0)
    dataset = tiny.stripes(tmp_path)

    def kill_soon(event: str, **fields: Any) -> None:
        if fields["epoch"] == 5:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, epochs=10_000, seconds=30.0, scratch=tmp_path / "s", emit=kill_soon)
    fitted = train(dataset, epochs=10_000, seconds=1.0, scratch=tmp_path / "s")
    assert fitted.history[-1]["epoch"] > 5
    assert fitted.history[-1]["learning_rate"] < 0.05 * HOW["learning_rate"]


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="training loss became"):
        train(tiny.stripes(tmp_path), how={"optimizer": "sgd", "learning_rate": 1e30}, training={"clip": 0.0})


def test_rows_limits_the_training_rows(tmp_path: Path) -> None:
    fitted = train(tiny.stripes(tmp_path), rows=64, epochs=2)
    assert fitted.steps == 2 * (64 // HOW["batch_size"])


def test_a_teacher_is_followed_even_against_the_labels(tmp_path: Path) -> None:
    """With weight 1 the labels say nothing: a student of a teacher that swaps the classes learns to swap them."""
    dataset = tiny.table(tmp_path)
    teacher = train(dataset, epochs=8).network
    with torch.no_grad():
        teacher.head.weight.neg_()
        teacher.head.bias.neg_()
    options = {"epochs": 8, "policy": Unchanged(), "teacher": teacher}
    taught = train(dataset, distiller=Logits(weight=1.0), **options)
    told_only = train(dataset, distiller=Logits(weight=0.0), **options)
    assert taught.history[-1]["accuracy"] < 0.3
    assert told_only.history[-1]["accuracy"] > 0.8


def test_epochs_differ_in_order_and_cover_all_rows_but_a_rest(tmp_path: Path) -> None:
    rows = load_rows(tiny.stripes(tmp_path), "train")
    epoch = [0]
    loader = BatchLoader(rows, 50, 0, lambda: epoch[0])
    first = [targets for _, targets in loader]
    epoch[0] = 1
    second = [targets for _, targets in loader]
    assert [len(targets) for targets in first] == [50] * 4 == [50] * len(loader)
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'adamw'"):
        train(dataset, how={"optimizer": "adam_w"})
    with pytest.raises(UsageError, match=r"training\.ema"):
        train(dataset, training={"ema": 1.5})
    with pytest.raises(UsageError, match="at least 1 epoch"):
        train(dataset, epochs=0)


def test_a_weighted_class_is_missed_less(tmp_path: Path) -> None:
    """Fifty times the weight in the loss draws predictions to that class; the last row tells each class's recall."""
    dataset = tiny.stripes(tmp_path / "data")
    plain, weighted = (train(dataset, epochs=1, training={"class_weights": w}) for w in ({}, {"1": 50.0}))
    counts = [predict(f.network, dataset, load_rows(dataset, "validation")).argmax(1).tolist().count(1) for f in (plain, weighted)]
    assert counts[1] > counts[0]
    if len(dataset.classes) > 2:
        assert [row["rows"] for row in plain.history[-1]["classes"]] == torch.bincount(load_rows(dataset, "validation").targets).tolist()
    with pytest.raises(UsageError, match="class_weights maps class indices from 0 to"):
        train(dataset, epochs=1, training={"class_weights": {"99": 2.0}})
