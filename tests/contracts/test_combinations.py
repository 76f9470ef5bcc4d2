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
from components.search.compatibility import check

CONF = Path(__file__).resolve().parents[2] / "conf"
FAMILIES = ("space", "strategy", "scheduler", "evaluator")
MEMBERS = {family: sorted(path.stem for path in (CONF / family).glob("*.yaml")) for family in FAMILIES}
NODES = {(family, name): yaml.safe_load((CONF / family / f"{name}.yaml").read_text()) for family in FAMILIES for name in MEMBERS[family]}
Choice = dict[str, str]


def refusal(choice: Choice, num_objectives: int) -> str | None:
    config: dict[str, Any] = {family: NODES[family, name] for family, name in choice.items()}
    try:
        check(config, build.build(config["space"]), num_objectives)
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
    """Following the advice of a refusal, one word at a time, ends in a combination that is accepted."""
    accepted = 0
    for names in itertools.product(*(MEMBERS[family] for family in FAMILIES)):
        choice, steps = dict(zip(FAMILIES, names)), 0
        while (said := refusal(choice, num_objectives)) is not None:
            assert "\n" not in said
            advice = re.search(r"choose (\w+)=(\w+)", said)
            assert advice, f"{choice}: {said}"
            family, name = advice.groups()
            assert name in MEMBERS[family], said
            assert choice[family] != name, f"{choice}: {said} advises what is chosen"
            choice, steps = choice | {family: name}, steps + 1
            assert steps <= 4, f"{names}: the advice leads in circles, last: {said}"
        accepted += steps == 0
    assert accepted >= len(MEMBERS["space"]) * 10


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
