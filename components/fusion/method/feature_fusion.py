"""Feature fusion: one head over what several networks see, their own heads cut off.

`late` puts all features side by side under one linear layer, which begins as the mean of the networks' own; `attention` lets
each row weigh them. The networks stay as they are while the head is trained; afterwards all may be trained together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.artifacts import JSON, TrainedModel
from components.errors import UnknownNameError
from components.settings import number, whole

if TYPE_CHECKING:
    from components.fusion.pool import Pool

HEADS = ("late", "attention")


class FeatureFusion:
    """`head` late or attention over at most `members` models; `epochs` train the head alone, `together` all of it.

    `learning_rate` is the head's share of the best model's own, with which the whole is trained a tenth as fast. The
    objective or the loss of the validation rows must gain by `certainty` standard errors.
    """

    def __init__(
        self, *, head: str = "late", members: int = 3, epochs: int = 10, together: int = 0, learning_rate: float = 0.3,
        certainty: float = 1.0,
    ) -> None:  # fmt: skip
        if head not in HEADS:
            raise UnknownNameError("fusion.head", head, HEADS)
        self.head, self.members = head, whole("fusion.members", members, 2)
        self.epochs, self.together = whole("fusion.epochs", epochs, 1), whole("fusion.together", together, 0)
        self.learning_rate = number("fusion.learning_rate", learning_rate, 0.0, above=True)
        self.certainty = number("fusion.certainty", certainty, 0.0)

    def fuse(self, pool: Pool) -> TrainedModel:
        """The best single model where the fused one is no better, or diverges."""
        from components.fusion.features import trained  # imports torch, which reading the settings does without
        from components.fusion.pool import share_of
        from components.training.failure import DivergedError
        from components.training.learner import predict

        models = self._chosen(pool)
        if len(models) < 2:
            return pool.best
        try:
            fitted = trained(pool, models, self.head, self.epochs, self.together, self.learning_rate)
        except DivergedError as error:
            pool.leave_out("the fused network", error)
            return pool.best
        answers = predict(fitted.network.eval(), pool.dataset, pool.rows)
        if not pool.is_worth_it(answers, self.certainty):
            return pool.best
        return pool.fused(
            "features", models, {"head": self.head}, fitted.network, pool.score(answers), parents=tuple(model.identity for model in models),
            members=tuple(share_of(model) for model in models), truncated=fitted.truncated, history=fitted.history,
            epochs=fitted.epochs, seconds=fitted.seconds,
        )  # fmt: skip

    def _chosen(self, pool: Pool) -> list[TrainedModel]:
        """The best single model and the next ones of other architectures, then others: encoders that see different things."""
        order = [pool.best, *(model for model in pool.able if model is not pool.best)]
        seen: list[JSON] = []
        first, rest = [], []  # type: list[TrainedModel], list[TrainedModel]
        for model in order:
            (rest if model.candidate.architecture in seen else first).append(model)
            seen.append(model.candidate.architecture)
        return [*first, *rest][: self.members]
