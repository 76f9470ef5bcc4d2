"""Parts of a network that rest at first, or for good: gradual unfreezing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


class Joining:
    """Lets modules rest until their training has come to where they join.

    A module that rests is in eval mode, so that its normalisation keeps its statistics, and its gradients are dropped
    before the optimizer sees them, so that it keeps its weights; both follow from the progress alone."""

    def __init__(self, network: nn.Module, joins: Mapping[str, float]) -> None:
        self._modules = [(network.get_submodule(name), at) for name, at in joins.items()]

    def follow(self, progress: float) -> None:
        """Before a step."""
        for module, at in self._modules:
            if module.training != (progress >= at):
                module.train(progress >= at)

    def hold(self, progress: float) -> None:
        """Between the backward pass and the optimizer's step."""
        for module, at in self._modules:
            if progress < at:
                for parameter in module.parameters():
                    parameter.grad = None
