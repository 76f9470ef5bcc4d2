"""What every distillation must keep, whichever yaml names it; and that those which do not keep it are found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from components import build

CONF = Path(__file__).resolve().parents[2] / "conf" / "distillation"
MEMBERS = sorted(path.stem for path in CONF.glob("*.yaml"))
BROKEN = "tests.contracts.broken.distillation"


@pytest.fixture(autouse=True)
def _own_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_plugins", {"tests"})


def check(config: dict[str, Any]) -> None:
    """The contract, for classification and regression."""
    distiller = build.build(config)
    assert isinstance(distiller.makes_student, bool)
    for task, width in (("classification", 5), ("regression", 1)):
        generator = torch.Generator().manual_seed(0)
        teacher, student = torch.randn(32, width, generator=generator) * 3, torch.randn(32, width, generator=generator) * 3
        check_labels_only_for_the_teacher_itself(distiller, teacher, task)
        if distiller.makes_student:
            check_student_is_drawn_to_the_teacher(distiller, student, teacher, task)


def check_labels_only_for_the_teacher_itself(distiller: Any, teacher: torch.Tensor, task: str) -> None:
    nothing = distiller(teacher.clone(), teacher, torch.zeros(()), task)
    assert nothing.shape == (), "a loss is one number"
    assert abs(float(nothing)) < 1e-5, "a teacher distilled into itself has no loss but the labels'"
    assert float(distiller(teacher.clone(), teacher, torch.ones(()), task)) > 0, "labels must count"


def check_student_is_drawn_to_the_teacher(distiller: Any, student: torch.Tensor, teacher: torch.Tensor, task: str) -> None:
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    losses = []
    for _ in range(30):
        loss = distiller(student, teacher, torch.zeros(()), task)
        (gradient,) = torch.autograd.grad(loss, student)
        losses.append(float(loss.detach()))
        with torch.no_grad():
            student -= 0.5 * len(student) * gradient.clamp(-1, 1)
    assert losses[-1] < 0.9 * losses[0], "following the gradient must bring the student nearer to the teacher"
    assert losses[0] > 0


def test_there_are_members() -> None:
    assert len(MEMBERS) >= 2


@pytest.mark.parametrize("name", MEMBERS)
def test_distillation_keeps_its_contract(name: str) -> None:
    check(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", ["PushesAway", "DeafToLabels", "NeverSatisfied"])
def test_broken_distillation_fails(name: str) -> None:
    with pytest.raises(AssertionError):
        check({"_target_": f"{BROKEN}.{name}"})
