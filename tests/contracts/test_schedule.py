"""What every schedule choice must keep, whichever yaml names it; and that choices which do not keep it are found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components import build
from components.errors import UsageError
from components.training.interface import Schedule

CONF = Path(__file__).resolve().parents[2] / "conf" / "schedule"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.schedule"
POINTS = [k / 200 for k in range(201)]


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


def check(config: dict[str, Any]) -> None:
    """The contract: a function of the progress, never zero, never above the searched rate, which it reaches."""
    schedule, twin = build.build(config), build.build(config)
    factors = [schedule.factor(point) for point in POINTS]
    assert factors == [twin.factor(point) for point in POINTS], "the same progress must have the same rate"
    assert all(0 < factor <= 1 + 1e-9 for factor in factors), "the rate must stay above 0 and within its peak"
    assert max(factors) > 0.98, "the peak must be reached"
    momenta = [schedule.momentum(point) for point in POINTS]
    assert all(momentum is None or 0 <= momentum < 1 for momentum in momenta), "a momentum lies in 0..1"


def member(name: str) -> Schedule:
    found: Schedule = build.build(yaml.safe_load((CONF / f"{name}.yaml").read_text()))
    return found


def test_there_are_members() -> None:
    assert len(MEMBERS) >= 4


@pytest.mark.parametrize("name", MEMBERS)
def test_schedule_keeps_its_contract(name: str) -> None:
    check(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", ["Steep", "Dead", "Whimsical"])
def test_broken_schedule_fails(name: str) -> None:
    with pytest.raises(AssertionError):
        check({"_target_": f"{BROKEN}.{name}"})


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "constant"])
def test_it_rises_then_falls(name: str) -> None:
    """Every one but the constant has its peak within the first half, and ends far below it."""
    factors = [member(name).factor(point) for point in POINTS]
    peak = factors.index(max(factors))
    assert 0 < peak < 100
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] <= 0.02


def test_the_cycle_turns_momentum_against_the_rate() -> None:
    """Where the rate is highest, momentum is lowest (Smith and Topin, 2018)."""
    schedule = member("one_cycle")
    momenta = [schedule.momentum(point) or 0.0 for point in POINTS]
    factors = [schedule.factor(point) for point in POINTS]
    assert momenta.index(min(momenta)) == factors.index(max(factors))
    assert momenta[0] == momenta[-1] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        ("cosine.Cosine", {"warmup": 1.0}, r"schedule\.cosine\.warmup .* 0\.9"),
        ("one_cycle.OneCycle", {"least_momentum": 0.9, "most_momentum": 0.8}, "least_momentum"),
        ("warmup_decay.WarmupDecay", {"shape": "linnear"}, "linear"),
    ],
)
def test_mistakes_are_said_in_one_sentence(target: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        build.build({"_target_": f"components.training.schedule.{target}", **settings})
    assert "\n" not in str(error.value)
