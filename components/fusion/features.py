"""A head over the features of several networks, trained: first alone, then with them."""

from __future__ import annotations

from collections.abc import Sequence

from components.artifacts import Candidate, TrainedModel
from components.build import build
from components.fusion.pool import SPACE, Pool
from components.models.fused import FeatureNetwork, Late
from components.models.network import build_network
from components.training import ranks
from components.training.batches import seed_of
from components.training.fit import Fit, fit

LEAST_SECONDS = 0.5  # all together is not begun with less
SLOWER = 0.1  # all together is trained so many times as fast as the head


def trained(pool: Pool, models: Sequence[TrainedModel], head: str, epochs: int, together: int, rate: float) -> Fit:
    """`epochs` of the head alone at `rate` times the best model's learning rate, then all `together`, as far as the time reaches.

    Raises `DivergedError` when the loss is not finite.
    """
    network = begun(pool, models, head)
    network.hold(True)
    fitted = _fitted(pool, network, "head", epochs, rate, 0.5 if together else 1.0)
    left = pool.work.left()
    if not together or (left is not None and left < LEAST_SECONDS):
        return fitted
    assert isinstance(fitted.network, FeatureNetwork)
    fitted.network.hold(False)
    return _fitted(pool, fitted.network, "together", together, SLOWER * rate, 1.0)


def begun(pool: Pool, models: Sequence[TrainedModel], head: str) -> FeatureNetwork:
    """Encoders with the models' weights under a head that begins as the mean of theirs, or is drawn from the seed."""
    rows = [{"space": place, "architecture": model.candidate.architecture} for place, model in enumerate(models)]
    first = models[0].candidate
    candidate = Candidate(space=first.space, architecture={"head": head, "members": rows}, hyperparameters=first.hyperparameters)
    node = {"_target_": SPACE, "spaces": [model.space for model in models]}
    network = build_network(node, candidate, pool.dataset, seed_of(pool.work.seed, "features"))
    assert isinstance(network, FeatureNetwork)
    members = [pool.network(model) for model in models]
    for encoder, member in zip(network.encoders, members):
        known = member.state_dict()
        encoder.load_state_dict({name: known[name] for name in encoder.state_dict()})
    if isinstance(network, Late):
        network.begin_as_mean(members)
    return network


def _fitted(pool: Pool, network: FeatureNetwork, name: str, epochs: int, rate: float, share: float) -> Fit:
    """One training within a `share` of the time that is left; resumes from the folder `name`."""
    first, config, left, scratch = pool.best.candidate, pool.config, pool.work.left(), pool.work.scratch
    hyperparameters = {**first.hyperparameters, "learning_rate": rate * first.hyperparameters["learning_rate"]}
    return fit(
        network.train(), pool.dataset, hyperparameters, policy=build(pool.policy.config), optimizers=config["optimizer"],
        seed=seed_of(pool.work.seed, "features", name), epochs=epochs, seconds=None if left is None else share * left,
        objective=pool.objective, numerics=first.numerics, training=config.get("training"), schedules=config.get("schedule"),
        losses=config.get("loss"), scratch=scratch / name if scratch else None,
        trainer=None if ranks.spans(config) else config.get("trainer"), emit=pool.work.emit,
    )  # fmt: skip
