"""Adapters: small layers after each block of a network, which begin as the identity.

A bottleneck beside a shortcut (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019; after
convolutions it is of 1x1 kernels, Rebuffi et al., "Efficient Parametrization of Multi-domain Deep Neural Networks", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.artifacts import InputField
from components.errors import UsageError
from components.models.order import input_of, parts_of


class Adapter(nn.Module):
    """Features [B, C, H, W] or [..., C] to the same shape; the identity until it is trained."""

    def __init__(self, channels: int, width: int, *, is_map: bool) -> None:
        super().__init__()
        self.down: nn.Module = nn.Conv2d(channels, width, 1) if is_map else nn.Linear(channels, width)
        self.up: nn.Module = nn.Conv2d(width, channels, 1) if is_map else nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = features + self.up(torch.relu(self.down(features)))
        return found


class WithAdapter(nn.Module):
    """A block and the adapter after it."""

    def __init__(self, block: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.block, self.adapter = block, adapter

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.adapter(self.block(features))
        return found


def insert(network: nn.Module, inputs: Sequence[InputField], width: int) -> None:
    """Puts an adapter after every block in the network's rows of layers but the last one, the head's. Raises `UsageError`
    for a network without such rows."""
    blocks = {name: module for name, module in parts_of(network).items() if _is_block(network, name, module)}
    shapes = _shapes(network, inputs, blocks)
    if not shapes:
        raise UsageError(f"finetune=adapter finds no blocks in the parent's {type(network).__name__}; choose finetune=lora")
    for name, shape in shapes.items():
        row, _, place = name.rpartition(".")
        adapter = Adapter(shape[1] if len(shape) == 4 else shape[-1], width, is_map=len(shape) == 4)
        network.get_submodule(row)._modules[place] = WithAdapter(blocks[name], adapter)


def has_adapters(network: nn.Module) -> bool:
    return any(isinstance(module, WithAdapter) for module in network.modules())


def _is_block(network: nn.Module, name: str, module: nn.Module) -> bool:
    row = name.partition(".")[0]
    in_a_row = isinstance(network.get_submodule(row), nn.Sequential) and row != list(dict(network.named_children()))[-1]
    return in_a_row and any(parameter.ndim > 1 for parameter in module.parameters())


def _shapes(network: nn.Module, inputs: Sequence[InputField], blocks: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """The shape of what comes out of each block, found by sending zeros through."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> None:
        hooks.append(blocks[name].register_forward_hook(lambda _module, _given, made: found.update({name: tuple(made.shape)})))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name in blocks:
        note(name)
    was_training = network.training
    with torch.no_grad():
        network.eval()(*input_of(inputs))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return {name: found[name] for name in blocks if name in found}
