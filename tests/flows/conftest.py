"""One small finished run that many tests look at, and the means to start `athanor` as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.fingerprint import ROOT

SMALL = ("experiment=ci", "search.trials=2", "search.epochs=1", "training.epochs=2")


@dataclass(frozen=True)
class Athanor:
    """`athanor` in a state folder of its own."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ATHANOR_HOME": str(self.home), "PYTHONPATH": str(ROOT)}

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *words], cwd=self.home.parent, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def __call__(self, *words: str, code: int = 0) -> str:
        """Standard output of a command that must end with `code`."""
        process = self.start(*words)
        out, err = process.communicate(timeout=280)
        assert process.returncode == code, f"athanor {' '.join(words)} ended with {process.returncode}, not {code}:\n{out}\n{err}"
        return out

    def fails(self, *words: str, code: int) -> str:
        """The one line on standard error of a command that must end with `code`."""
        process = self.start(*words)
        out, err = process.communicate(timeout=280)
        assert process.returncode == code, f"athanor {' '.join(words)} ended with {process.returncode}, not {code}:\n{out}\n{err}"
        lines = [line for line in err.strip().splitlines() if line.startswith("athanor: ")]
        assert len(lines) == 1, err
        assert "Traceback" not in err
        return lines[0]

    def json(self, *words: str) -> Any:
        """The document of a command with `--json`."""
        return json.loads(self(*words, "--json"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Athanor, dict[str, Any]]:
    """A state folder in which one small run has finished, and that run's document. Look, do not change."""
    athanor = Athanor(tmp_path_factory.mktemp("finished") / "home")
    return athanor, athanor.json("run", *SMALL)


@pytest.fixture
def fresh(tmp_path: Path) -> Athanor:
    """An empty state folder."""
    return Athanor(tmp_path / "home")


@pytest.fixture
def copy_of_finished(finished: tuple[Athanor, dict[str, Any]], tmp_path: Path) -> Callable[[], Athanor]:
    """Copies the finished run's state folder, to be changed at will."""
    import shutil

    def make() -> Athanor:
        shutil.copytree(finished[0].home, tmp_path / "home", ignore=shutil.ignore_patterns("prefect*", "*.lock"))
        return Athanor(tmp_path / "home")

    return make
