"""What every trainer choice must keep, whichever yaml names it; and that choices which do not keep it are found out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import build
from components.errors import UsageError
from components.fingerprint import ROOT
from components.training import devices
from components.training.devices import num_gpus, require
from tests.components.models import tiny
from tests.components.training import together
from tests.components.training.test_group import run
from tests.components.training.test_memory import assert_same_training, train

CONF = Path(__file__).resolve().parents[2] / "conf" / "trainer"
MEMBERS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("*.yaml"))}
SEVERAL = [name for name, node in MEMBERS.items() if "devices" in node]
BROKEN = "tests.contracts.broken.trainer"
WITHOUT_TORCH = """
import json, sys
from components import build
build.allow("tests")
for node in json.loads(sys.argv[1]):
    build.build(node)
print([name for name in ("torch", "lightning") if name in sys.modules])
"""


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


def check(node: dict[str, Any], folder: Path) -> None:
    """The contract of what a member says, and of one device: as many as asked, accumulation that happens, the same training."""
    trainer = build.build(node)
    assert trainer.accelerator in devices.ACCELERATORS
    assert trainer.devices == node.get("devices", 1), "a device that nobody asked for"
    assert (trainer.accumulate, trainer.compile) == (1, False), "no more than is asked for"
    with pytest.raises(UsageError, match=r"trainer\.accumulate must be a whole number of at least 1, got 0"):
        build.build({**node, "accumulate": 0})
    with pytest.raises(UsageError, match=r"trainer\.compile is true or false, got 'yes'"):
        build.build({**node, "compile": "yes"})
    if "accelerator" in node:
        node = {**node, "accelerator": "cpu"}
    if build.build(node).accelerator == "gpu":
        return
    dataset = tiny.stripes(folder)
    assert_same_training(train(dataset, trainer=node), train(dataset))
    assert_same_training(train(dataset, trainer={**node, "accumulate": 3}), train(dataset, how={"batch_size": 96}))


def imports_torch(*nodes: dict[str, Any]) -> bool:
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(nodes)], cwd=ROOT, capture_output=True, text=True, check=True
    )  # fmt: skip
    return found.stdout.strip() != "[]"


def test_there_are_members() -> None:
    assert set(MEMBERS) >= {"cpu", "gpu", "ddp", "fsdp"}
    assert set(SEVERAL) >= {"ddp", "fsdp"}


@pytest.mark.parametrize("name", MEMBERS)
def test_trainer_keeps_its_contract(name: str, tmp_path: Path) -> None:
    check(MEMBERS[name], tmp_path)


@pytest.mark.parametrize("name", ["Forgetful", "Greedy", "Lenient"])
def test_broken_trainer_fails(name: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check({"_target_": f"{BROKEN}.{name}"}, tmp_path)


def test_members_are_built_without_torch() -> None:
    """A plan, or a mistake in the settings, does not wait for it; the broken one does."""
    assert not imports_torch(*MEMBERS.values())
    assert imports_torch({"_target_": f"{BROKEN}.Eager"})


@pytest.mark.parametrize("name", MEMBERS)
def test_every_argument_has_its_comment(name: str) -> None:
    rows = [line for line in (CONF / f"{name}.yaml").read_text().splitlines() if re.match(r"\w", line) and not line.startswith("_target_")]
    assert rows
    assert all("  # " in row for row in rows)


def together_as_alone(node: dict[str, Any], folder: Path) -> None:
    """The contract of several devices: two processes take the steps that one takes."""
    dataset = tiny.stripes(folder)
    found = run("once", (dataset,), folder, {"trainer": {**node, "devices": 2, "accelerator": "cpu"}, "plugins": ["tests"]})
    with together.losses_of_steps() as losses:
        train(dataset, **together.BRIEF, numerics=together.FP32)
    assert found["losses"] == pytest.approx(losses, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_several_devices_keep_the_contract(name: str, tmp_path: Path) -> None:
    together_as_alone(MEMBERS[name], tmp_path)


@pytest.mark.slow
def test_processes_that_do_not_exchange_gradients_fail(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        together_as_alone({"_target_": f"{BROKEN}.Apart"}, tmp_path)


# ---- devices that are not there -------------------------------------------------------------------------------


def gpus(folder: Path, number: int) -> Path:
    for name in [*(f"nvidia{k}" for k in range(number)), "nvidiactl", "nvidia-uvm"]:
        (folder / name).touch()
    return folder


def test_gpus_are_counted_as_far_as_they_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert num_gpus(tmp_path) == 0
    assert num_gpus(gpus(tmp_path, 4)) == 4
    for visible, number in (("0,2", 2), ("", 0), ("-1", 0), ("0,1,2,3,4,5", 4)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert num_gpus(tmp_path) == number


@pytest.mark.parametrize(
    ("node", "there", "line"),
    [
        (MEMBERS["gpu"], 0, "the trainer asks for 1 GPU and there is none here; take trainer=cpu"),
        ({**MEMBERS["ddp"], "accelerator": "gpu", "devices": 3}, 2, "trainer.devices is 3 and this machine has 2 GPUs; ask for at most 2"),
        ({**MEMBERS["fsdp"], "accelerator": "gpu"}, 0, "the trainer asks for 2 GPUs and there is none here; take trainer=cpu"),
    ],
)  # fmt: skip
def test_more_devices_than_there_are_is_one_sentence(node: dict[str, Any], there: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "num_gpus", lambda: there)
    with pytest.raises(UsageError) as caught:
        require(build.build(node))
    assert str(caught.value) == line


def test_gpus_are_taken_where_there_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, accelerator in ((1, "cpu"), (2, "gpu"), (8, "gpu")):
        monkeypatch.setattr(devices, "num_gpus", lambda there=there: there)
        assert build.build({**MEMBERS["ddp"], "accelerator": "auto", "devices": 2}).accelerator == accelerator
    with pytest.raises(UsageError, match=r"unknown trainer\.accelerator 'gup'; did you mean 'gpu'"):
        build.build({**MEMBERS["ddp"], "accelerator": "gup"})


def test_no_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"trainer\.compile needs a C\+\+ compiler and there is none here"):
        require(build.build({**MEMBERS["cpu"], "compile": True}))
    require(build.build(MEMBERS["cpu"]))
