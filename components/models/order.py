"""A network's parts in the order in which features pass them, and which of its tensors are its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from components.artifacts import JSON, InputField

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def parts_of(network: nn.Module) -> dict[str, nn.Module]:
    """The parts that have parameters, by name, from the input on: what lies in a network's own rows of layers (blocks,
    hidden layers, encoders), and its other children."""
    found: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            found |= {f"{name}.{place}": module for place, module in child.named_children()}
        else:
            found[name] = child
    return {name: module for name, module in found.items() if any(True for _ in module.parameters())}


def train_only(network: nn.Module, names: frozenset[str]) -> list[str]:
    """Lets the named parameters alone take gradients; returns the parts, from the input on, that have none of them."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in names)
    return [name for name, part in parts_of(network).items() if not any(p.requires_grad for p in part.parameters())]


def head_of(space: Any, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> frozenset[str]:
    """Names of the tensors that depend on how many outputs there are: the head, wherever a space has put it."""
    with torch.device("meta"):
        one, more = (space.build(architecture, inputs, outputs).state_dict() for outputs in (num_outputs, num_outputs + 1))
    return frozenset(name for name, tensor in one.items() if name not in more or more[name].shape != tensor.shape)


def input_of(fields: Sequence[InputField], rows: int = 2) -> list[torch.Tensor]:
    """A batch of zeros as a network of these inputs takes it."""
    return [torch.zeros(rows, *field.shape, dtype=torch.int64 if field.dtype == "int64" else torch.float32) for field in fields]
