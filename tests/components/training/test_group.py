"""Several processes train one network as one would, and whatever ends one of them ends or mends them all."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from components import processes
from components.artifacts import JSON, Candidate, DatasetVersion
from components.errors import DataError, UsageError
from components.training import ranks
from components.training.checkpoint import read_checkpoint
from components.training.group import in_group
from components.workspace import Workspace
from tests.components.models import tiny
from tests.components.training import together
from tests.components.training.test_fit import Killed
from tests.components.training.test_memory import train
from tests.conftest import ROOT

DDP = {"trainer": {"_target_": "components.training.trainer.ddp.Ddp", "devices": 2, "accelerator": "cpu"}}
Events = list[dict[str, Any]]


def run(verb: str, inputs: tuple[Any, ...], folder: Path, config: JSON | None = None, events: Events | None = None) -> JSON:
    """What a verb of `together` found, run by two processes."""

    def emit(event: str, **fields: Any) -> None:
        if events is not None:
            events.append({"event": event, **fields})

    work = Workspace(out=folder / "out", scratch=folder / "scratch", emit=emit)
    found: Candidate = in_group(f"tests.components.training.together:{verb}", inputs, {**DDP, **(config or {})}, work)
    return found.architecture


def difference(path: str, network: torch.nn.Module) -> float:
    kept = load_file(path)
    return max(float((kept[name] - value).abs().max()) for name, value in network.state_dict().items())


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetVersion, DatasetVersion]:
    folder = tmp_path_factory.mktemp("data")
    return tiny.stripes(folder), tiny.table(folder)


def test_two_processes_take_the_steps_of_one(datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path) -> None:
    """The short form of the slow tests below: ddp in float64, with events, a port on loopback only, and no pickle left."""
    events: Events = []
    found = run("briefly", (datasets[0],), tmp_path, events=events)
    with together.losses_of_steps() as losses:
        alone = train(datasets[0], **together.BRIEF)
    assert found["size"] == 2
    assert found["ddp"]["losses"] == pytest.approx(losses, abs=1e-9)
    assert difference(found["ddp"]["weights"], alone.network) < 1e-9
    assert found["sums"][0] == found["sums"][1], "averaged and chosen alike on both"
    assert [row["epoch"] for row in events if row["event"] == "epoch"] == [1, 2], "told once, by rank 0"
    assert set(found["listening"]) <= {"0100007F", "00000000000000000000000001000000"}, "hex of 127.0.0.1 and ::1"


@pytest.mark.parametrize("trainer", sorted(together.TRAINERS))
def test_a_group_trains_in_the_layout_that_a_trial_measured(
    datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path, trainer: str
) -> None:
    """Trials are measured on one device; weights with channels last are what PyTorch refuses to take into shards."""
    numerics = {**together.FP32, "memory_format": "channels_last"}
    found = run("once", (datasets[0],), tmp_path, {"trainer": together.TRAINERS[trainer], "numerics": numerics})
    with together.losses_of_steps() as losses:
        train(datasets[0], **together.BRIEF, numerics=numerics)
    assert found["losses"] == pytest.approx(losses, abs=1e-4)


@pytest.fixture(scope="module")
def found(datasets: tuple[DatasetVersion, DatasetVersion], tmp_path_factory: pytest.TempPathFactory) -> JSON:
    """Everything that one start of two processes can show."""
    return run("compare", datasets, tmp_path_factory.mktemp("group"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["image", "table"])
@pytest.mark.parametrize(("trainer", "within"), [("ddp", 1e-9), ("fsdp", 1e-4)])
def test_sixty_steps_have_the_losses_of_one_process(
    datasets: tuple[DatasetVersion, DatasetVersion], found: JSON, kind: str, trainer: str, within: float
) -> None:
    """The same global batch, group normalisation, augmentation and dropout; float64 with ddp, float32 with fsdp."""
    exact = {} if trainer == "ddp" else {"numerics": together.FP32}
    with together.losses_of_steps() as losses:
        alone = train(datasets[kind == "table"], **together.SIXTY, **exact)
    there = found[f"{trainer} {kind}"]
    assert there["steps"] == len(losses) == together.STEPS
    assert there["losses"] == pytest.approx(losses, abs=within)
    assert losses[-1] < 0.8 * losses[0]
    assert difference(there["weights"], alone.network) < within
    assert there["metrics"] == pytest.approx(alone.metrics, abs=100 * within)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_optimizer_takes_the_steps_of_one_process(datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path) -> None:
    """With every trainer: muon too, whose steps are made of whole matrices that fsdp keeps in shards."""
    nodes = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))}
    found = run("optimizers", datasets[:1], tmp_path, {"optimizer": nodes})
    for case, losses in found.items():
        trainer, _, name = case.partition(" ")
        exact = {} if trainer == "ddp" else {"numerics": together.FP32}
        how = {**together.BRIEF["how"], "optimizer": name}
        with together.losses_of_steps() as alone:
            train(datasets[0], **{**together.BRIEF, "how": how}, optimizers=nodes, **exact)
        assert losses == pytest.approx(alone, abs=1e-9 if trainer == "ddp" else 1e-4), case
    assert len(found) == len(nodes) * len(together.TRAINERS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("case", "options"), [("parts", {}), ("weighted", {"training": together.WEIGHTED})])
def test_so_they_have_with_parts_and_penalties(
    datasets: tuple[DatasetVersion, DatasetVersion], found: JSON, case: str, options: dict[str, Any]
) -> None:
    """Batches in parts on each device; weights of classes, L1, stochastic depth, and a norm of the whole gradient that is clipped."""
    with together.losses_of_steps() as losses:
        train(datasets[0], **together.SIXTY, **options)
    assert found[case]["losses"] == pytest.approx(losses, abs=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("trainer", sorted(together.TRAINERS))
def test_they_resume_within_an_epoch_bit_for_bit(found: JSON, trainer: str) -> None:
    """One checkpoint for all, written without pickle; only the steps after it are taken again."""
    row = found[f"{trainer} resumed"]
    kept, whole = (load_file(row[name]["weights"]) for name in ("resumed", "whole"))
    assert all(torch.equal(kept[name], whole[name]) for name in whole)
    assert row["resumed"]["history"] == row["whole"]["history"]
    assert len(row["resumed"]["losses"]) == len(row["whole"]["losses"]) - 10
    assert row["files"] == ["last.ckpt"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rank_0_decides_when_to_stop(found: JSON) -> None:
    """Early stopping and a time limit end all of them at the same step; else they would wait for each other for ever."""
    assert found["stopped"]["steps"] < 40 * 7
    assert not found["stopped"]["truncated"]
    assert found["limited"]["truncated"]
    assert found["limited"]["history"][-1]["learning_rate"] < 0.05 * 0.01


# ---- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_a_rank_raises_is_raised_here(datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path) -> None:
    """The first error and not those of the ranks that lost it; nothing is started again."""
    events: Events = []
    with pytest.raises(DataError, match="row 7 is not a number"):
        run("fail", (datasets[0],), tmp_path, {"how": "data"}, events)
    assert [row["event"] for row in events] == ["started"]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "why", "halvings"), [("killed", "SIGKILL", 0), ("memory", "memory ran out", 1)])
def test_a_rank_that_dies_ends_the_group_which_starts_again(
    datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path, how: str, why: str, halvings: int
) -> None:
    """Rank 0 waits for rank 1 and is ended; memory that ran out is remembered."""
    events: Events = []
    assert run("fail", (datasets[0],), tmp_path, {"how": how}, events) == {"size": 2}
    assert [row["event"] for row in events] == ["started", "group.restarted", "started"]
    assert why in events[1]["reason"]
    assert (tmp_path / "scratch" / "memory.json").exists() == bool(halvings)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _pids(scratch: Path) -> list[int]:
    """The ranks, once both are there."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = [path.read_text() for path in sorted(scratch.glob("pid-*"))]
        if len(found) == 2 and all(found):
            return [int(pid) for pid in found]
        time.sleep(0.05)
    raise AssertionError((scratch / "group" / "log.txt").read_text())


def _train_endlessly(folder: Path, dataset: DatasetVersion, emit: Any = None) -> None:
    run("fail", (dataset,), folder, {"how": "endless"})


@pytest.mark.slow
def test_the_ranks_die_with_their_caller(datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path) -> None:
    caller = multiprocessing.get_context("fork").Process(target=_train_endlessly, args=(tmp_path, datasets[0]))
    caller.start()
    ranks_of = _pids(tmp_path / "scratch")
    assert caller.pid
    os.kill(caller.pid, signal.SIGKILL)
    caller.join(10)
    until = time.monotonic() + 10
    while any(map(_is_alive, ranks_of)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_is_alive, ranks_of))


@pytest.mark.slow
def test_sigterm_to_the_caller_lets_every_rank_save(datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path) -> None:
    """As a run's worker is stopped: the ranks save the step they agree on, within an epoch, and end, then the worker."""
    checkpoint = tmp_path / "scratch" / "training" / "last.ckpt"
    with processes.Worker() as worker:
        worker.submit(_train_endlessly, tmp_path, datasets[0])
        ranks_of, until = _pids(tmp_path / "scratch"), time.monotonic() + 60
        while not checkpoint.exists() and time.monotonic() < until:
            time.sleep(0.05)
        before, told = read_checkpoint(checkpoint)["learner"]["steps"], time.time()
        processes.stop_workers(10)
        assert worker.process.exitcode == 143
    assert checkpoint.stat().st_mtime >= told
    assert not list(tmp_path.rglob("error-*.json")), "no rank was thrown out of its training"
    kept = read_checkpoint(checkpoint)["learner"]
    assert kept["steps"] > before
    assert kept["within"], "one of 120 steps of an epoch is the last"
    assert not any(map(_is_alive, ranks_of))


def test_more_devices_than_there_are_start_nothing(datasets: tuple[DatasetVersion, DatasetVersion], tmp_path: Path) -> None:
    config = {"trainer": {**DDP["trainer"], "devices": 1_000}}
    with pytest.raises(UsageError, match=r"trainer\.devices is 1000 and this machine has \d+ cores?; ask for at most"):
        run("briefly", (datasets[0],), tmp_path, config)
    assert not (tmp_path / "scratch" / "group").exists()


def test_alone_a_process_agrees_with_itself() -> None:
    """Without a group nothing of torch.distributed is asked, and the clock runs."""
    clock = ranks.Clock()
    first = clock()
    assert ranks.own() == ranks.Group(0, 1)
    assert ranks.shared(lambda: {"a": 1}) == {"a": 1}
    assert torch.equal(ranks.summed(torch.ones(2)), torch.ones(2))
    assert clock() >= first
    assert not clock.is_asked_to_stop
    assert not ranks.spans({})
    assert ranks.spans(DDP)


def test_a_batch_must_have_a_row_for_every_device(datasets: tuple[DatasetVersion, DatasetVersion], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_group", ranks.Group(0, 8))
    monkeypatch.setattr(ranks.Clock, "tick", lambda self: (_ for _ in ()).throw(Killed))
    with pytest.raises(UsageError, match="a batch has 4 rows, too few for 8 devices"):
        train(datasets[0], how={"batch_size": 4}, trainer=DDP["trainer"])


def test_events_that_are_half_written_wait(tmp_path: Path) -> None:
    from components.training.group import _pass_on

    heard: list[str] = []
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(["one", {}]) + "\n" + '["tw')
    told = _pass_on(path, 0, lambda event: heard.append(event))
    path.write_text(json.dumps(["one", {}]) + "\n" + json.dumps(["two", {}]) + "\n")
    _pass_on(path, told, lambda event: heard.append(event))
    assert heard == ["one", "two"]
