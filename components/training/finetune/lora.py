"""A change of low rank to the weights of each linear layer and convolution (Hu et al., "LoRA", ICLR 2022).

A layer computes with W + alpha / rank * B A, where A begins at random and B at zero; only these two, normalisation and
what is new are trained. A convolution is taken as the matrix of its outputs and rows by its inputs and columns, as the
authors' own implementation does: with as many weights its change reaches three times as many directions as one of whole
filters. A layer that has no more weights than its change would is trained itself. When training ends the sum becomes
the weight, by the same arithmetic: the merged network gives the very same answers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from components.artifacts import Candidate, DatasetVersion
from components.models.adoption import Adoption
from components.models.order import NORMS, train_only
from components.settings import number, whole
from components.training.tuning import NEVER


class LowRank(nn.Module):
    """From a weight [out, in] or [out, in, H, W] to the same with a change of low rank added; no change at first."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        rows, columns = sides(weight)
        self.down = nn.Parameter(torch.empty(rank, columns, dtype=weight.dtype).uniform_(-1, 1) * (3.0 / columns) ** 0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank, dtype=weight.dtype))
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        change = self.up @ self.down
        if weight.ndim == 4:
            out, into, height, width = weight.shape
            change = change.view(out, height, into, width).transpose(1, 2)
        return weight + self.scale * change


def sides(weight: Tensor) -> tuple[int, int]:
    """The matrix that a layer's weight is taken as: outputs (times rows of a kernel) by inputs (times its columns)."""
    if weight.ndim == 4:
        return len(weight) * weight.shape[2], weight.shape[1] * weight.shape[3]
    return len(weight), weight.shape[1]


class LoRA:
    """`rank` of the change, which is scaled by `alpha` / `rank` and learned at `rate` times the learning rate; `share` of the
    blocks, from the input on, have none and stay as the parent's; `norms`: whether normalisation is trained as well."""

    keeps = False

    def __init__(self, rank: int = 6, alpha: float = 6.0, rate: float = 4.0, share: float = 0.5, norms: bool = True) -> None:
        self.rank, self.norms = whole("finetune.lora.rank", rank, 1), norms
        self.scale = number("finetune.lora.alpha", alpha, 0.0, above=True) / self.rank

        self.rate = number("finetune.lora.rate", rate, 0.0, 100.0, above=True)
        self.share = number("finetune.lora.share", share, 0.0, 1.0)
        self._resting: list[str] = []

    def changed(self, candidate: Candidate) -> Candidate:
        return candidate

    def prepare(self, network: nn.Module, adoption: Adoption, dataset: DatasetVersion) -> nn.Module:
        trained = adoption.head | adoption.fresh
        blocks = train_only(network, trained)
        self._resting = blocks[: round(self.share * len(blocks))]
        for name, module in list(network.named_modules()):
            if any(f"{name}.".startswith(f"{block}.") for block in self._resting):
                continue
            if isinstance(module, NORMS) and self.norms:
                module.requires_grad_(True)
            elif isinstance(module, nn.Linear | nn.Conv2d) and f"{name}.weight" not in trained:
                self._change(module)
        return network

    def _change(self, module: nn.Linear | nn.Conv2d) -> None:
        if self.rank * sum(sides(module.weight)) < module.weight.numel():
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, self.rank, self.scale))
        else:
            module.weight.requires_grad_(True)

    def joins(self, network: nn.Module) -> Mapping[str, float]:
        norms = () if self.norms else (name for name, module in network.named_modules() if isinstance(module, NORMS))
        return dict.fromkeys((*self._resting, *norms), NEVER)

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        return {name: self.rate for name, _ in network.named_parameters() if name.endswith((".down", ".up")) and self.rate != 1.0}

    def finish(self, network: nn.Module) -> nn.Module:
        for module in list(network.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        return network
