"""Searches with a supernet as they are used: trained in a process of its own, then trials in others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.artifacts import AugmentationPolicy, DatasetVersion, SearchResult
from components.search.search import search
from components.workspace import Workspace
from tests.components.models import tiny

CONF = Path(__file__).resolve().parents[3] / "conf"


def read(choice: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / f"{choice}.yaml").read_text())
    return found


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetVersion:
    return tiny.stripes(tmp_path / "data")


def run(dataset: DatasetVersion, folder: Path, trials: int, emit: Any = lambda event, **fields: None, **sections: Any) -> SearchResult:
    config = {
        "optimizer": {"adamw": read("optimizer/adamw")},
        "training": {"memory_format": "contiguous"},
        "search": {"trials": trials, "workers": 1, "epochs": 2, "rows": None, "trial_seconds": None},
        "metrics": {"objective": None},
        "scheduler": read("scheduler/none"),
        "runner": read("runner/process"),
        **sections,
    }
    policy = AugmentationPolicy(name="none", modality="image", config=read("augmentation/none"))
    return search(dataset, policy, config, Workspace(out=folder / "out", scratch=folder / "study", emit=emit))


@pytest.mark.slow
def test_darts_trains_what_it_derived(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The first trials are the derived cells in their order, trained like any other; a longer search goes on from the same
    supernet."""
    space = {**read("space/cell"), "channels": [4], "cells": [1]}
    strategy = {**read("strategy/darts"), "epochs": 4, "views": 2, "candidates": 2}
    sections = {"space": space, "strategy": strategy, "evaluator": read("evaluator/train")}
    first = run(dataset, tmp_path, 2, **sections)
    derived = [tuple(candidate.values()) for candidate in first.derived["candidates"]]
    tried = [tuple(op.partition("~")[0] for op in _edges(trial.candidate.architecture["cell"])) for trial in first.trials]
    assert tried == derived
    assert all(trial.state == "complete" and trial.history for trial in first.trials)
    events: list[str] = []
    longer = run(dataset, tmp_path, 3, lambda event, **fields: events.append(event), **sections)
    assert longer.derived["candidates"] == first.derived["candidates"]
    assert [trial.candidate for trial in longer.trials[:2]] == [trial.candidate for trial in first.trials]
    assert not [event for event in events if event == "supernet.progress"], "the supernet was trained twice"


def _edges(cell: str) -> list[str]:
    return [word for node in cell.split("+") for word in node.strip("|").split("|")]


@pytest.mark.slow
def test_any_strategy_searches_a_supernet_without_training(dataset: DatasetVersion, tmp_path: Path) -> None:
    """Evolution over twelve convolutional networks, none of them trained: values from the shared weights, no epochs."""
    strategy = {**read("strategy/oneshot"), "epochs": 2, "views": 2, "by": read("strategy/evolution")}
    found = run(dataset, tmp_path, 12, space=read("space/convnet"), strategy=strategy, evaluator=read("evaluator/supernet"))
    assert [trial.state for trial in found.trials] == ["complete"] * 12
    assert all(trial.fidelity == {"supernet": True} and not trial.history for trial in found.trials)
    assert len({trial.values["log_loss"] for trial in found.trials}) > 6
