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
Counts = NDArray[np.int64]
Judge = Callable[[Counts], Score]
Prefers = Callable[[Score, Score], bool]
PATIENCE = 6


class Ensemble:
    """At most `members` distinct models, in `rounds` additions; `bags` further selections see each model with the
    probability `fraction`. The objective or the loss of the validation rows must gain by `certainty` standard errors: an
    ensemble takes as many times longer to ask as it has members.
    """

    def __init__(
        self, *, members: int = 4, rounds: int = 20, bags: int = 4, fraction: float = 0.5, certainty: float = 1.0
    ) -> None:
        self.members, self.rounds = whole("fusion.members", members, 2), whole("fusion.rounds", rounds, 1)
        self.bags = whole("fusion.bags", bags, 0)
        self.fraction = number("fusion.fraction", fraction, 0.0, 1.0, above=True)
        self.certainty = number("fusion.certainty", certainty, 0.0)

    def fuse(self, pool: Pool) -> TrainedModel:
        """Of the mixtures that the objective, the loss and bags by the loss lead to, the one with the least loss that is worth it."""
        outputs = [pool.outputs(model) for model in pool.able]
        judge, everyone = judge_of(outputs, pool.score), range(len(outputs))
        smooth = _less_loss if pool.is_classifier else pool.prefers
        tries = [self._selected(judge, everyone, pool.prefers), self._selected(judge, everyone, smooth), self._bagged(pool, judge, smooth)]
        fit = [counts for counts in tries if np.count_nonzero(counts) > 1 and pool.is_worth_it(mean_of(outputs, counts), self.certainty)]
        if not fit:
            return pool.best
        best = fit[0]
        for counts in fit[1:]:
            best = counts if smooth(judge(counts), judge(best)) else best
        return _combined(pool, best / best.sum())

    def _selected(self, judge: Judge, among: range, prefers: Prefers) -> Counts:
        return select(judge, len(among), among, prefers, self.rounds, self.members)

    def _bagged(self, pool: Pool, judge: Judge, prefers: Prefers) -> Counts:
        """The choices of selections over parts of the models, added up; of the most chosen models at most `members`."""
        from components.training.batches import seed_of  # imports torch, which reading the settings does without

        rng, models = np.random.default_rng(seed_of(pool.work.seed, "ensemble")), len(pool.able)
        bags = [np.flatnonzero(rng.random(models) < self.fraction) for _ in range(self.bags)]
        chosen = [select(judge, models, bag.tolist(), prefers, self.rounds, self.members) for bag in bags if len(bag)]
        counts = np.sum([np.zeros(models, dtype=np.int64), *chosen], axis=0)
        counts[np.argsort(-counts, kind="stable")[self.members :]] = 0
        return np.asarray(counts)


def _less_loss(found: Score, kept: Score) -> bool:
    return found["log_loss"] < kept["log_loss"]


def mean_of(outputs: Sequence[Outputs], counts: Counts) -> Outputs:
    """The models' outputs, each as often as it is taken."""
    return np.asarray(sum(int(count) * told.astype(np.float64) for count, told in zip(counts, outputs) if count) / int(counts.sum()))


def judge_of(outputs: Sequence[Outputs], score: Callable[[Outputs], Score]) -> Judge:
    """From how often each model is taken to what their mean is worth; asked again, it remembers."""
    known: dict[tuple[int, ...], Score] = {}

    def judge(counts: Counts) -> Score:
        smallest = tuple((counts // np.gcd.reduce(counts)).tolist())
        if smallest not in known:
            known[smallest] = score(mean_of(outputs, np.array(smallest)))
        return known[smallest]

    return judge


def select(judge: Judge, models: int, among: Collection[int], prefers: Prefers, rounds: int, most: int) -> Counts:
    """How often each of the `models` is taken: the best moment of a greedy selection with replacement that begins with the
    best single one `among` them and never has more than `most` distinct ones; given up when `PATIENCE` additions bring nothing."""
    counts = np.zeros(models, dtype=np.int64)
    best, without_gain = counts, 0
    for _ in range(rounds):
        free = np.count_nonzero(counts) < most
        tries = [counts + np.eye(models, dtype=np.int64)[place] for place in sorted(among) if free or counts[place]]
        counts = tries[0]
        for other in tries[1:]:
            counts = other if prefers(judge(other), judge(counts)) else counts
        gained = not best.any() or prefers(judge(counts), judge(best))
        best, without_gain = (counts, 0) if gained else (best, without_gain + 1)
        if without_gain == PATIENCE:
            break
    return best


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
