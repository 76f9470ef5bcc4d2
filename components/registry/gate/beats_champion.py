"""The gate that compares with the model in production, row by row on the same test split."""

from __future__ import annotations

import numpy as np

from components import metrics
from components.artifacts import JSON, Estimate, GateResult
from components.evaluation.bootstrap import paired_difference
from components.registry.contender import Contender, latency_ratio

NAME = "beats_champion"


class BeatsChampion:
    """Passes a challenger that is clearly better, or about as good and clearly cheaper; the first one has no champion to beat.

    Better: the paired 95 % interval of the improvement lies above 0. About as good: it lies above minus `tolerance`
    (0.005 are 0.5 points; of errors such as rmse, a share of the champion's). Cheaper: at least `saving` smaller, or
    faster when both are timed side by side.
    """

    def __init__(self, tolerance: float = 0.005, saving: float = 0.2, num_resamples: int = 1000) -> None:
        self.tolerance, self.saving, self.num_resamples = tolerance, saving, num_resamples

    def judge(self, challenger: Contender, champion: Contender | None) -> GateResult:
        """Times both side by side only where that decides."""
        if champion is None:
            return self._result(True, "there is no champion yet", {})
        if champion.incomparable:
            return self._result(False, f"not comparable: {champion.incomparable}; promote it by hand if that is meant", {})
        gain = _improvement(challenger, champion, self.num_resamples)
        if gain is None:
            return self._result(False, "an answer is not a finite number, so there is nothing to compare", {})
        figures, words = _figures(challenger, champion, gain), _in_words(challenger, champion, gain)
        if gain.low > 0:
            return self._result(True, f"{words}: better", figures)
        if gain.low < -self._margin(challenger, champion):
            return self._result(False, f"{words}: may be worse by more than {self._allowed(challenger)}", figures)
        return self._by_cost(challenger, champion, words, figures)

    def _by_cost(self, challenger: Contender, champion: Contender, words: str, figures: JSON) -> GateResult:
        size = _ratio(challenger.report.best.size_kb, champion.report.best.size_kb)
        if size <= 1 - self.saving:
            return self._result(True, f"{words}: about as good and {1 - size:.0%} smaller", {**figures, "size_ratio": size})
        time = latency_ratio(challenger, champion)
        figures = {**figures, "size_ratio": size, **({"latency_ratio": time} if time == time else {})}
        if time <= 1 - self.saving:
            return self._result(True, f"{words}: about as good and {1 - time:.0%} faster", figures)
        return self._result(False, f"{words}: about as good, but neither {self.saving:.0%} smaller nor faster", figures)

    def _margin(self, challenger: Contender, champion: Contender) -> float:
        name = challenger.report.objective
        if name in metrics.ERRORS:
            return self.tolerance * abs(_judged_alike(challenger, champion))
        return self.tolerance

    def _allowed(self, challenger: Contender) -> str:
        is_error = challenger.report.objective in metrics.ERRORS
        return f"{self.tolerance:.1%}" if is_error else f"{100 * self.tolerance:g} points"

    def _result(self, passed: bool, words: str, figures: JSON) -> GateResult:
        rule = (
            f"better than the champion on the same test rows, or not worse by more than {100 * self.tolerance:g} points (% of an error) "
            f"and at least {self.saving:.0%} smaller or faster"
        )
        return GateResult(name=NAME, passed=passed, rule=rule, words=words, figures=figures)


def _improvement(challenger: Contender, champion: Contender, num_resamples: int) -> Estimate | None:
    """How much better the challenger is (positive: better, in the objective's unit), by paired bootstrap; None without finite answers."""
    if not (np.isfinite(challenger.outputs).all() and np.isfinite(champion.outputs).all()):
        return None
    name = challenger.report.objective
    found = paired_difference(name, challenger.outputs, champion.outputs, challenger.targets, resamples=num_resamples)
    if not np.isfinite(found.value):
        return None
    if metrics.direction(name) == "maximize":
        return found
    return Estimate(value=-found.value, low=-found.high, high=-found.low)


def _score(challenger: Contender) -> float:
    return metrics.compute(challenger.report.objective, challenger.outputs, challenger.targets)


def _judged_alike(challenger: Contender, champion: Contender) -> float:
    """The champion's score by the challenger's objective, which need not be the one it was chosen by."""
    return metrics.compute(challenger.report.objective, champion.outputs, champion.targets)


def _figures(challenger: Contender, champion: Contender, gain: Estimate) -> JSON:
    return {
        "champion_version": champion.version, "challenger": _score(challenger), "champion": _judged_alike(challenger, champion),
        "improvement": gain.value, "low": gain.low, "high": gain.high,
    }  # fmt: skip


def _in_words(challenger: Contender, champion: Contender, gain: Estimate) -> str:
    ours, theirs = _score(challenger), _judged_alike(challenger, champion)
    note = f" ({champion.note})" if champion.note else ""
    return (
        f"{challenger.report.objective} {ours:.4f} against {theirs:.4f} of version {champion.version}{note}, "
        f"improvement {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    )


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else float("nan")
