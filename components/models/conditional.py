"""What a space tells of its architectures, all from the one program that draws them.

A member of the family inherits `ConditionalSpace`, says how an architecture was drawn (`parameters`) and overrides what
it knows better: `key` and `fold` where architectures can be isomorphic, `size` where counting one by one takes long,
`num_parameters` where that goes without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import nn

from components.artifacts import JSON, DatasetVersion, InputField, canonical_json
from components.errors import UsageError
from components.models.interface import Suggest
from components.models.points import Point, Points, share_of, values_of


class ConditionalSpace:
    """A mixin for spaces; needs `sample`, `build` and `parameters` of them."""

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        raise NotImplementedError

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        raise NotImplementedError

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        raise NotImplementedError

    def points(self, dataset: DatasetVersion) -> Points:
        """The architectures as points: each one's `value` is the architecture."""
        return Points(lambda trial: self.sample(trial, dataset))

    def size(self, dataset: DatasetVersion) -> int | None:
        return self.points(dataset).size()

    def neighbours(self, architecture: JSON, dataset: DatasetVersion) -> list[JSON]:
        """What a change newly asks for is drawn, always in the same way. Raises `UsageError` off the space."""
        points, key = self.points(dataset), self.key(architecture)
        near = points.neighbours(_point_of(self, architecture, dataset), Random(key))
        found = {self.key(point.value): point.value for point in near}
        return [value for other, value in found.items() if other != key]

    def encode(self, architecture: JSON, dataset: DatasetVersion) -> list[float]:
        """A 0 or 1 for each value of each choice; for a number whether it is drawn and where in its range it lies.

        What is not drawn is 0. Raises `UsageError` off the space.
        """
        params = _point_of(self, self.fold(architecture), dataset).params
        return [x for name, dist in self._axes(dataset).items() for x in _encoded(dist, name in params, params.get(name))]

    def key(self, architecture: JSON) -> str:
        return canonical_json(architecture)

    def fold(self, architecture: JSON) -> JSON:
        return architecture

    def num_parameters(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build(architecture, inputs, num_outputs).parameters())

    def _axes(self, dataset: DatasetVersion) -> dict[str, BaseDistribution]:
        known: dict[str, dict[str, BaseDistribution]] = self.__dict__.setdefault("_known_axes", {})
        question = repr(dataset.inputs)
        if question not in known:
            known[question] = axes_of(self.points(dataset))
        return known[question]


def axes_of(points: Points) -> dict[str, BaseDistribution]:
    """All parameters that any point has, in the order in which they turn up.

    Every value of every choice is tried in the point where the choice was first met, then values together by chance: a
    parameter that needs a rare combination of values may be missed.
    """
    rng = Random(0)
    open_points = [points.draw(rng)]
    found: dict[str, BaseDistribution] = {}
    while open_points:
        point = open_points.pop(0)
        new = [name for name in point.params if name not in found]
        found.update((name, point.distributions[name]) for name in new)
        open_points += [points.draw(rng, {**point.params, name: value}) for name in new for value in values_of(found[name]) or ()]
    for point in (points.draw(rng) for _ in range(200)):
        found = {**point.distributions, **found}
    return dict(sorted(found.items()))


def _encoded(distribution: BaseDistribution, is_drawn: bool, value: Any) -> list[float]:
    if isinstance(distribution, CategoricalDistribution):
        return [float(is_drawn and value == choice and type(value) is type(choice)) for choice in distribution.choices]
    return [1.0, share_of(distribution, value)] if is_drawn else [0.0, 0.0]


def _point_of(space: ConditionalSpace, architecture: JSON, dataset: DatasetVersion) -> Point:
    point = space.points(dataset).draw(Random(0), space.parameters(architecture))
    if point.value != architecture:
        raise UsageError(f"this architecture cannot be drawn from the space: {architecture}; the nearest that can is {point.value}")
    return point
