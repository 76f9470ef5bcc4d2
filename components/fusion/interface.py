"""What a way of fusing is: it makes one model of several.

A member lives in `components/fusion/method/<name>.py` beside `conf/fusion/<name>.yaml`.
"""

from __future__ import annotations

from typing import Protocol

from components.artifacts import TrainedModel
from components.fusion.pool import Pool


class Method(Protocol):
    """Makes one model of those in a pool.

    Validation chooses: where fusing brings nothing, it returns the best single model of the pool (or its teacher) as it
    is. What it makes has its weights below `pool.work.out`, names every model that has a part in it among its `parents`
    and `members`, and says the validation metrics that it reaches, or more modest ones. Without a limit in seconds it is
    a function of the pool and the seed.
    """

    def fuse(self, pool: Pool) -> TrainedModel: ...
