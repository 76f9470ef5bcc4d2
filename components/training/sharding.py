"""A network whose weights are spread over the devices of a group: PyTorch's `fully_shard` under Lightning.

Checkpoints are whole: gathered on rank 0, written by our `SafeCheckpointIO`, spread again when they are loaded. So a
training saved on two devices goes on on two or on three, and its final weights are an ordinary file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

# Blocks of at least so many parameters are gathered one after another; smaller ones with what is around them.
OWN_TURN = 100_000
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Sharded(ModelParallelStrategy):
    """Lightning's strategy with whole checkpoints through our `CheckpointIO`, where its own are pickled."""

    def __init__(self, devices: int, *, own_turn: int = OWN_TURN) -> None:
        super().__init__(data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.own_turn = own_turn

    def shard(self, network: nn.Module) -> None:
        """Leaves each rank its part of the weights, which are gathered for a forward and a backward pass. A layout with channels
        last, which may have been measured as faster on one device, ends here: torch has shards of contiguous weights alone."""
        network.to(memory_format=torch.contiguous_format)
        mesh = self.device_mesh["data_parallel"]
        for module in blocks(network, self.own_turn):
            fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh)
        if hasattr(network, "every_member"):
            register_fsdp_forward_method(network, "every_member")

    @staticmethod
    def settle(optimizer: torch.optim.Optimizer) -> None:
        """Turns off one kernel for all parameters where torch (2.13) has no rule for it on weights in shards: all but Adam's."""
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            for group in optimizer.param_groups:
                group.update({"fused": False} if "fused" in group else {})

    def gather(self, network: nn.Module) -> dict[str, Tensor]:
        """The whole state of a network in shards, on rank 0; nothing on the others, which must take part."""
        return get_model_state_dict(network, options=WHOLE)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return get_optimizer_state_dict(self._module, _plain(optimizer), options=WHOLE)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        set_model_state_dict(self._module, checkpoint["state_dict"], options=WHOLE)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(self._module, _plain(optimizer), state, options=WHOLE)

    @property
    def _module(self) -> nn.Module:
        assert self.model is not None
        return self.model


def blocks(network: nn.Module, least: int) -> list[nn.Module]:
    """The modules in a row that have at least so many parameters, inner ones first: each can be gathered by itself."""
    rows = [child for module in network.modules() if isinstance(module, nn.Sequential) for child in module]
    found = [module for module in dict.fromkeys(rows) if sum(parameter.numel() for parameter in module.parameters()) >= least]
    return [module for module in reversed(found) if not isinstance(module, nn.ModuleList | nn.ModuleDict)]


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer that Lightning may have wrapped."""
    found: torch.optim.Optimizer = getattr(optimizer, "_optimizer", optimizer)
    return found
