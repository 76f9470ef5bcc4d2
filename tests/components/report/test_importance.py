"""What settings explain: as the textbook says, told apart from chance, and nothing where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f_oneway, rankdata

from components.report.importance import importances, ranks


def trials(number: int, seed: int = 0) -> tuple[list[dict[str, object]], list[float]]:
    """A search over a number that matters, a choice that matters less, one that some trials have, and noise."""
    draw = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    costs = []
    for _ in range(number):
        row: dict[str, object] = {
            "rate": float(10 ** draw.uniform(-5, 0)), "kind": str(draw.choice(["a", "b", "c"])),
            "noise": float(draw.uniform()), "coin": bool(draw.integers(2)),
        }  # fmt: skip
        if row["kind"] == "a":
            row["depth"] = int(draw.integers(1, 9))
        rows.append(row)
        costs.append(abs(np.log10(row["rate"]) + 2.5) + 0.8 * (row["kind"] == "b") + 0.1 * draw.standard_normal())
    return rows, costs


def test_a_choice_explains_what_an_analysis_of_variance_says() -> None:
    """The share is the correlation ratio that SciPy's F statistic gives on the same ranks."""
    rows, costs = trials(60)
    (found,) = importances(rows, costs, ["kind"])
    rank = rankdata(costs)
    groups = [[r for r, row in zip(rank, rows) if row["kind"] == kind] for kind in "abc"]
    f = f_oneway(*groups).statistic
    assert found.share == pytest.approx(2 * f / (2 * f + 57))
    assert ranks([3.0, 1.0, 3.0]).tolist() == rankdata([3.0, 1.0, 3.0]).tolist()


def test_a_number_explains_what_a_parabola_over_its_ranks_does() -> None:
    """Also where the best lies in the middle: the share is the fit's, as NumPy makes it."""
    rows, costs = trials(50)
    (found,) = importances(rows, costs, ["rate"])
    x, y = rankdata([float(row["rate"]) for row in rows]), rankdata(costs)  # type: ignore[arg-type]
    left = y - np.polyval(np.polyfit(x, y, 2), x)
    assert found.share == pytest.approx(1 - left.var() / y.var())
    assert found.share > 3 * found.chance


def test_what_matters_stands_first_and_chance_is_told() -> None:
    """Over twenty searches of 24 trials the rate leads every time and passes chance; noise passes it about as often as 1 in 20."""
    passed = 0
    for seed in range(20):
        found = importances(*trials(24, seed), ["rate", "kind", "noise", "coin", "depth"])
        assert found[0].name == "rate"
        assert found[0].share > found[0].chance
        passed += sum(row.share > row.chance for row in found if row.name in ("noise", "coin"))
    assert passed <= 6


def test_nothing_is_said_of_few_or_equal_trials() -> None:
    """Seven trials, or trials that are all as good."""
    rows, costs = trials(30)
    assert importances(rows[:7], costs[:7], ["rate"]) == []
    assert importances(rows, [1.0] * 30, ["rate"]) == []


def test_a_setting_that_does_not_vary_explains_nothing() -> None:
    """Nor one that hardly any trial has."""
    rows, costs = trials(20)
    rows = [{"same": 1, **({"rare": i} if i < 2 else {})} for i, _ in enumerate(rows)]
    assert [row.share for row in importances(rows, costs, ["same", "rare"])] == [0.0, 0.0]


def test_a_name_for_every_trial_explains_nothing() -> None:
    """A choice that is different in most trials is left out."""
    rows, costs = trials(20)
    named = [{**row, "name": f"trial {i}"} for i, row in enumerate(rows)]
    assert [row.name for row in importances(named, costs, ["name", "coin"])] == ["coin"]
