"""Layers before they are built, so that a network's parameters are counted without making it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Layer:
    """A module's class and the arguments to build it with; all of them hashable.

    A class may have a method `made_of` that, given these arguments, names the layers it is put together from: then it is
    counted by them, and modules that share parts are counted quickly.
    """

    make: Callable[..., nn.Module]
    arguments: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, make: Callable[..., nn.Module], *arguments: Any, **options: Any) -> Layer:
        return cls(make, arguments, tuple(options.items()))

    def build(self) -> nn.Module:
        """A fresh module, its weights from the global generator."""
        return self.make(*self.arguments, **dict(self.options))


def num_parameters_of(layers: Iterable[Layer]) -> int:
    """How many numbers the layers would train."""
    return sum(_count(layer) for layer in layers)


@lru_cache(maxsize=16384)
def _count(layer: Layer) -> int:
    parts = getattr(layer.make, "made_of", None)
    if parts:
        return num_parameters_of(parts(*layer.arguments, **dict(layer.options)))
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in layer.build().parameters())
