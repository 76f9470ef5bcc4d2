"""Feature fusion: one head over what several networks see, their own heads cut off.

`late` puts all features side by side under one linear layer, which begins as the mean of the networks' own; `attention` lets
each row weigh them. The networks stay as they are while the head is trained; afterwards all may be trained together.
"""

from __future__ import annotations

from components.artifacts import JSON, Candidate, TrainedModel
from components.build import build
from components.errors import UnknownNameError
from components.fusion.pool import Pool, share_of
from components.models.fused import FeatureNetwork, Late
from components.models.network import build_network
from components.settings import number, whole
from components.training import ranks
from components.training.batches import seed_of
from components.training.failure import DivergedError
from components.training.fit import Fit, fit
from components.training.learner import predict

HEADS = ("late", "attention")


class FeatureFusion:
    """`head` late or attention over at most `members` models; `epochs` train the head alone, `together` all of it.

    `learning_rate` is the head's share of the best model's own, with which the whole is trained a tenth as fast.
    """

    def __init__(self, *, head: str = "late", members: int = 3, epochs: int = 10, together: int = 0, learning_rate: float = 0.3) -> None:
        if head not in HEADS:
            raise UnknownNameError("fusion.head", head, HEADS)
        self.head, self.members = head, whole("fusion.members", members, 2)
        self.epochs, self.together = whole("fusion.epochs", epochs, 1), whole("fusion.together", together, 0)
        self.learning_rate = number("fusion.learning_rate", learning_rate, 0.0, above=True)

    def fuse(self, pool: Pool) -> TrainedModel:
        """The best single model where the fused one is no better, or diverges."""
        models = self._chosen(pool)
        if len(models) < 2:
            return pool.best
        try:
            fitted = self._trained(pool, models)
        except DivergedError as error:
            pool.leave_out("the fused network", error)
            return pool.best
        found = pool.score(predict(fitted.network.eval(), pool.dataset, pool.rows))
        if not pool.prefers(found, pool.best_metrics):
            return pool.best
        return pool.fused(
            "features", models, {"head": self.head}, fitted.network, found, parents=tuple(model.identity for model in models),
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

    def _trained(self, pool: Pool, models: list[TrainedModel]) -> Fit:
        network = self._begun(pool, models)
        network.hold(True)
        fitted = self._fit(pool, network, "head", self.epochs, self.learning_rate, 1.0 if not self.together else 0.5)
        left = pool.work.left()
        if not self.together or (left is not None and left < 0.5):
            return fitted
        assert isinstance(fitted.network, FeatureNetwork)
        fitted.network.hold(False)
        return self._fit(pool, fitted.network, "together", self.together, 0.1 * self.learning_rate, 1.0)

    def _begun(self, pool: Pool, models: list[TrainedModel]) -> FeatureNetwork:
        """Encoders with the models' weights under a head that begins as the mean of theirs, or is drawn from the seed."""
        nodes = [model.space for model in models]
        rows = [{"space": place, "architecture": model.candidate.architecture} for place, model in enumerate(models)]
        candidate = Candidate(space="fused", architecture={"head": self.head, "members": rows},
                              hyperparameters=models[0].candidate.hyperparameters)  # fmt: skip
        node = {"_target_": "components.models.fused.Fused", "spaces": nodes}
        network = build_network(node, candidate, pool.dataset, seed_of(pool.work.seed, "features"))
        assert isinstance(network, FeatureNetwork)
        members = [pool.network(model) for model in models]
        for encoder, member in zip(network.encoders, members):
            known = member.state_dict()
            encoder.load_state_dict({name: known[name] for name in encoder.state_dict()})
        if isinstance(network, Late):
            network.begin_as_mean(members)
        return network

    def _fit(self, pool: Pool, network: FeatureNetwork, name: str, epochs: int, rate: float, share: float) -> Fit:
        first, config, left = pool.best.candidate, pool.config, pool.work.left()
        hyperparameters = {**first.hyperparameters, "learning_rate": rate * first.hyperparameters["learning_rate"]}
        scratch = pool.work.scratch
        return fit(
            network.train(), pool.dataset, hyperparameters, policy=build(pool.policy.config), optimizers=config["optimizer"],
            seed=seed_of(pool.work.seed, "features", name), epochs=epochs, seconds=None if left is None else share * left,
            objective=pool.objective, numerics=first.numerics, training=config.get("training"), schedules=config.get("schedule"),
            losses=config.get("loss"), scratch=scratch / name if scratch else None,
            trainer=None if ranks.spans(config) else config.get("trainer"), emit=pool.work.emit,
        )  # fmt: skip
