"""Scores of networks that need no training: how large they are, how signal flows through them, how they tell rows apart.

They are taken on a fresh network, and the higher the better. On a table of trained cells the number of parameters alone
ranks about as well as the cleverer ones, so it stands beside them.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.models.blocks import ACTIVATIONS
from components.models.network import num_parameters
from components.search.costs import num_macs

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
KINKED = tuple(ACTIVATIONS.values())


def scores(names: Sequence[str], network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, float]:
    """The scores of `names` for a network with its first weights, on a batch of training rows. The network is left as it was."""
    found: dict[str, Callable[[], float]] = {
        "naswot": lambda: naswot(network, inputs),
        "synflow": lambda: synflow(network, inputs),
        "num_parameters": lambda: float(num_parameters(network)),
        "macs": lambda: num_macs(network, [rows[:1] for rows in inputs]),
    }
    return {name: found[name]() for name in names}


def naswot(network: nn.Module, inputs: Sequence[Tensor]) -> float:
    """How differently the rows switch the network's activations: log |K|, where K counts, for each two rows of the batch,
    the units that are on for both or off for both (Mellor, Turner, Storkey and Crowley, "Neural Architecture Search
    without Training", 2021). A unit is on where its activation is given a positive number. One is added on the diagonal,
    so that a network that switches alike for two of the rows has a low score instead of none.
    """
    rows = len(inputs[0])
    agreement = torch.eye(rows, dtype=torch.float64)

    def count(module: nn.Module, given: tuple[Any, ...]) -> None:
        on = (given[0].reshape(rows, -1) > 0).to(torch.float64)
        agreement.add_(on @ on.T + (1.0 - on) @ (1.0 - on).T)

    with _hooked([m.register_forward_pre_hook(count) for m in network.modules() if isinstance(m, KINKED)]), _judged(network):
        network(*inputs)
    return float(torch.linalg.slogdet(agreement).logabsdet)


def synflow(network: nn.Module, inputs: Sequence[Tensor]) -> float:
    """log10 of the synaptic flow, summed over all weights: |weight × d(sum of outputs)/d(weight)| with every weight made
    positive, normalisation left out and ones for input (Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without
    any data by iteratively conserving synaptic flow", 2020; as a score for architectures: Abdelfattah et al.,
    "Zero-Cost Proxies for Lightweight NAS", 2021). Where nothing flows it is that of the smallest number, about -308.
    """
    positive = copy.deepcopy(network).to(torch.float64)
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    hooks = [m.register_forward_hook(_pass_on) for m in positive.modules() if isinstance(m, NORMS)]
    with _hooked([*hooks, *_ones_into_the_first(positive)]), _judged(positive), torch.enable_grad():
        one_row = [rows[:1].to(torch.float64) if rows.is_floating_point() else rows[:1] for rows in inputs]
        positive(*one_row).sum().backward()
    flow = sum(float((p * p.grad).detach().abs().sum()) for p in positive.parameters() if p.grad is not None)
    return math.log10(max(flow, sys.float_info.min))


def _pass_on(module: nn.Module, given: tuple[Any, ...], made: Tensor) -> Tensor:
    passed: Tensor = given[0]
    return passed


def _ones_into_the_first(network: nn.Module) -> list[Any]:
    """Lets the first layer with weights that is given features, not codes, see ones; what comes before it is preprocessing."""
    begun: list[nn.Module] = []

    def replace(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if begun or not given[0].is_floating_point():
            return None
        begun.append(module)
        return (torch.ones_like(given[0], dtype=torch.float64), *given[1:])

    return [m.register_forward_pre_hook(replace) for m in network.modules() if any(True for _ in m.parameters(recurse=False))]


@contextlib.contextmanager
def _hooked(hooks: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _judged(network: nn.Module) -> Iterator[None]:
    """Without gradients and with fixed statistics; the network's mode is put back."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
