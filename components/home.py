"""Where Athanor keeps its state: `ATHANOR_HOME`, by default `.athanor` in the current folder."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Absolute path of the state folder; it need not exist yet."""
    return Path(os.environ.get("ATHANOR_HOME") or ".athanor").absolute()


def database(name: str) -> str:
    """The absolute `sqlite:///` URI of one of the home's separate databases: mlflow, studies or prefect."""
    return f"sqlite:///{home() / f'{name}.db'}"
