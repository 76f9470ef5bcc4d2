"""The distill verb makes a smaller student that learned from its teacher, or passes the teacher on."""

from __future__ import annotations

from pathlib import Path

from components.artifacts import TrainedModel
from components.compression.distill import distill
from components.models.network import load_network
from components.workspace import Workspace
from tests.components.models import tiny
from tests.components.training.test_train import CONFIG, POLICY, teacher

LOGITS = {"_target_": "components.compression.distillation.logits.Logits", "weight": 0.8}
NONE = {"_target_": "components.compression.distillation.none.PassTeacherOn"}


def test_a_student_is_smaller_and_names_its_teacher(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path / "data")
    taught_by = teacher(dataset, tmp_path / "teacher")
    student = distill(dataset, POLICY, taught_by, {**CONFIG, "distillation": LOGITS}, Workspace(out=tmp_path / "student"))
    assert student.role == "student"
    assert student.parents == (taught_by.identity,)
    assert student.num_parameters < 0.6 * taught_by.num_parameters
    assert student.candidate.numerics["memory_format"] in ("contiguous", "channels_last")
    assert load_network(student, dataset)(*[dataset_rows(dataset)]).shape == (4, 2)


def dataset_rows(dataset: object) -> object:
    from components.training.batches import load_rows

    return load_rows(dataset, "test").fields["image"][:4]  # type: ignore[arg-type]


def test_labels_alone_train_another_student(tmp_path: Path) -> None:
    """The teacher has a part in the student's weights, unless its weight is 0."""
    dataset = tiny.stripes(tmp_path / "data")
    taught_by = teacher(dataset, tmp_path / "teacher")
    config = {**CONFIG, "training": {"epochs": 1, "memory_format": "contiguous"}}

    def student(name: str, weight: float) -> TrainedModel:
        node = {**LOGITS, "weight": weight}
        return distill(dataset, POLICY, taught_by, {**config, "distillation": node}, Workspace(out=tmp_path / name))

    assert student("a", 0.8).weights.sha256 == student("b", 0.8).weights.sha256 != student("c", 0.0).weights.sha256


def test_none_passes_the_teacher_on(tmp_path: Path) -> None:
    dataset = tiny.stripes(tmp_path / "data")
    taught_by = teacher(dataset, tmp_path / "teacher")
    same = distill(dataset, POLICY, taught_by, {**CONFIG, "distillation": NONE}, Workspace(out=tmp_path / "out"))
    assert same.identity == taught_by.identity
    assert same.weights.path.is_relative_to(tmp_path / "out")
