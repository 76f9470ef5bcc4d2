"""torch.compile compiles, and a GPU, where there is one, trains as the CPU does."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.artifacts import DatasetVersion
from components.augmentation.policy.affine import Affine
from components.augmentation.policy.flip_crop import FlipCrop
from components.errors import UsageError
from components.training.batches import load_rows
from components.training.calibrate import calibrate
from components.training.fit import Fit, on_gpu
from components.training.learner import Average, predict
from tests.components.models import tiny
from tests.components.training.test_fit import Killed, told, weights
from tests.components.training.test_memory import Limited, network_for, train

CPU, GPU = ({"_target_": f"components.training.trainer.{name}.{name.capitalize()}"} for name in ("cpu", "gpu"))
FP32, BF16 = ({"threads": 1, "memory_format": "channels_last", "precision": name} for name in ("fp32", "bf16"))
PLAIN: dict[str, Any] = {"numerics": {"threads": 1, "memory_format": "contiguous", "precision": "fp32"}}


def still(dataset: DatasetVersion) -> nn.Module:
    """A network without dropout, which draws other numbers on other devices."""
    network = network_for(dataset)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def close(one: Fit, other: Fit, within: float) -> bool:
    return all(torch.allclose(a, b, atol=within) for a, b in zip(weights(one), weights(other)))


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("kind", ["stripes", "table"])
def test_a_compiled_network_is_trained(tmp_path: Path, kind: str) -> None:
    """Inductor's code is called for every step, and its weights end where the others do."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler is at hand")
    from torch._dynamo.utils import counters

    dataset = getattr(tiny, kind)(tmp_path)
    counters.clear()
    torch._dynamo.reset()
    compiled = train(dataset, still(dataset), trainer={**CPU, "compile": True}, **PLAIN)
    assert counters["inductor"], "something must have been compiled"
    assert counters["stats"]["calls_captured"] > 0
    assert close(compiled, train(dataset, still(dataset), **PLAIN), within=1e-3)
    assert type(compiled.network) is type(network_for(dataset)), "what comes out is not compiled"


def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="torch finds none here; take trainer=cpu"):
        train(tiny.stripes(tmp_path), trainer=GPU)


# ---- run by `make test-gpu` -----------------------------------------------------------------------------------


@pytest.fixture
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no GPU is at hand")
    return "cuda"


@pytest.fixture(params=["stripes", "table"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetVersion:
    found: DatasetVersion = getattr(tiny, request.param)(tmp_path)
    return found


@pytest.mark.gpu
def test_a_gpu_trains_as_the_cpu_does(gpu: str, dataset: DatasetVersion) -> None:
    """The same batches in the same order; sums differ in their last bits. What comes out is on the CPU."""
    there, here = (train(dataset, still(dataset), **PLAIN, trainer=trainer) for trainer in (GPU, CPU))
    assert [row["train_loss"] for row in there.history] == pytest.approx([row["train_loss"] for row in here.history], abs=1e-2)
    assert {tensor.device.type for tensor in weights(there)} == {"cpu"}
    assert there.metrics["accuracy"] > 0.8


@pytest.mark.gpu
def test_rows_that_fit_stay_on_the_gpu(gpu: str, dataset: DatasetVersion) -> None:
    """So a batch is cut there; streamed rows are not moved."""
    fields, targets = on_gpu(load_rows(dataset, "train")).at(torch.tensor([3, 1]))
    assert {values.device.type for values in (*fields.values(), targets)} == {gpu}
    streamed = load_rows(dataset, "train", data="stream")
    assert on_gpu(streamed) is streamed


@pytest.mark.gpu
@pytest.mark.parametrize("numerics", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("where", ["memory", "stream"])
def test_resumed_on_the_gpu(gpu: str, tmp_path: Path, numerics: dict[str, Any], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within an epoch, with dropout: the same random numbers are drawn, so the losses are the same but for the last bits."""
    dataset = tiny.stripes(tmp_path / "data")
    options: dict[str, Any] = {"numerics": numerics, "trainer": GPU, "training": {"data": where, "workers": 0}}
    step = Average.step

    def kill_at_ten(self: Average, steps: int) -> None:
        if steps == 10:
            raise Killed
        step(self, steps)

    whole = train(dataset, **options)
    with monkeypatch.context() as patch:
        patch.setattr("components.training.fit.WITHIN_SECONDS", 0.0)
        patch.setattr(Average, "step", kill_at_ten)
        with pytest.raises(Killed):
            train(dataset, scratch=tmp_path / "s", **options)
    resumed = train(dataset, scratch=tmp_path / "s", **options)
    assert [row["train_loss"] for row in told(resumed)] == pytest.approx([row["train_loss"] for row in told(whole)], rel=1e-2)


@pytest.mark.gpu
def test_memory_that_runs_out_on_the_gpu_halves_the_batch(gpu: str, tmp_path: Path) -> None:
    """For real: a network that asks for a fortieth of the GPU for each row."""
    events: list[int] = []
    inner = network_for(tiny.stripes(tmp_path))
    free = torch.cuda.mem_get_info()[0]

    class Hungry(Limited):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            outputs = self.inner(*inputs)
            if not self.training:
                return outputs
            return outputs + 0 * torch.ones(len(outputs), free // 25 // 4, device=outputs.device).mean(dim=1, keepdim=True)

    train(
        tiny.stripes(tmp_path), Hungry(inner, most=0), epochs=1, trainer=GPU, numerics=FP32,
        emit=lambda event, **fields: events.append(fields["parts"]) if event == "batch.halved" else None,
    )  # fmt: skip
    assert events == [2]


@pytest.mark.gpu
def test_weights_of_classes_reach_the_gpu(gpu: str, tmp_path: Path) -> None:
    """Those of the settings times those of the loss, which are counted from the rows."""
    losses = {"class_weighted": {"_target_": "components.training.loss.class_weighted.ClassWeighted"}}
    found = train(
        tiny.stripes(tmp_path), trainer=GPU, numerics=FP32, how={"loss": "class_weighted"}, losses=losses,
        training={"class_weights": {"1": 5.0}},
    )  # fmt: skip
    assert found.metrics["accuracy"] > 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("policy", [FlipCrop(), Affine()], ids=["flip_crop", "affine"])
def test_rows_are_varied_on_the_gpu_as_on_the_cpu(gpu: str, policy: Any) -> None:
    images, targets = torch.rand(8, 3, 12, 12), torch.zeros(8)
    here, there = (
        policy({"image": images.to(device)}, targets, torch.Generator().manual_seed(1), 0.5)[0]["image"].cpu() for device in ("cpu", gpu)
    )  # fmt: skip
    assert torch.allclose(here, there, atol=1e-3)
    assert not torch.equal(here, images)


@pytest.mark.gpu
def test_a_gpu_accumulates_and_compiles(gpu: str, dataset: DatasetVersion) -> None:
    large = train(dataset, still(dataset), **PLAIN, how={"batch_size": 64}, trainer=GPU)
    found = train(dataset, still(dataset), **PLAIN, trainer={**GPU, "accumulate": 2, "compile": True})
    assert found.steps == large.steps
    assert [row["train_loss"] for row in found.history] == pytest.approx([row["train_loss"] for row in large.history], abs=1e-2)


@pytest.mark.gpu
def test_layouts_are_measured_on_the_gpu(gpu: str, tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path)
    network, rows = network_for(dataset), load_rows(dataset, "train")
    inputs = [rows.fields[field.name] for field in dataset.inputs]
    before = copy.deepcopy(network.state_dict())
    assert calibrate(network, inputs, device=gpu)["threads"] == 1
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.gpu
def test_a_network_on_the_gpu_is_judged_there(gpu: str, dataset: DatasetVersion) -> None:
    network, rows = network_for(dataset).eval(), load_rows(dataset, "validation")
    here = predict(network, dataset, rows)
    assert predict(network.to(gpu), dataset, on_gpu(rows)) == pytest.approx(here, abs=1e-3)
