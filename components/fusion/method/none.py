"""No fusion: the teacher alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.artifacts import TrainedModel

if TYPE_CHECKING:
    from components.fusion.pool import Pool


class PassTeacherOn:
    """The trials that did not win are not used."""

    def fuse(self, pool: Pool) -> TrainedModel:
        return pool.teacher
