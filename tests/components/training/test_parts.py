"""Checkpoints, schedule and calibration, each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.errors import UnknownNameError
from components.training.calibrate import calibrate, settle
from components.training.checkpoint import SafeCheckpointIO, read_checkpoint
from components.training.learner import Average
from components.training.progress import Progress


def test_a_checkpoint_round_trips_without_pickle(tmp_path: Path) -> None:
    """Nested dictionaries with keys of any kind, tuples, tensors of several types, tied and strided tensors."""
    tied = torch.arange(6).reshape(2, 3).t()
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "mean": torch.randn(2)}, "x": tied, "same": tied},
        "betas": (0.9, 0.98), "none": None, "flag": True, "text": "é", "empty": {}, "list": [1, {"a": torch.zeros(0)}],
        "__tensor__": "a name that looks like ours",
    }  # fmt: skip
    SafeCheckpointIO().save_checkpoint(tree, tmp_path / "c.ckpt")
    back = read_checkpoint(tmp_path / "c.ckpt")
    assert back["betas"] == (0.9, 0.98)
    assert back["state"][0]["step"].dtype == torch.float32
    assert torch.equal(back["state"]["x"], tied)
    assert {k: v for k, v in back.items() if k not in ("state", "list")} == {k: v for k, v in tree.items() if k not in ("state", "list")}
    assert list(tmp_path.iterdir()) == [tmp_path / "c.ckpt"]
    assert b"pickle" not in (tmp_path / "c.ckpt").read_bytes()


def test_a_checkpoint_refuses_what_is_not_plain(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values, got PosixPath"):
        SafeCheckpointIO().save_checkpoint({"x": Path("/")}, tmp_path / "c.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_progress_follows_steps_or_time_whichever_is_further() -> None:
    now = [100.0]
    progress = Progress(total_steps=10, seconds=50.0, clock=lambda: now[0])
    progress.steps = 2
    assert progress.value == pytest.approx(0.2)
    now[0] = 125.0
    assert progress.value == pytest.approx(0.5)
    now[0] = 150.0
    assert progress.is_over


def test_progress_without_a_limit_ignores_the_clock() -> None:
    now = [0.0]
    progress = Progress(total_steps=4, clock=lambda: now[0])
    progress.steps = 3
    now[0] = 1e9
    assert progress.value == 0.75


def test_resumed_progress_goes_on_where_it_was() -> None:
    now = [0.0]
    progress = Progress(total_steps=100, seconds=10.0, clock=lambda: now[0])
    progress.resume(steps=5, elapsed=40.0, progress=0.6)
    assert progress.value == pytest.approx(0.6)
    now[0] = 5.0
    assert progress.value == pytest.approx(0.8)
    assert progress.total_seconds == pytest.approx(45.0)


def test_averaged_weights_follow_a_constant_network_and_smooth_a_jumping_one() -> None:
    kept, fresh = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(kept.weight)
    average = Average(kept, fresh, 0.99)
    for step in range(1, 401):
        nn.init.constant_(fresh.weight, 1.0 + (-1) ** step)
        average.step(step)
    assert kept.weight.item() == pytest.approx(1.0, abs=0.1)


def test_no_decay_is_no_average() -> None:
    kept, fresh = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(fresh.weight, 7.0)
    fresh(torch.randn(4, 2))
    Average(kept, fresh, 0.0).step(100)
    assert all(torch.equal(a, b) for a, b in zip(kept.state_dict().values(), fresh.state_dict().values()))


def test_calibration_leaves_the_network_and_the_thread_count_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    image = torch.randn(4, 1, 8, 8)
    before, threads, state = [t.clone() for t in network.state_dict().values()], torch.get_num_threads(), torch.get_rng_state()
    numerics = calibrate(network, [image])
    assert numerics["memory_format"] in ("contiguous", "channels_last")
    assert numerics["precision"] in ("fp32", "bf16")
    assert numerics["threads"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values()))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(("slowest", "threads"), [(0.6, 2), (0.9, 1), (20.0, 1)])
def test_several_threads_must_be_faster_at_their_slowest(monkeypatch: pytest.MonkeyPatch, slowest: float, threads: int) -> None:
    """On a machine that others use too they are fast now and then and slow in between."""
    watched = []

    def seconds(network: nn.Module, inputs: list[torch.Tensor], numerics: dict[str, Any], steps: int, device: str) -> list[float]:
        watched.append((numerics["threads"], steps))
        return [1.0] * steps if numerics["threads"] == 1 else [*[0.5] * (steps - 1), slowest]

    monkeypatch.setattr("components.training.calibrate._step_seconds", seconds)
    assert calibrate(nn.Linear(2, 2), [torch.randn(4, 2)], threads=(1, 2))["threads"] == threads
    assert watched == [(1, 3), (2, 12)]


def test_settled_numerics_come_from_the_candidate_then_the_setting() -> None:
    network, inputs = nn.Conv2d(1, 4, 3), [torch.randn(4, 1, 8, 8)]
    written = {"threads": 1, "memory_format": "channels_last", "precision": "fp32"}
    assert settle(network, inputs, written, {"memory_format": "contiguous"}, None) == written
    assert settle(network, inputs, {}, {"memory_format": "channels_last", "precision": "fp32"}, None) == written
    assert settle(network, inputs, {}, {"precision": "bf16"}, None)["precision"] == "bf16"
    with pytest.raises(UnknownNameError, match="did you mean 'channels_last'"):
        settle(network, inputs, {}, {"memory_format": "chanels_last"}, None)
