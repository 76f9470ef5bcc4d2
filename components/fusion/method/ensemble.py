"""Ensemble selection over the teacher and the search's trials.

Models are added one after another, again and again if they help, whichever brings the mean furthest on validation (Caruana,
Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models", ICML 2004). Against luck with few rows it
is repeated over random halves of the models, and their choices are added up.
Legend: M models, N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts import TrainedModel
from components.settings import number, whole

if TYPE_CHECKING:
    from components.fusion.pool import Outputs, Pool

Score = dict[str, float]


class Ensemble:
    """At most `members` distinct models, in `rounds` additions; `bags` further selections see each model with the
    probability `fraction`. Where the objective ties, log-loss must fall by the share `gain`: an ensemble takes as many
    times longer to ask as it has members.
    """

    def __init__(self, *, members: int = 4, rounds: int = 20, bags: int = 4, fraction: float = 0.5, gain: float = 0.1) -> None:
        self.members, self.rounds = whole("fusion.members", members, 2), whole("fusion.rounds", rounds, 1)
        self.bags = whole("fusion.bags", bags, 0)
        self.fraction = number("fusion.fraction", fraction, 0.0, 1.0, above=True)
        self.gain = number("fusion.gain", gain, 0.0, 1.0, below=True)

    def fuse(self, pool: Pool) -> TrainedModel:
        """The best of the plain and the bagged selection, if it is worth it."""
        outputs = [pool.outputs(model) for model in pool.able]
        tries = [self._plain(pool, outputs), *([self._bagged(pool, outputs)] if self.bags and len(outputs) > 2 else [])]
        scored = [(pool.score(mean_of(outputs, shares)), shares) for shares in tries]
        found, shares = scored[0]
        for other, theirs in scored[1:]:
            found, shares = (other, theirs) if pool.prefers(other, found) else (found, shares)
        if np.count_nonzero(shares) < 2 or not self._is_worth_it(pool, found):
            return pool.best
        return _combined(pool, shares)

    def _is_worth_it(self, pool: Pool, found: Score) -> bool:
        kept = pool.best_metrics
        if found[pool.objective] != kept[pool.objective] or pool.objective == "log_loss":
            return pool.prefers(found, kept)
        return pool.is_classifier and found["log_loss"] <= (1.0 - self.gain) * kept["log_loss"]

    def _plain(self, pool: Pool, outputs: Sequence[Outputs]) -> NDArray[np.float64]:
        counts = select(outputs, range(len(outputs)), pool.score, pool.prefers, self.rounds, self.members)
        return counts / counts.sum()

    def _bagged(self, pool: Pool, outputs: Sequence[Outputs]) -> NDArray[np.float64]:
        from components.training.batches import seed_of  # imports torch, which reading the settings does without

        rng = np.random.default_rng(seed_of(pool.work.seed, "ensemble"))
        counts = np.zeros(len(outputs))
        for _ in range(self.bags):
            bag = np.flatnonzero(rng.random(len(outputs)) < self.fraction)
            if len(bag):
                found = select(outputs, bag.tolist(), pool.score, pool.prefers, self.rounds, self.members)
                counts += found / found.sum()
        kept = np.argsort(-counts, kind="stable")[: self.members]
        counts[np.setdiff1d(np.arange(len(counts)), kept)] = 0.0
        return counts / counts.sum() if counts.any() else self._plain(pool, outputs)


def select(
    outputs: Sequence[Outputs], among: Collection[int], score: Callable[[Outputs], Score], prefers: Callable[[Score, Score], bool],
    rounds: int, most: int,
) -> NDArray[np.float64]:  # fmt: skip
    """How often each model is chosen [M]: the best moment of a greedy selection with replacement that begins with the best
    single model and never has more than `most` distinct ones."""
    counts = np.zeros(len(outputs))
    total = np.zeros_like(outputs[0], dtype=np.float64)
    best: tuple[Score, NDArray[np.float64]] | None = None
    for size in range(1, rounds + 1):
        chosen, found = -1, {}  # type: int, Score
        for place in sorted(among):
            if not counts[place] and np.count_nonzero(counts) >= most:
                continue
            told = score((total + outputs[place]) / size)
            if chosen < 0 or prefers(told, found):
                chosen, found = place, told
        counts[chosen] += 1
        total += outputs[chosen]
        if best is None or prefers(found, best[0]):
            best = found, counts.copy()
    assert best
    return best[1]


def mean_of(outputs: Sequence[Outputs], shares: NDArray[np.float64]) -> Outputs:
    """The models' outputs, each with its share."""
    return np.asarray(sum(share * told for share, told in zip(shares, outputs) if share))


def _combined(pool: Pool, shares: NDArray[np.float64]) -> TrainedModel:
    """The network that answers with the mean; the member that is best alone comes first."""
    from components.fusion.pool import share_of
    from components.models.fused import Mean
    from components.training.learner import predict

    rows = [(model, float(share)) for model, share in zip(pool.able, shares) if share]
    first = rows[0]
    for row in rows[1:]:
        if pool.prefers(pool.score(pool.outputs(row[0])), pool.score(pool.outputs(first[0]))):
            first = row
    rows = [first, *(row for row in rows if row is not first)]
    models, parts = [model for model, _ in rows], [share for _, share in rows]
    network = Mean([pool.network(model) for model in models], parts, pool.is_classifier).eval()
    found = pool.score(predict(network, pool.dataset, pool.rows))
    if pool.prefers(pool.best_metrics, found):  # what was chosen in double precision, a rounding may have undone
        return pool.best
    return pool.fused(
        "ensemble", models, {"head": "mean", "shares": parts}, network, found, parents=tuple(model.identity for model in models),
        members=tuple(share_of(model, share) for model, share in rows),
    )  # fmt: skip
