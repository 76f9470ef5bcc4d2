"""Networks that compute the same as others with their units in other places."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from components.models.permutations import Symmetry


def permuted(network: nn.Module, inputs: Any = None, *, seed: int = 0) -> nn.Module:
    """A copy with the units of every group in a random order."""
    inputs = [torch.zeros(2, 1, 8, 8, dtype=torch.uint8)] if inputs is None else inputs
    symmetry, random = Symmetry(network, inputs), np.random.default_rng(seed)
    orders = {group: random.permutation(symmetry.units(group)) for group in symmetry.groups}
    twin = copy.deepcopy(network)
    twin.load_state_dict(symmetry.permuted(network.state_dict(), orders))
    return twin.eval()
