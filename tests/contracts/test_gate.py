"""What every gate must do, asked of each yaml in conf/gate."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components.artifacts import Estimate, EvaluationReport, GateResult
from components.build import allow, build
from components.registry.contender import Contender
from components.registry.interface import Gate
from tests.components.registry import small_models

MEMBERS = sorted((Path(__file__).parents[2] / "conf" / "gate").glob("*.yaml"))
BROKEN = ["AlwaysYes", "AlwaysNo", "NewestWins", "Unseeded", "TrustsNaN", "Meddles", "SaysNothing"]
allow("tests")


@dataclass(frozen=True)
class Field:
    """Contenders whose case is clear for any sensible gate."""

    excellent: Contender
    hopeless: Contender
    undefined: Contender
    good: Contender
    poor: Contender


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("gates")
    data = small_models.dataset(folder / "data")

    def report(name: str, **fitted: Any) -> EvaluationReport:
        return small_models.report(folder / name, data, *small_models.weights(**fitted), name=name)

    good, poor, shuffled = report("good"), report("poor", num_rows=100), report("shuffled", shuffled=True)
    return Field(
        excellent=contender(good, 7),
        hopeless=contender(_resized(shuffled, 1e7), 7),
        undefined=_undefined(contender(good, 7)),
        good=contender(good, 3),
        poor=contender(poor, 3),
    )


def contender(report: EvaluationReport, version: int) -> Contender:
    return Contender(version, report, np.load(report.predictions.path), np.load(report.targets.path))


def _resized(report: EvaluationReport, size_kb: float) -> EvaluationReport:
    return report.replace(deployables=tuple(d.replace(size_kb=size_kb) for d in report.deployables))


def _undefined(given: Contender) -> Contender:
    nan = float("nan")
    report = _resized(given.report, nan).replace(test={n: Estimate(value=nan, low=nan, high=nan) for n in given.report.test})
    return replace(given, report=report, outputs=np.full_like(given.outputs, np.nan))


def _shuffled_rows(given: Contender) -> Contender:
    order = np.random.default_rng(5).permutation(len(given.targets))
    return replace(given, outputs=given.outputs[order], targets=given.targets[order])


def _copy(given: Contender) -> Contender:
    return replace(given, outputs=given.outputs.copy(), targets=given.targets.copy())


def conforms(gate: Any, field: Field) -> None:
    """Raises where a gate breaks the family's promise; what it is shown must stay as it is."""
    assert isinstance(gate, Gate)
    seen = Field(**{name: _copy(side) for name, side in vars(field).items()})
    decides(gate, seen)
    depends_on_figures_alone(gate, seen)
    for name, side in vars(field).items():
        assert np.array_equal(getattr(seen, name).outputs, side.outputs, equal_nan=True)
    explains(gate.judge(field.excellent, field.poor))
    explains(gate.judge(field.hopeless, field.good))


def decides(gate: Gate, field: Field) -> None:
    """Lets the excellent one pass, with a champion and without, and stops the hopeless one and the one without figures."""
    assert gate.judge(field.excellent, None).passed
    assert gate.judge(field.excellent, field.poor).passed
    assert not gate.judge(field.hopeless, field.good).passed
    assert not gate.judge(field.undefined, field.good).passed


def depends_on_figures_alone(gate: Gate, field: Field) -> None:
    """Says the same of the same contenders, whatever their numbers and the order of the rows."""
    first = gate.judge(field.excellent, field.poor)
    assert gate.judge(field.excellent, field.poor) == first
    assert gate.judge(_shuffled_rows(field.excellent), _shuffled_rows(field.poor)).passed
    assert not gate.judge(replace(field.hopeless, version=99), field.good).passed
    assert gate.judge(replace(field.excellent, version=1), field.poor).passed


def explains(result: GateResult) -> None:
    """Gives a rule, a figure in words, and figures that are JSON numbers."""
    assert result.name
    assert len(result.rule) > 10
    assert any(character.isdigit() for character in result.words)
    assert GateResult.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


def test_the_family_has_members() -> None:
    """The walk over conf/gate finds the yamls."""
    assert len(MEMBERS) >= 3


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.stem)
def test_every_gate_conforms(member: Path, field: Field) -> None:
    """Each choice keeps the promise with the arguments it ships with, and its module has the yaml's stem."""
    node = yaml.safe_load(member.read_text())
    assert node["_target_"].split(".")[-2] == member.stem
    conforms(build(node), field)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_gate_is_found_out(name: str, field: Field) -> None:
    """The suite has teeth."""
    with pytest.raises(AssertionError):
        conforms(build({"_target_": f"tests.contracts.broken.gate.{name}"}), field)
