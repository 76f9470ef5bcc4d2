"""The process against its own formula, its gradient against differences, and what it can learn."""

from __future__ import annotations

import numpy as np
import pytest

from components.search.encoding import GRID, Array, Column, Encoding, Levels, places_of
from components.search.predictor import JITTER, Kernel, Process, Rows, _Likelihood, fitted, likeness
from tests.components.search.standin import CurveSpace

CHOICE, NUMBER = Column(4, None, is_choice=True), Column(GRID, np.linspace(0.0, 1.0, GRID), is_choice=False)
COLUMNS = (CHOICE, CHOICE, CHOICE, NUMBER)


def drawn(count: int, seed: int = 0) -> Levels:
    """Random levels; the third parameter is absent from about a quarter of the rows."""
    generator = np.random.default_rng(seed)
    levels = np.stack([generator.integers(1, column.size + 1, count) for column in COLUMNS], axis=1)
    levels[generator.random(count) < 0.25, 2] = 0
    return levels


def rows_of(levels: Levels) -> Rows:
    return Rows.of(COLUMNS, levels, np.stack([levels[:, 3] / GRID, levels[:, 0] / 4.0], axis=1))


def kernel() -> Kernel:
    return Kernel(COLUMNS, np.array([0.3, 0.2, 0.4, 0.5]), np.full(4, 0.3), np.array([1.0, 0.7, 0.4]), 0.05, slope=0.7)


def covariance(one: Levels, other: Levels) -> Array:
    """The kernel's definition, pair by pair: sums of products over one, two and three columns."""
    found = np.empty((len(one), len(other)))
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            z = [
                w * likeness(c, 0.3)[a - 1, b - 1] if a and b else 0.0
                for c, w, a, b in zip(COLUMNS, kernel().weights, left, right)
            ]  # fmt: skip
            pairs = sum(z[a] * z[b] for a in range(4) for b in range(a))
            triples = sum(z[a] * z[b] * z[c] for a in range(4) for b in range(a) for c in range(b))
            found[i, j] = 1.0 + 1.0 * sum(z) + 0.7 * pairs + 0.4 * triples
    features = [rows_of(levels).features for levels in (one, other)]
    return found + 0.7**2 / 2 * features[0] @ features[1].T


def test_covariances_are_what_the_definition_says() -> None:
    """Power sums and Newton's identities give the sums over pairs and triples; absent parameters add nothing."""
    one, other = drawn(12), drawn(9, seed=1)
    shared = kernel().shared(rows_of(one))
    assert np.allclose(kernel().between(shared, rows_of(other)), covariance(one, other))
    assert np.allclose(kernel().variances(rows_of(one)), np.diag(covariance(one, one)))


def test_expectations_are_what_the_textbook_says() -> None:
    """Mean and deviation as in Rasmussen and Williams, eq. 2.25 and 2.26, around what is believed before data."""
    seen, asked = drawn(20), drawn(7, seed=2)
    values = np.random.default_rng(3).standard_normal(20)
    process = Process(kernel(), rows_of(seen))
    means, deviations = process.expected(process.coefficients(values), rows_of(asked))
    noisy = covariance(seen, seen) + (0.05 + JITTER) * np.eye(20)
    across = covariance(asked, seen)
    believed = [-0.7 / 2 * rows_of(levels).features.sum(axis=1) for levels in (seen, asked)]
    assert np.allclose(means, believed[1] + across @ np.linalg.solve(noisy, values - believed[0]))
    assert np.allclose(deviations**2, np.diag(covariance(asked, asked) - across @ np.linalg.solve(noisy, across.T)))
    shown, _ = process.expected(process.coefficients(values), rows_of(seen))
    assert np.allclose(process.smoothed(process.coefficients(values), values), shown)


def test_rows_added_later_change_nothing_but_the_order_of_work() -> None:
    """In blocks or all at once: the same expectations; and values may be known for the first rows only."""
    levels, asked = drawn(30), rows_of(drawn(5, seed=4))
    values = np.random.default_rng(5).standard_normal(30)
    whole, grown = Process(kernel(), rows_of(levels)), Process(kernel(), rows_of(levels[:11]))
    for start in range(11, 30, 8):
        grown = grown.extended(rows_of(levels[start : start + 8]))
    for found, expected in zip(grown.expected(grown.coefficients(values), asked), whole.expected(whole.coefficients(values), asked)):
        assert np.allclose(found, expected)
    first = Process(kernel(), rows_of(levels[:19]))
    means, deviations = grown.expected(grown.coefficients(values[:19]), asked)
    assert np.allclose(means, first.expected(first.coefficients(values[:19]), asked)[0])
    assert np.allclose(deviations, whole.expected(whole.coefficients(values), asked)[1]), "rows without a value make it surer too"


def test_gradient_is_that_of_the_likelihood() -> None:
    """Against central differences, at a point away from the start."""
    likelihood = _Likelihood(COLUMNS, drawn(25), np.random.default_rng(6).standard_normal(25))
    at = likelihood.start + 0.3 * np.random.default_rng(7).standard_normal(len(likelihood.start))
    steps = 1e-5 * np.eye(len(at))
    differences = [(likelihood(at + step)[0] - likelihood(at - step)[0]) / 2e-5 for step in steps]
    assert np.allclose(likelihood(at)[1], differences, atol=1e-5)


def test_an_effect_that_only_a_pair_has_is_learned_and_doubt_is_honest() -> None:
    """Two choices that matter only together: unseen rows are predicted, and most lie within two deviations."""
    levels = drawn(140, seed=8)
    values = np.where(levels[:, 0] == levels[:, 1], -1.0, 1.0) + 0.3 * np.sin(6.0 * levels[:, 3] / GRID)
    values += 0.1 * np.random.default_rng(9).standard_normal(140)
    values = (values - values.mean()) / values.std()
    process = Process(fitted(COLUMNS, levels[:90], values[:90]), Rows.of(COLUMNS, levels[:90]))
    means, deviations = process.expected(process.coefficients(values[:90]), Rows.of(COLUMNS, levels[90:]))
    assert np.corrcoef(means, values[90:])[0, 1] > 0.9
    away = np.abs(means - values[90:]) / np.sqrt(deviations**2 + process.kernel.noise)
    assert (away < 2).mean() > 0.8
    assert away.max() > 0.5, "so much doubt says nothing"


def test_rounding_stops_no_search() -> None:
    """A thousand-fold weight without noise on rows that repeat: the factor is that of a matrix next to it."""
    levels = np.repeat(drawn(15, seed=10), 4, axis=0)
    steep = Kernel(COLUMNS, np.full(4, 30.0), np.full(4, 3.0), np.ones(3), 0.0)
    process = Process(steep, Rows.of(COLUMNS, levels)).extended(Rows.of(COLUMNS, levels[:8]))
    means, deviations = process.expected(process.coefficients(np.zeros(68)), Rows.of(COLUMNS, drawn(5, seed=11)))
    assert np.isfinite(means).all()
    assert np.isfinite(deviations).all()


@pytest.mark.parametrize("column", [CHOICE, NUMBER, Column(3, places_of([16, 32, 64]), is_choice=True)])
def test_likeness_is_centred_and_a_covariance(column: Column) -> None:
    """Rows sum to zero, no eigenvalue is negative, the mean of the diagonal is 1."""
    table = likeness(column, 0.4)
    assert np.allclose(table.sum(axis=0), 0.0, atol=1e-9)
    assert np.linalg.eigvalsh(table).min() > -1e-9
    assert np.isclose(np.diag(table).mean(), 1.0)


def test_levels_follow_the_conditions_of_a_space() -> None:
    """What a point does not have is level 0; choices of numbers are places in their order; unknown parameters are left out."""
    from random import Random

    from components.models.points import Points

    points = Points(lambda trial: CurveSpace().sample(trial, None))  # type: ignore[arg-type]
    fourier = points.draw(Random(0), {"arch.kind": "fourier", "arch.waves": 2, "arch.period": 8.0})
    polynomial = points.draw(Random(0), {"arch.kind": "polynomial", "arch.degree": 9})
    encoding = Encoding()
    encoding.learn(fourier)
    assert encoding.rows([polynomial]).tolist() == [[1, 0, 0]]
    encoding.learn(polynomial)
    rows = encoding.rows([fourier, polynomial])
    assert (rows > 0).tolist() == [[True, True, True, False], [True, False, False, True]]
    assert rows[0, 2] == GRID
    assert rows[1, 3] >= GRID - 2


def test_the_covariance_has_a_factor_wherever_the_search_may_step() -> None:
    """At every corner of what is believed, repeated rows and next to no noise included; a step beyond ended a study."""
    generator = np.random.default_rng(0)
    levels = np.concatenate([generator.integers(1, GRID + 1, (30, 7))] * 2)
    likelihood = _Likelihood((NUMBER,) * 7, levels, generator.standard_normal(60))
    low, high = np.array(likelihood.bounds).T
    for corner in generator.integers(0, 2, (40, len(low))):
        assert np.isfinite(likelihood(np.where(corner, high, low))[0])
