"""The search as it is used: real networks, trained by Lightning in processes forked from the preloaded server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.artifacts import AugmentationPolicy, SearchResult
from components.data.version import version
from components.search.search import search
from components.workspace import Workspace

CONF = Path(__file__).resolve().parents[3] / "conf"


def read(choice: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / f"{choice}.yaml").read_text())
    found.pop("defaults", None)
    return found


@pytest.mark.slow
def test_digits_search_learns_and_is_a_function_of_its_seed(tmp_path: Path) -> None:
    """Three one-worker trials of convolutional networks: all complete, better than chance by far, the same twice."""
    dataset = version({"dataset": read("dataset/digits"), "split": {"validation": 0.15, "test": 0.2}}, Workspace(out=tmp_path / "data"))
    policy = AugmentationPolicy(name="affine", modality="image", config=read("augmentation/affine"))
    config = {
        "space": read("space/convnet"),
        **{family: read(f"{family}/{name}") for family, name in (("scheduler", "none"), ("evaluator", "train"), ("runner", "process"))},
        "strategy": read("strategy/tpe"),
        "optimizer": {"adamw": read("optimizer/adamw")},
        "training": {"memory_format": "contiguous"},
        "search": {"trials": 3, "workers": 1, "epochs": 3, "rows": None, "trial_seconds": None},
        "metrics": {"objective": None},
    }

    def run(name: str) -> SearchResult:
        return search(dataset, policy, config, Workspace(out=tmp_path / "out", scratch=tmp_path / name))

    first, again = run("a"), run("b")
    assert [t.state for t in first.trials] == ["complete"] * 3
    assert first.best_trial.values["accuracy"] > 0.8
    assert [(t.candidate, t.values) for t in first.trials] == [(t.candidate, t.values) for t in again.trials]
    assert {t.candidate.space for t in first.trials} == {"convnet"}
    kept = [[t.weights and t.weights.sha256 for t in result.trials] for result in (first, again)]
    assert all(kept[0])
    assert kept[0] == kept[1]
    assert all(len(t.history) == 3 and t.num_parameters > 1000 for t in first.trials)
