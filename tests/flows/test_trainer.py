"""The trainer a user names: refused at once where it cannot be had, a part of the right keys, and a whole run with it."""

from __future__ import annotations

import pytest

from components.errors import UsageError
from components.fingerprint import SourceCache
from components.training.devices import num_gpus
from flows import stage as door
from flows.ahead import judge
from flows.config import load
from flows.keys import key_parts
from flows.table import STAGES
from tests.flows.conftest import SMALL, Athanor


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer=gpu"], "the trainer asks for 1 GPU and there is none here; take trainer=cpu"),
        (["trainer=ddp", "trainer.devices=4000"], r"trainer\.devices is 4000 and this machine has \d+ cores?; ask for at most \d+$"),
        (["trainer=fsdp", "trainer.devices=none"], r"trainer\.devices must be a whole number of at least 1, got 'none'"),
        (["trainer.accumulate=0"], r"trainer\.accumulate must be a whole number of at least 1, got 0"),
        (["trainer=cpu", "trainer.devices=2"], "unknown key in trainer 'devices'"),
        (["trainer=dpp"], "unknown trainer 'dpp'; did you mean 'ddp'"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_starts(words: list[str], line: str) -> None:
    if num_gpus() and words == ["trainer=gpu"]:
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=line) as caught:
        judge(load(words), None)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("stage", "differs"), [("search", False), ("train", True), ("distill", True)])
def test_how_many_devices_is_a_part_of_the_full_trainings_keys_alone(stage: str, differs: bool) -> None:
    """A trial takes one device whatever is asked; sums over two have other last bits than over one."""
    sources, row = SourceCache(), STAGES[stage]
    keys = {
        key_parts(row, None, load(["trainer=ddp", f"trainer.devices={number}"]).section(row.reads), 0, sources).key for number in (1, 2)
    }  # fmt: skip
    assert (len(keys) == 2) == differs


def test_torchrun_around_a_stage_names_the_right_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, by rank 0, before the run is opened."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert door.main(["train", "trainer=ddp"]) == 0
    monkeypatch.setenv("RANK", "0")
    assert door.main(["train", "trainer=ddp"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["athanor: a training starts torchrun itself; leave it out: python -m flows.stage train trainer=ddp trainer.devices=2"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_a_run_on_two_devices_promotes_a_model(fresh: Athanor, trainer: str) -> None:
    """Both full trainings are groups of processes; what they leave is exported like any other; again there is nothing to do."""
    words = [*SMALL, f"trainer={trainer}", "trainer.devices=2", "trainer.accelerator=cpu"]
    assert fresh.json("run", *words)["promoted"]
    assert {step["state"] for step in fresh.json("plan", *words)["stages"].values()} == {"cached"}
