"""A space of multilayer perceptrons for tables of numbers and categories, with missing values.

Numbers are encoded piecewise-linearly by training quantiles, categories are embedded. `members` > 1 trains that many
heads over shared, per-member scaled layers and averages them, an ensemble at nearly the price of one network (TabM,
Gorishniy et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.errors import UsageError
from components.models.blocks import activation
from components.models.hyperparameters import sample_hyperparameters
from components.models.interface import Suggest, choose
from components.models.preprocessing import EmbedCategories, EncodeNumbers


class MLP:
    """The space; see `conf/space/mlp.yaml` for its choices."""

    modality = "table"

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 256),
        depths: Sequence[int] = (1, 2, 3),
        embeddings: Sequence[int] = (4, 8, 16),
        residuals: Sequence[bool] = (False, True),
        activations: Sequence[str] = ("relu", "silu"),
        members: Sequence[int] = (1, 8),
        dropout: float = 0.4,
        label_smoothing: float = 0.1,
    ) -> None:
        self.widths, self.depths, self.embeddings = list(widths), list(depths), list(embeddings)
        self.residuals, self.activations, self.members = list(residuals), list(activations), list(members)
        self.dropout, self.label_smoothing = dropout, label_smoothing

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """Draws width, depth, members, activation, a shortcut around each layer (from two layers on) and the embedding's width."""
        _check_inputs(dataset.inputs)
        architecture: JSON = {
            "width": choose(trial, "arch.width", self.widths),
            "depth": choose(trial, "arch.depth", self.depths),
            "members": choose(trial, "arch.members", self.members),
            "activation": choose(trial, "arch.activation", self.activations),
        }
        if architecture["depth"] > 1:
            architecture["residual"] = choose(trial, "arch.residual", self.residuals)
        if any(field.dtype == "int64" for field in dataset.inputs):
            architecture["embedding"] = choose(trial, "arch.embedding", self.embeddings)
        return architecture

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        return sample_hyperparameters(trial, dataset, optimizers, dropout=self.dropout, label_smoothing=self.label_smoothing)

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The network; takes numbers float32 [B, N] and/or category codes int64 [B, C], in the inputs' order."""
        _check_inputs(inputs)
        return TableNetwork(architecture, inputs, num_outputs, dropout)

    def shrink(self, architecture: JSON) -> JSON:
        """Half the width, one layer less if there are two or more, one member."""
        small = {**architecture, "width": max(8, architecture["width"] // 2), "depth": max(1, architecture["depth"] - 1), "members": 1}
        if small["depth"] == 1:
            small.pop("residual", None)
        return small


class TableNetwork(nn.Module):
    """Encoders, hidden layers, linear head; averages its members' outputs."""

    def __init__(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(_encoder(field, architecture.get("embedding", 8)) for field in inputs)
        members, width = architecture["members"], architecture["width"]
        in_width = sum(encoder.width for encoder in self.encoders)
        layers: list[nn.Module] = []
        for index in range(architecture["depth"]):
            shortcut = bool(architecture.get("residual")) and index > 0
            layers.append(Hidden(in_width if index == 0 else width, width, members, architecture["activation"], dropout, shortcut))
        self.hidden = nn.Sequential(*layers)
        self.head = MemberLinear(width, num_outputs, members)
        self.members = members

    def forward(self, *inputs: Tensor) -> Tensor:
        encoded_BF = torch.cat([encoder(field) for encoder, field in zip(self.encoders, inputs)], dim=1)
        if self.members == 1:
            return self.head(self.hidden(encoded_BF))
        return self.head(self.hidden(encoded_BF.unsqueeze(1).expand(-1, self.members, -1))).mean(dim=1)

    def every_member(self, *inputs: Tensor) -> Tensor:
        """Outputs before averaging [B, members, num_outputs]: what each member is trained on."""
        encoded_BF = torch.cat([encoder(field) for encoder, field in zip(self.encoders, inputs)], dim=1)
        if self.members == 1:
            return self.head(self.hidden(encoded_BF)).unsqueeze(1)
        return self.head(self.hidden(encoded_BF.unsqueeze(1).expand(-1, self.members, -1)))


class Hidden(nn.Module):
    """Linear, activation, dropout, optionally beside a shortcut."""

    def __init__(self, in_width: int, width: int, members: int, activation_name: str, dropout: float, shortcut: bool) -> None:
        super().__init__()
        self.linear = ScaledLinear(in_width, width, members) if members > 1 else nn.Linear(in_width, width)
        self.rest = nn.Sequential(activation(activation_name), nn.Dropout(dropout))
        self.shortcut = shortcut

    def forward(self, features: Tensor) -> Tensor:
        changed = self.rest(self.linear(features))
        return features + changed if self.shortcut else changed


class ScaledLinear(nn.Module):
    """One weight matrix for all members; each scales its inputs and outputs and has its own bias (BatchEnsemble)."""

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


def _encoder(field: InputField, embedding: int) -> EncodeNumbers | EmbedCategories:
    return EmbedCategories(field.columns, embedding) if field.dtype == "int64" else EncodeNumbers(field.columns)


def _check_inputs(inputs: Sequence[InputField]) -> None:
    if not inputs or any(len(field.shape) != 1 for field in inputs):
        shapes = ", ".join(f"{field.name} {list(field.shape)}" for field in inputs) or "none"
        raise UsageError(f"space=mlp takes fields of numbers and categories, this dataset has {shapes}; choose space=convnet for images")
