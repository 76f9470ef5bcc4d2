"""Points of a conditional space: whatever is done to them, the space itself could have drawn the result."""

from __future__ import annotations

from random import Random

import pytest

from components.models.interface import Suggest
from components.models.points import Point, Points


def program(suggest: Suggest) -> str:
    kind = suggest.suggest_categorical("kind", ["wide", "deep"])
    if kind == "wide":
        return f"wide {suggest.suggest_int('width', 1, 64, log=True)} {suggest.suggest_float('scale', 1e-3, 1.0, log=True):g}"
    depth = suggest.suggest_int("depth", 1, 3)
    return f"deep {depth} " + "-".join(suggest.suggest_categorical(f"block{i}", ["a", "b"]) for i in range(depth))


def finite(suggest: Suggest) -> int:
    depth = suggest.suggest_int("depth", 1, 3)
    return sum(len(suggest.suggest_categorical(f"block{i}", ["a", "bb"])) for i in range(depth))


def is_drawable(point: Point) -> bool:
    """Whether the program, given the point's values, asks for exactly these."""
    return Points(program).draw(Random(99), point.params).params == point.params


def test_draws_are_a_function_of_the_generator() -> None:
    """Same seed, same point; another seed, another point; parameters keep the order of drawing."""
    points = Points(program)
    assert [points.draw(Random(5)) for _ in range(2)] == [points.draw(Random(5))] * 2
    assert len({str(points.draw(Random(seed)).params) for seed in range(20)}) > 10
    assert next(iter(points.draw(Random(0)).params)) == "kind"


def test_a_changed_parent_draws_its_new_children_and_drops_the_old() -> None:
    """Mutation, crossing and neighbourhood keep conditional parameters consistent."""
    points, rng = Points(program), Random(0)
    for _ in range(200):
        one, other = points.draw(rng), points.draw(rng)
        mutated = points.mutate(one, rng)
        assert mutated.params != one.params
        for point in (mutated, points.cross(one, other, rng), *points.neighbours(one, rng)):
            assert is_drawable(point)
            assert set(point.params) == set(point.distributions)
            assert ("width" in point.params) == (point.params["kind"] == "wide")


def test_crossing_takes_every_value_from_a_parent_where_one_has_it() -> None:
    """Nothing is drawn afresh that a parent could give."""
    points, rng = Points(finite), Random(1)
    for _ in range(100):
        one, other = points.draw(rng), points.draw(rng)
        child = points.cross(one, other, rng)
        given = [{p.params[n] for p in (one, other) if n in p.params} for n in child.params]
        assert all(child.params[n] in values for n, values in zip(child.params, given) if values)


def test_a_finite_space_is_counted_and_listed_once() -> None:
    """2 + 4 + 8 conditional points, each once; a number with infinitely many values makes the size unknown."""
    listed = [tuple(sorted(p.params.items())) for p in Points(finite).all()]
    assert len(listed) == len(set(listed)) == Points(finite).size() == 14
    assert Points(finite).size(most=10) is None
    assert Points(program).size() is None
    with pytest.raises(ValueError, match="infinitely"):
        list(Points(lambda s: s.suggest_float("x", 0.0, 1.0)).all())


def test_neighbours_are_one_change_away() -> None:
    """Every other value of a choice, each once; a value that is not valid any more is drawn anew."""
    points = Points(finite)
    start = points.draw(Random(0), {"depth": 2, "block0": "a", "block1": "bb"})
    assert start.params == {"depth": 2, "block0": "a", "block1": "bb"}
    found = list(points.neighbours(start, Random(0)))
    assert len(found) == 2 + 1 + 1
    assert points.draw(Random(0), {"depth": 7, "block0": "zzz"}).params["depth"] in (1, 2, 3)
