"""A batch that does not fit is taken in parts: the same steps, and what is found out is not forgotten."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.artifacts import Candidate, DatasetVersion
from components.augmentation.policy.affine import Affine
from components.augmentation.policy.noise import Noise
from components.compression.distillation.logits import Logits
from components.models.network import build_network
from components.training import memory
from components.training.checkpoint import read_checkpoint
from components.training.fit import Fit, fit
from components.training.share import ShareOfRows, cut
from tests.components.models import tiny
from tests.components.training.test_fit import CONVNET, HOW, MLP, OPTIMIZERS, SMALL_CONVNET, SMALL_MLP, Killed, equal, told, weights

FP64 = {"threads": 1, "memory_format": "contiguous", "precision": "fp64"}
FOCAL = {"focal": {"_target_": "components.training.loss.focal.Focal"}}
CPU = "components.training.trainer.cpu.Cpu"
BYTES_PER_ROW = 16 * 2**20


def network_for(dataset: DatasetVersion, **changes: Any) -> nn.Module:
    """With group normalisation, for which a row's output does not depend on the others."""
    image = dataset.modality == "image"
    architecture = {**SMALL_CONVNET, "norm": "group", **changes} if image else {**SMALL_MLP, **changes}
    candidate = Candidate(space="it", architecture=architecture, hyperparameters=HOW)
    return build_network(CONVNET if image else MLP, candidate, dataset, 0)


def train(dataset: DatasetVersion, network: nn.Module | None = None, how: dict[str, Any] | None = None, **options: Any) -> Fit:
    policy = Affine() if dataset.modality == "image" else Noise()
    options = {"epochs": 3, "numerics": FP64, "policy": policy, **options}
    network = network or network_for(dataset)
    options.setdefault("optimizers", OPTIMIZERS)
    return fit(network, dataset, {**HOW, **(how or {})}, seed=0, objective="accuracy", **options)


def assert_same_training(one: Fit, other: Fit) -> None:
    """The same steps but for the order in which sums are taken."""
    assert one.steps == other.steps
    losses = [[row["train_loss"] for row in fitted.history] for fitted in (one, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    assert all(torch.allclose(a.double(), b.double(), atol=1e-9) for a, b in zip(weights(one), weights(other)))
    assert losses[0][0] != losses[0][-1]


CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "weighted focal": {"how": {"loss": "focal"}, "losses": FOCAL, "training": {"class_weights": {"1": 5.0}}},
    "stochastic depth and l1": {"training": {"stochastic_depth": 0.5, "l1": 1e-3}},
    "taught": {"distiller": Logits(), "training": {"class_weights": {"0": 3.0}}},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["stripes", "table"])
def test_a_batch_in_parts_is_the_whole_batch(tmp_path: Path, kind: str, case: str) -> None:
    """With augmentation, dropout, ensembles, weights of classes and a teacher, in float64: 32 rows in 4 parts of 8."""
    dataset = getattr(tiny, kind)(tmp_path)
    options = dict(CASES[case])
    if "distiller" in options:
        options["teacher"] = network_for(dataset, width=12).double()
    assert_same_training(train(dataset, halvings=2, **options), train(dataset, **options))


@pytest.mark.parametrize("kind", ["stripes", "table"])
def test_accumulated_batches_are_one_large_batch(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of the optimizer for four batches, the same as for one four times as large."""
    dataset = getattr(tiny, kind)(tmp_path)
    large = train(dataset, how={"batch_size": 32})
    taken, seen = [], []
    step, forward = torch.optim.AdamW.step, nn.Module.__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        return step(self, *args, **kwargs)

    def noted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.training and isinstance(self, nn.Linear | nn.Conv2d):
            seen.append(len(args[0]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    monkeypatch.setattr(nn.Module, "__call__", noted)
    found = train(dataset, how={"batch_size": 8}, trainer={"_target_": CPU, "accumulate": 4})
    assert_same_training(found, large)
    assert sum(taken) == found.steps == 3 * (240 // 32)
    assert max(seen) == 8, "no more rows than a batch's go through the network at once"


def test_draws_for_a_share_are_its_rows_of_the_whole_batchs() -> None:
    """Of dropout (of values and of channels, in both layouts), and of plain random numbers; others stay."""
    values = torch.randn(6, 4, 3, 3)
    for draw in (
        lambda x: nn.functional.dropout(x, 0.4),
        lambda x: nn.functional.dropout(x.to(memory_format=torch.channels_last), 0.4),
        lambda x: nn.functional.dropout2d(x, 0.4),
        lambda x: x + torch.rand(len(x), 1, 1, 1) + torch.rand_like(x),
    ):
        torch.manual_seed(0)
        whole = draw(values)
        for share in cut(6, parts=3):
            torch.manual_seed(0)
            with ShareOfRows(share, 6):
                assert torch.equal(draw(values[share]), whole[share])
    with ShareOfRows(slice(0, 2), 6):
        assert torch.rand(5).shape == (5,)


@pytest.mark.parametrize(("rows", "size", "parts"), [(32, 1, 1), (33, 2, 4), (7, 3, 64), (5, 5, 2)])
def test_shares_cover_the_batch_once_and_ranks_have_equally_many(rows: int, size: int, parts: int) -> None:
    shares = [cut(rows, rank=rank, size=size, parts=parts) for rank in range(size)]
    assert [row for share in itertools.chain(*shares) for row in range(rows)[share]] == list(range(rows))
    assert len({len(share) for share in shares}) == 1
    assert all(part.stop > part.start for share in shares for part in share)


class Hungry(nn.Module):
    """A network that takes `BYTES_PER_ROW` for each row of a batch while it trains."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(*inputs)
        if self.training:
            outputs = outputs + 0 * torch.ones(len(outputs), BYTES_PER_ROW // 4).mean(dim=1, keepdim=True)
        return outputs


def _starve(folder: Path, megabytes: int) -> None:
    """In a process of its own: trains with so much more address space than it has now, and writes down what happened."""
    dataset, told_of = tiny.stripes(folder), []
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + megabytes * 2**20, resource.RLIM_INFINITY))
    fitted = train(
        dataset, Hungry(network_for(dataset)), numerics=None, epochs=1, scratch=folder / "s",
        emit=lambda event, **fields: told_of.append({"event": event, **fields}),
    )  # fmt: skip
    (folder / "told.json").write_text(json.dumps({"events": told_of, "steps": fitted.steps}))


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    """For real: 32 rows ask for 512 MB in one piece where there are 300; 16 do with 256."""
    child = multiprocessing.get_context("fork").Process(target=_starve, args=(tmp_path, 300))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    found = json.loads((tmp_path / "told.json").read_text())
    halved = [row for row in found["events"] if row["event"] == "batch.halved"]
    assert [(row["halvings"], row["parts"], row["rows"], row["step"]) for row in halved] == [(1, 2, 32, 1)]
    assert found["steps"] == 240 // 32, "as many steps as without"
    assert read_checkpoint(tmp_path / "s" / "last.ckpt")["learner"]["halvings"] == 1


class Limited(nn.Module):
    """A network that runs out of memory for more than so many rows, from a step on."""

    def __init__(self, inner: nn.Module, most: int, since: int = 0) -> None:
        super().__init__()
        self.inner, self.most, self.since, self.calls = inner, most, since, 0

    def forward(self, *inputs: Tensor) -> Tensor:
        self.calls += self.training
        if self.training and self.calls > self.since and len(inputs[0]) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        outputs: Tensor = self.inner(*inputs)
        return outputs


def test_halved_in_the_middle_it_goes_on_as_if_from_the_start(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path)
    found = train(dataset, Limited(network_for(dataset), most=8, since=10))
    assert_same_training(found, train(dataset))


def test_a_resumed_training_keeps_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the halving, it does not try again what failed, and ends in the same bits."""
    monkeypatch.setattr("components.training.fit.CHECKPOINT_SECONDS", 0.0)
    dataset, told_of = tiny.stripes(tmp_path), []

    def limited() -> nn.Module:
        return Limited(network_for(dataset), most=16)

    def kill_at_the_second(event: str, **fields: Any) -> None:
        if event == "epoch" and fields["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, limited(), scratch=tmp_path / "s", emit=kill_at_the_second)
    resumed = train(dataset, limited(), scratch=tmp_path / "s", emit=lambda event, **_: told_of.append(event))
    whole = train(dataset, limited())
    assert set(told_of) == {"epoch"}
    assert equal(resumed, whole)
    assert told(resumed) == told(whole)


def test_after_six_halvings_the_error_is_the_users_to_see(tmp_path: Path) -> None:
    dataset, told_of = tiny.stripes(tmp_path), []
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        train(
            dataset, Limited(network_for(dataset), most=0), how={"batch_size": 128},
            emit=lambda event, **fields: told_of.append(fields["parts"]),
        )  # fmt: skip
    assert told_of == [2, 4, 8, 16, 32, 64]


def test_another_error_is_not_taken_for_memory(tmp_path: Path) -> None:
    class Wrong(Hungry):
        def forward(self, *inputs: Tensor) -> Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(tiny.stripes(tmp_path), Wrong(nn.Linear(1, 1)), emit=lambda *_, **__: pytest.fail("told of a halving"))


def test_a_training_that_the_kernel_killed_starts_with_halved_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it did not come back and the kernel has killed a process for want of memory since; six times at most."""
    kills = [3]
    monkeypatch.setattr(memory, "oom_kills", lambda: kills[0])
    assert memory.note_start(tmp_path) == 0
    assert memory.note_start(tmp_path) == 0, "killed by somebody else"
    kills[0] += 1
    assert memory.note_start(tmp_path) == 1
    memory.note_end(tmp_path)
    kills[0] += 1
    assert memory.note_start(tmp_path) == 1, "came back"
    for _ in range(9):
        kills[0] += 1
        memory.note_start(tmp_path)
    assert memory.halvings(tmp_path) == memory.MOST == 6
    assert memory.halve(tmp_path) is None
