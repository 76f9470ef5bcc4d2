"""The devices there are, counted without importing torch, so that asking for more is refused before anything starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from components.errors import UnknownNameError, UsageError
from components.processes import available_cores
from components.settings import whole
from components.training.interface import Trainer

ACCELERATORS = ("cpu", "gpu")
COMPILERS = ("g++", "clang++", "c++")  # what torch.compile looks for


def num_gpus(device_files: Path = Path("/dev")) -> int:
    """NVIDIA GPUs that this process may use: their device files, as far as CUDA_VISIBLE_DEVICES leaves them."""
    found = sum(path.name.removeprefix("nvidia").isdigit() for path in device_files.glob("nvidia[0-9]*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    return min(found, sum(bool(name.strip()) and name.strip() != "-1" for name in visible.split(",")))


def require(trainer: Trainer) -> None:
    """Raises `UsageError` where this machine has too few devices for a trainer, or lacks a compiler that it needs."""
    there = num_gpus() if trainer.accelerator == "gpu" else available_cores()
    if trainer.devices > there:
        raise UsageError(_too_few(trainer, there))
    require_compiler(trainer)


def require_compiler(trainer: Trainer) -> None:
    """Raises `UsageError` where a trainer compiles and there is nothing to compile with."""
    if trainer.compile and not _compiler():
        raise UsageError("trainer.compile needs a C++ compiler and there is none here ($CXX, g++, clang++); install one or leave it out")


def _too_few(trainer: Trainer, there: int) -> str:
    if trainer.accelerator == "gpu" and not there:
        return f"the trainer asks for {_counted(trainer.devices, 'GPU')} and there is none here; take trainer=cpu"
    unit = "GPU" if trainer.accelerator == "gpu" else "core"
    return f"trainer.devices is {trainer.devices} and this machine has {_counted(there, unit)}; ask for at most {there}"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)


def several(devices: Any) -> int:
    """The argument `devices` of a trainer. Raises `UsageError`."""
    return whole("trainer.devices", devices, 1)


def accelerator_for(name: str, devices: int) -> str:
    """The argument `accelerator` of a trainer, with `auto` decided: GPUs if there are as many. Raises `UnknownNameError`."""
    if name not in ("auto", *ACCELERATORS):
        raise UnknownNameError("trainer.accelerator", str(name), ["auto", *ACCELERATORS])
    if name == "auto":
        return "gpu" if num_gpus() >= devices else "cpu"
    return name


def accumulated(batches: Any) -> int:
    """The argument `accumulate` of a trainer. Raises `UsageError`."""
    return whole("trainer.accumulate", batches, 1)


def compiles(setting: Any) -> bool:
    """The argument `compile` of a trainer. Raises `UsageError`."""
    if not isinstance(setting, bool):
        raise UsageError(f"trainer.compile is true or false, got {setting!r}")
    return setting
