"""Layers that hold several networks at once: the members of an MLP that is an ensemble in itself (BatchEnsemble; TabM)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class ScaledLinear(nn.Module):
    """One weight matrix for all members; each scales its inputs and outputs and has its own bias (BatchEnsemble)."""

    axes: ClassVar = {"scale_in": ("row", "unit"), "scale_out": ("row", "out"), "bias": ("row", "out")}

    def __init__(self, in_width: int, width: int, members: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_width, width, bias=False)
        signs = torch.randint(0, 2, (members, in_width)).to(torch.float32) * 2 - 1
        self.scale_in, self.scale_out = nn.Parameter(signs), nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(torch.empty(members, width).uniform_(-1, 1) * in_width**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features * self.scale_in) * self.scale_out + self.bias


class MemberLinear(nn.Module):
    """A linear layer of each member's own: [B, members, in] → [B, members, out] (without the axis for one member)."""

    axes: ClassVar = {"weight": ("row", "in", "out"), "bias": ("row", "out")}

    def __init__(self, in_width: int, width: int, members: int) -> None:
        super().__init__()
        bound = in_width**-0.5
        self.weight = nn.Parameter(torch.empty(members, in_width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, width).uniform_(-bound, bound))
        self.members = members

    def forward(self, features: Tensor) -> Tensor:
        if self.members == 1:
            return features @ self.weight[0] + self.bias[0]
        return torch.einsum("bmi,mio->bmo", features, self.weight) + self.bias
