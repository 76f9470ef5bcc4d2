"""A trial tells its result as a record whatever happens, and is the same for the same seed and number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from components import build
from components.artifacts import AugmentationPolicy, Candidate, DatasetVersion, Trial
from components.models.space.convnet import ConvNet
from components.training.failure import cause_of, reason_of
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
    dataset: DatasetVersion, folder: Path, number: int = 0, space: str = "", how: dict[str, Any] | None = None, **config: Any
) -> Trial:
    candidate = Candidate(space="convnet", architecture=SMALL_CONVNET, hyperparameters={**HOW, **(how or {})})
    sections = {
        "space": {"_target_": space or "components.models.space.convnet.ConvNet"}, "optimizer": OPTIMIZERS, "search": {"epochs": 2},
        "training": {"memory_format": "contiguous", "precision": "fp32"}, "metrics": {"objective": None}, "seed": 0, **config,
    }  # fmt: skip
    return run_trial(dataset, POLICY, candidate, sections, number, folder, rows=config.get("rows"))


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
