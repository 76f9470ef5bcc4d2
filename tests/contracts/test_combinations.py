"""Every space with every strategy, scheduler and evaluator: it goes together, or one line says what would."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import build
from components.errors import UsageError
from components.models.declared import declared
from components.search.compatibility import check, offers_of

CONF = Path(__file__).resolve().parents[2] / "conf"
FAMILIES = ("space", "strategy", "scheduler", "evaluator")
MEMBERS = {family: sorted(path.stem for path in (CONF / family).glob("*.yaml")) for family in FAMILIES}
NODES = {(family, name): yaml.safe_load((CONF / family / f"{name}.yaml").read_text()) for family in FAMILIES for name in MEMBERS[family]}
Choice = dict[str, str]


SPACES = {name: build.build(NODES["space", name]) for name in MEMBERS["space"]}


def refusal(choice: Choice, num_objectives: int, *, is_built: bool = True) -> str | None:
    """Why `check` refuses, with the space itself or from what it declares."""
    config: dict[str, Any] = {family: NODES[family, name] for family, name in choice.items()}
    try:
        check(config, SPACES[choice["space"]] if is_built else None, num_objectives)
    except UsageError as error:
        return str(error)
    return None


def test_the_families_are_there() -> None:
    """What the walk below finds."""
    assert {"convnet", "cell", "mlp"} <= set(MEMBERS["space"])
    assert {"random", "tpe", "evolution", "darts"} <= set(MEMBERS["strategy"])
    assert {"none", "asha", "hyperband"} == set(MEMBERS["scheduler"])
    assert {"train", "inherit", "zero_cost"} <= set(MEMBERS["evaluator"])


@pytest.mark.parametrize("num_objectives", [1, 2])
def test_all_pairs_go_together_or_say_what_would(num_objectives: int) -> None:
    """Whichever advice of a refusal is followed, it is none that was followed already and ends in what is accepted."""
    accepted = 0
    for names in itertools.product(*(MEMBERS[family] for family in FAMILIES)):
        choice = dict(zip(FAMILIES, names))
        said = refusal(choice, num_objectives)
        accepted += said is None
        for change in advised(said) if said else ():
            assert all(choice[family] != name for family, name in change.items()), f"{choice}: {said} advises what is chosen"
            assert refusal(choice | change, num_objectives) is None, f"{choice}: {change} does not help, it was {said}"
    assert accepted >= len(MEMBERS["space"]) * 10


def advised(said: str) -> list[Choice]:
    """The changes, of one member or two, that a refusal says would do."""
    assert "\n" not in said
    advice = re.search(r"choose (\w+=\w+(?: (?:or )?\w+=\w+)*)", said)
    assert advice, said
    return [dict(word.split("=") for word in change.split()) for change in advice[1].split(" or ")]  # type: ignore[misc]


def test_what_a_space_declares_is_what_it_is() -> None:
    """So that a refusal is the same before its module, and torch, is imported."""
    for names in itertools.product(*(MEMBERS[family] for family in FAMILIES)):
        choice = dict(zip(FAMILIES, names))
        assert refusal(choice, 1, is_built=False) == refusal(choice, 1)
    for name, space in SPACES.items():
        found = declared(NODES["space", name]["_target_"])
        assert found is not None
        assert (found.modality, found.offers) == (space.modality, offers_of(space))
        assert found.settings.keys() == NODES["space", name].keys() - {"_target_"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"space": "cell", "scheduler": "asha", "evaluator": "zero_cost"}, "scheduler=asha needs an evaluator that trains epoch by epoch"),
        ({"space": "mlp", "strategy": "darts"}, "strategy=darts needs"),
    ],
)
def test_impossible_pairs_are_named(choice: Choice, message: str) -> None:
    """The refusal names the member, what it lacks and a choice."""
    said = refusal({"space": "convnet", "strategy": "random", "scheduler": "none", "evaluator": "train"} | choice, 1)
    assert said is not None
    assert message in said
    assert "choose " in said
