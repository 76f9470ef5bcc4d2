"""Real reports of real small models, evaluated once per session; each test gets a state folder and registry of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components.artifacts import DatasetVersion, Decision, EvaluationReport, ModelVersion
from components.registry.promote import promote
from components.registry.register import register
from components.workspace import Workspace
from tests.components.registry import small_models
from tests.conftest import ROOT

Reports = dict[str, EvaluationReport]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """The digits as a dataset version."""
    return small_models.dataset(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def reports(data: DatasetVersion, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """By name: `good`, `equal` to it (nearly the same answers), `smaller` (the same in half the bytes), `poor`, `shuffled` labels."""
    folder = tmp_path_factory.mktemp("models")
    coefficients, intercept = small_models.weights()
    choices: dict[str, Any] = {
        "good": (coefficients, intercept),
        "equal": (coefficients * np.float32(1.001), intercept),
        "smaller": (coefficients.astype(np.float16), intercept),
        "poor": small_models.weights(100),
        "shuffled": small_models.weights(shuffled=True),
    }
    return {name: small_models.report(folder / name, data, *fitted, name=name) for name, fitted in choices.items()}


@pytest.fixture(scope="session")
def gates() -> dict[str, Any]:
    """The gates that the pipeline uses by default."""
    return {name: yaml.safe_load((ROOT / "conf" / "gate" / f"{name}.yaml").read_text()) for name in ("beats_baseline", "beats_champion")}


@pytest.fixture
def file_version(home: Path, reports: Reports, tmp_path: Path) -> Callable[..., ModelVersion]:
    """Registers a report by name."""

    def register_one(name: str, **config: Any) -> ModelVersion:
        facts = {
            "run": f"run-{name}",
            "seed": 0,
            "config": {"space": {"depth": 3}},
            "git": "0123456789ab",
            "code": {"components/x.py": "aa"},
        }
        return register(reports[name], {"model": None, **config}, Workspace(out=tmp_path / f"register-{name}"), facts)

    return register_one


@pytest.fixture
def decide(file_version: Callable[..., ModelVersion], gates: dict[str, Any], tmp_path: Path) -> Callable[..., Decision]:
    """Registers a report by name and lets the gates decide."""

    def register_and_promote(name: str, **config: Any) -> Decision:
        return promote(file_version(name), {"gate": gates, **config}, Workspace(out=tmp_path / f"promote-{name}"))

    return register_and_promote
