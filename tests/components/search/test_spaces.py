"""What a study makes of what spaces tell it: isomorphic networks are one candidate, and a space that tells nothing is searched too."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from components import build
from components.artifacts import JSON, Candidate
from components.models.cells import string_of
from components.models.hyperparameters import sample_hyperparameters
from components.models.space.cell import CellSpace
from components.search.proposal import Proposer, candidate_of, identity_of, problem_of
from tests.components.models import tiny

CONF = Path(__file__).resolve().parents[3] / "conf"
OPTIMIZER = {"adamw": yaml.safe_load((CONF / "optimizer" / "adamw.yaml").read_text())}
CONV, SKIP, NONE = "nor_conv_3x3", "skip_connect", "none"
# A convolution from the input to the output; and one from node 1, which is the input by a shortcut.
TWINS = (NONE, NONE, NONE, CONV, NONE, NONE), (SKIP, NONE, NONE, NONE, CONV, NONE)


class Stranger:
    """A space of five methods, as a package of a user's own may bring it."""

    modality = "image"

    def sample(self, trial: Any, dataset: Any) -> JSON:
        return {"width": trial.suggest_categorical("arch.width", [4, 8, 16])}

    def hyperparameters(self, trial: Any, dataset: Any, optimizers: Any) -> JSON:
        return sample_hyperparameters(trial, dataset, optimizers)

    def build(self, architecture: JSON, inputs: Any, num_outputs: int, dropout: float = 0.0) -> Any:
        raise NotImplementedError

    def shrink(self, architecture: JSON) -> JSON:
        raise NotImplementedError


def config_of(space: JSON, strategy: str) -> JSON:
    node = yaml.safe_load((CONF / "strategy" / f"{strategy}.yaml").read_text())
    return {"space": space, "strategy": node, "optimizer": OPTIMIZER, "search": {}}


def architecture_of(operations: tuple[str, ...]) -> JSON:
    return {"cell": string_of(operations), "channels": 16, "cells": 1, "stacks": 3, "largest_side": 16}


def test_isomorphic_cells_are_one_candidate() -> None:
    """Trained in the same way they are the same suggestion, so the second one is never made."""
    one, twin, other = (Candidate(space="cell", architecture=architecture_of(ops), hyperparameters={}) for ops in (*TWINS, (CONV,) * 6))
    space = CellSpace()
    assert one.architecture != twin.architecture
    assert identity_of(space, one) == identity_of(space, twin) != identity_of(space, other)
    assert identity_of(space, one) != identity_of(space, one.replace(hyperparameters={"dropout": 0.1}))


def test_a_model_of_the_objective_sees_isomorphic_cells_as_one_point(tmp_path: Path) -> None:
    """The key and the folded point agree, whatever the hyper-parameters, which are left as they are."""
    space, dataset = CellSpace(), tiny.stripes(tmp_path)
    problem = problem_of(space, dataset, config_of({}, "random"))
    one, twin = (problem.points.draw(Random(0), space.parameters(architecture_of(ops))) for ops in TWINS)
    twin = problem.points.draw(Random(0), {**one.params, **space.parameters(twin.value.architecture)})
    assert one.params != twin.params
    assert problem.key(one) == problem.key(twin)
    assert problem.fold(one).params == problem.fold(twin).params
    assert problem.fold(one).value.hyperparameters == one.value.hyperparameters


@pytest.mark.parametrize("strategy", sorted(path.stem for path in (CONF / "strategy").glob("*.yaml")))
def test_a_space_that_tells_nothing_is_searched(strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every strategy that asks nothing of the space: five candidates, all different."""
    monkeypatch.setattr(build, "_plugins", {"tests"})
    config = config_of({"_target_": f"{__name__}.Stranger"}, strategy)
    if getattr(build.build(config["strategy"]), "needs", frozenset()):
        pytest.skip(f"{strategy} needs a supernet, which the space must offer")
    proposer = Proposer(tiny.stripes(tmp_path), config, ["maximize"], seed=0)
    trials: list[Any] = []
    for number in range(5):
        found = proposer.propose()
        assert found is not None
        found.values, found.state = [number / 10], _complete()
        trials.append(found)
        proposer.show([found])
    assert len({identity_of(Stranger(), candidate_of(trial)) for trial in trials}) == 5


def _complete() -> Any:
    from optuna.trial import TrialState

    return TrialState.COMPLETE
