"""No fusion: the teacher alone."""

from __future__ import annotations

from components.artifacts import TrainedModel
from components.fusion.pool import Pool


class PassTeacherOn:
    """The trials that did not win are not used."""

    def fuse(self, pool: Pool) -> TrainedModel:
        return pool.teacher
