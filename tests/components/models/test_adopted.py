"""A space of one architecture: everything that asks a space is answered, and nothing but hyper-parameters is left to draw."""

from __future__ import annotations

from random import Random

import pytest

from components.build import build
from components.models.parent import Parent, adopting
from components.models.points import Points
from components.search.proposal import propose
from tests.components.models import tiny
from tests.components.training.parents import methods, parent_of
from tests.components.training.test_fit import OPTIMIZERS
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    folder = tmp_path_factory.mktemp("adopted")
    dataset = tiny.stripes(folder / "data", rows={"train": 64, "validation": 32, "test": 32})
    return Parent.of(parent_of(dataset, folder / "parent", epochs=1).model, dataset)


def test_it_draws_the_parents_architecture_and_nothing_else(parent: Parent) -> None:
    space, architecture = build(adopting({}, parent)["space"]), parent.model.candidate.architecture
    points = Points(lambda trial: space.sample(trial, parent.dataset))
    assert (points.draw(Random(0)).params, points.draw(Random(0)).value) == ({}, architecture)
    assert (space.size(parent.dataset), space.neighbours(architecture, parent.dataset)) == (1, [])
    assert space.encode(architecture, parent.dataset) == []
    assert space.num_parameters(architecture, parent.dataset.inputs, 2) == parent.model.num_parameters
    assert space.modality == "image"


def test_it_shrinks_as_the_parents_space_does(parent: Parent) -> None:
    """Also with adapters, which a student has no use for."""
    space, architecture = build(adopting({}, parent)["space"]), parent.model.candidate.architecture
    small = space.shrink({**architecture, "adapters": 4})
    assert small == build(parent.model.space).shrink(architecture)
    assert sum(p.numel() for p in space.build(small, parent.dataset.inputs, 2).parameters()) < parent.model.num_parameters


STRATEGIES = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("darts", "oneshot", "grid")])
def test_every_strategy_searches_what_is_left(parent: Parent, strategy: str) -> None:
    """Hyper-parameters and, where several are named, the method; grid needs finitely many values, the others a supernet."""
    import yaml

    config = {
        **adopting({}, parent), "optimizer": OPTIMIZERS, "finetune": methods(), "search": {},
        "strategy": yaml.safe_load((ROOT / "conf" / "strategy" / f"{strategy}.yaml").read_text()),
        "evaluator": {"_target_": "components.search.evaluator.train.Train"},
    }  # fmt: skip
    trial = propose([], parent.dataset, config, direction="maximize", seed=1)
    assert trial is not None
    assert trial.user_attrs["candidate"]["architecture"] == parent.model.candidate.architecture
    assert trial.params["hp.finetune"] in methods()
    assert not [name for name in trial.params if name.startswith("arch.")]
