"""A trial tells its result as a record whatever happens, and is the same for the same seed and number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components import build
from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion, Trial
from components.errors import UsageError
from components.models.network import build_network
from components.models.space.convnet import ConvNet
from components.training.batches import folds_of, load_fold, load_rows
from components.training.checkpoint import read_checkpoint
from components.training.extent import num_folds
from components.training.failure import cause_of, reason_of
from components.training.learner import validate
from components.training.trial import run_trial
from tests.components.models import tiny
from tests.components.training.test_fit import HOW, OPTIMIZERS, SMALL_CONVNET

POLICY = AugmentationPolicy(
    name="affine", modality="image", config={"_target_": "components.augmentation.policy.affine.Affine", "degrees": 5.0}
)  # fmt: skip


class Hungry(nn.Module):
    """Asks for more memory than any machine has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image) + image.new_empty(2**52).sum()


class Cut(BaseException):
    """Stands for a kill at a chosen moment."""


class HungrySpace(ConvNet):
    def build(self, *args: Any, **options: Any) -> nn.Module:
        return Hungry(super().build(*args, **options))


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path / "data")


def trial(
    dataset: DatasetVersion, folder: Path, number: int = 0, space: str = "", how: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None, **config: Any,
) -> Trial:  # fmt: skip
    candidate = Candidate(space="convnet", architecture=SMALL_CONVNET, hyperparameters={**HOW, **(how or {})})
    sections = {
        "space": {"_target_": space or "components.models.space.convnet.ConvNet"}, "optimizer": OPTIMIZERS, "search": {"epochs": 2},
        "training": {"memory_format": "contiguous", "precision": "fp32"}, "metrics": {"objective": None}, "seed": 0, **config,
    }  # fmt: skip
    return run_trial(dataset, POLICY, candidate, sections, number, folder, rows=config.get("rows"), **(options or {}))


def test_a_trial_tells_values_fidelity_and_numerics(dataset: DatasetVersion, tmp_path: Path) -> None:
    found = trial(dataset, tmp_path / "t", rows=100)
    assert (found.state, found.cause, found.number) == ("complete", "", 0)
    assert set(found.values) == {"accuracy", "log_loss"}
    assert found.fidelity == {"epochs": 2.0, "rows": 100}
    assert found.num_parameters > 0
    assert found.candidate.numerics == {"threads": 1, "memory_format": "contiguous", "precision": "fp32"}
    assert [row["epoch"] for row in found.history] == [1, 2]
    assert Trial.from_json(found.to_json()) == found


def test_a_trial_is_a_function_of_seed_and_number(dataset: DatasetVersion, tmp_path: Path) -> None:
    first, again, other = (trial(dataset, tmp_path / name, number) for name, number in (("a", 3), ("b", 3), ("c", 4)))
    assert first.identity == again.identity
    assert first.values != other.values


def test_measured_numerics_are_kept_for_a_resumed_trial(dataset: DatasetVersion, tmp_path: Path) -> None:
    """What an earlier session measured is used, not measured again."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "numerics.json").write_text('{"threads": 1, "memory_format": "channels_last"}')
    found = trial(dataset, tmp_path / "t", training={"memory_format": "auto"})
    assert found.candidate.numerics["memory_format"] == "channels_last"


def test_a_diverging_trial_failed_with_nan(dataset: DatasetVersion, tmp_path: Path) -> None:
    found = trial(dataset, tmp_path / "t", how={"optimizer": "sgd", "learning_rate": 1e30}, training={"clip": 0.0})
    assert (found.state, found.cause) == ("failed", "nan")
    assert "training loss became" in found.reason
    assert found.values == {}


def test_a_trial_without_memory_failed_with_oom(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The allocator's own error, from a request that no machine can serve."""
    found = trial(dataset, tmp_path / "t", space=f"{__name__}.HungrySpace")
    assert (found.state, found.cause) == ("failed", "oom")
    assert found.reason.startswith("memory ran out")


def test_a_bug_is_told_as_one_with_its_traceback(dataset: DatasetVersion, tmp_path: Path) -> None:
    found = trial(dataset, tmp_path / "t", how={"batch_size": "many"})
    assert (found.state, found.cause) == ("failed", "bug")
    assert "ValueError" in found.reason
    assert "Traceback" in (tmp_path / "t" / "error.txt").read_text()


def test_causes_are_told_apart() -> None:
    assert cause_of(MemoryError()) == "oom"
    assert cause_of(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")) == "oom"
    assert cause_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == "bug"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"


def test_a_trial_that_rests_is_carried_on_as_if_it_had_not(dataset: DatasetVersion, tmp_path: Path) -> None:
    """At every rung its values are those of that moment, of the schedule of the full length; the search's own epochs do not count."""
    whole = trial(dataset, tmp_path / "whole", options={"full_epochs": 4})
    assert whole.fidelity["epochs"] == 4
    for rung in (1, 3):
        part = trial(dataset, tmp_path / "t", options={"epochs": rung, "full_epochs": 4})
        assert part.state == "complete"
        assert part.fidelity["epochs"] == rung
        assert part.history[-1]["learning_rate"] == whole.history[rung - 1]["learning_rate"]
    assert trial(dataset, tmp_path / "t", options={"epochs": 4, "full_epochs": 4}).identity == whole.identity


def test_kept_weights_are_those_that_were_judged(dataset: DatasetVersion, tmp_path: Path) -> None:
    found = trial(dataset, tmp_path / "t", options={"weights": tmp_path / "weights.safetensors"})
    candidate = found.candidate
    network = build_network({"_target_": "components.models.space.convnet.ConvNet"}, candidate, dataset, 0)
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert validate(network.eval(), dataset, load_rows(dataset, "validation"), "accuracy") == pytest.approx(found.values)


def test_a_prepared_network_is_what_is_trained(dataset: DatasetVersion, tmp_path: Path) -> None:
    """A head of zeros before a training whose rate is nearly nothing: the answers stay at chance."""

    def forget(network: nn.Module) -> None:
        for parameter in network.parameters():
            nn.init.zeros_(parameter)

    found = trial(dataset, tmp_path / "t", how={"learning_rate": 1e-12}, options={"prepare": forget})
    assert found.values["log_loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_folds_share_out_every_row_once_and_evenly() -> None:
    targets = torch.tensor([0] * 40 + [1] * 11)
    fold_N = folds_of(targets, 5, by_class=True)
    assert torch.equal(fold_N, folds_of(targets, 5, by_class=True))
    assert sorted(torch.bincount(fold_N).tolist()) == [10, 10, 10, 10, 11]
    assert sorted(torch.bincount(fold_N[targets == 1]).tolist()) == [2, 2, 2, 2, 3]
    assert fold_N[:40].unique_consecutive().numel() > 20, "neighbouring rows must not share a fold"


def test_a_fold_holds_out_what_it_does_not_train_on(dataset: DatasetVersion) -> None:
    """Training and validation rows are taken together: each is held out once, none is on both sides."""
    everything = [load_rows(dataset, split) for split in ("train", "validation")]
    pooled = torch.cat([rows.fields["image"] for rows in everything]).flatten(1).tolist()
    held_out: list[list[int]] = []
    for fold in range(3):
        train, validation = load_fold(dataset, fold, 3)
        held_out += (rows := validation.fields["image"].flatten(1).tolist())
        assert len(train) + len(validation) == len(pooled)
        assert not {tuple(row) for row in rows} & {tuple(row) for row in train.fields["image"].flatten(1).tolist()}
    assert sorted(held_out) == sorted(pooled)
    assert len(load_fold(dataset, 0, 3, limit=50)[0]) == 50


def test_a_trial_on_folds_is_the_mean_of_its_folds(dataset: DatasetVersion, tmp_path: Path) -> None:
    found = trial(dataset, tmp_path / "t", search={"epochs": 2, "folds": 3})
    assert found.state == "complete"
    assert found.fidelity == {"epochs": 2.0, "rows": 213, "folds": 3}
    assert [(row["fold"], row["epoch"]) for row in found.history] == [(fold, epoch) for fold in range(3) for epoch in (1, 2)]
    kept = [read_checkpoint(tmp_path / "t" / f"fold{fold}" / "last.ckpt")["learner"]["best_metrics"] for fold in range(3)]
    assert found.values["accuracy"] == pytest.approx(sum(metrics["accuracy"] for metrics in kept) / 3)
    assert len({metrics["log_loss"] for metrics in kept}) == 3


def test_a_trial_on_folds_goes_on_after_a_kill(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Folds that were finished are not trained again, and what comes out is the same."""
    whole = trial(dataset, tmp_path / "whole", search={"epochs": 2, "folds": 3})

    def kill(event: str, **fields: Any) -> None:
        if fields["epoch"] == 4:
            raise Cut

    with pytest.raises(Cut):
        trial(dataset, tmp_path / "t", search={"epochs": 2, "folds": 3}, options={"emit": kill})
    told: list[tuple[int, int]] = []
    again = trial(
        dataset, tmp_path / "t", search={"epochs": 2, "folds": 3},
        options={"emit": lambda event, **fields: told.append((fields["epoch"], fields["epochs"]))},
    )  # fmt: skip
    assert (1, 6) not in told
    assert told[-1] == (6, 6)
    assert again.identity == whole.identity


@pytest.mark.parametrize(("setting", "rows", "folds"), [(None, 200, None), ("auto", 200, 5), ("auto", 5_000, None), (3, 5_000, 3)])
def test_number_of_folds(setting: Any, rows: int, folds: int | None) -> None:
    assert num_folds(setting, rows) == folds


@pytest.mark.parametrize("setting", [1, 0, "five", 2.5, True, 500])
def test_a_wrong_number_of_folds_is_refused(setting: Any) -> None:
    with pytest.raises(UsageError, match=r"search\.folds is null, auto or a number of folds from 2 to 200"):
        num_folds(setting, 200)
