"""A space of multilayer perceptrons for tables of numbers and categories, with missing values.

Numbers are embedded piecewise-linearly by training quantiles, by learned waves, or only standardised; categories by
learned vectors or as ones and zeros. `members` > 1 trains that many
heads over shared, per-member scaled layers and averages them, an ensemble at nearly the price of one network (TabM,
Gorishniy et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from components.artifacts import JSON, DatasetVersion, InputField
from components.errors import UsageError
from components.models.blocks import ACTIVATIONS, activation, left_out
from components.models.choices import names, numbers, share, switches, whole_numbers
from components.models.conditional import ConditionalSpace
from components.models.hyperparameters import sample_hyperparameters
from components.models.interface import Suggest, choose
from components.models.layers import Layer, num_parameters_of
from components.models.members import MemberLinear, ScaledLinear
from components.models.preprocessing import EmbedCategories, EncodeNumbers, OneHotCategories, PeriodicNumbers, StandardNumbers

NUMERIC_EMBEDDINGS = ("none", "piecewise", "periodic")
CATEGORICAL_EMBEDDINGS = ("learned", "one_hot")
NEARLY_NOTHING = 0.01  # weights that are zero beside a ReLU would never change
MOST_ONE_HOT = 256  # categories of all columns together, beyond which ones and zeros cost more than vectors


class MLP(ConditionalSpace):
    """The space; see `conf/space/mlp.yaml` for its choices."""

    modality = "table"
    grows = ("widths", "depths")  # settings that make networks larger

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 256),
        depths: Sequence[int] = (1, 2, 3),
        numeric_embeddings: Sequence[str] = ("piecewise", "periodic"),
        frequencies: Sequence[int] = (16,),
        frequency_scales: Sequence[float] = (0.3, 1.0),
        number_widths: Sequence[int] = (8,),
        categorical_embeddings: Sequence[str] = ("learned",),
        embeddings: Sequence[int] = (4, 8, 16),
        residuals: Sequence[bool] = (False, True),
        activations: Sequence[str] = ("relu", "silu"),
        members: Sequence[int] = (1, 8),
        dropout: float = 0.4,
        label_smoothing: float = 0.1,
    ) -> None:
        self.widths, self.depths = whole_numbers("space.widths", widths), whole_numbers("space.depths", depths)
        self.numeric_embeddings = names("space.numeric_embeddings", numeric_embeddings, NUMERIC_EMBEDDINGS)
        self.frequencies = whole_numbers("space.frequencies", frequencies)
        self.frequency_scales = numbers("space.frequency_scales", frequency_scales)
        self.number_widths = whole_numbers("space.number_widths", number_widths)
        self.categorical_embeddings = names("space.categorical_embeddings", categorical_embeddings, CATEGORICAL_EMBEDDINGS)
        self.embeddings = whole_numbers("space.embeddings", embeddings)
        self.residuals, self.members = switches("space.residuals", residuals), whole_numbers("space.members", members)
        self.activations = names("space.activations", activations, ACTIVATIONS)
        self.dropout, self.label_smoothing = share("space.dropout", dropout), share("space.label_smoothing", label_smoothing)

    def sample(self, trial: Suggest, dataset: DatasetVersion) -> JSON:
        """Draws width, depth, members, activation, a shortcut around each layer (from two layers on) and the embeddings."""
        _check_inputs(dataset.inputs)
        architecture: JSON = {
            "width": choose(trial, "arch.width", self.widths),
            "depth": choose(trial, "arch.depth", self.depths),
            "members": choose(trial, "arch.members", self.members),
            "activation": choose(trial, "arch.activation", self.activations),
        }
        if architecture["depth"] > 1:
            architecture["residual"] = choose(trial, "arch.residual", self.residuals)
        return architecture | self._of_numbers(trial, dataset.inputs) | self._of_categories(trial, dataset.inputs)

    def _of_numbers(self, trial: Suggest, inputs: Sequence[InputField]) -> JSON:
        if all(field.dtype == "int64" for field in inputs):
            return {}
        embedding = choose(trial, "arch.numbers", self.numeric_embeddings)
        if embedding != "periodic":
            return {"numbers": embedding}
        return {
            "numbers": embedding,
            "frequencies": choose(trial, "arch.frequencies", self.frequencies),
            "frequency_scale": choose(trial, "arch.frequency_scale", self.frequency_scales),
            "number_width": choose(trial, "arch.number_width", self.number_widths),
        }

    def _of_categories(self, trial: Suggest, inputs: Sequence[InputField]) -> JSON:
        if all(field.dtype != "int64" for field in inputs):
            return {}
        embedding = choose(trial, "arch.categories", self._fitting_categorical(inputs))
        if embedding != "learned":
            return {"categories": embedding}
        return {"categories": embedding, "embedding": choose(trial, "arch.embedding", self.embeddings)}

    def _fitting_categorical(self, inputs: Sequence[InputField]) -> list[str]:
        count = sum(len(column.vocabulary) for field in inputs if field.dtype == "int64" for column in field.columns)
        fitting = [name for name in self.categorical_embeddings if name != "one_hot" or count <= MOST_ONE_HOT]
        return fitting or ["learned"]

    def parameters(self, architecture: JSON) -> dict[str, Any]:
        return {f"arch.{name}": value for name, value in architecture.items()}

    def size(self, dataset: DatasetVersion) -> int:
        depths = sum(len(self.residuals) if depth > 1 else 1 for depth in self.depths)
        return depths * len(self.widths) * len(self.members) * len(self.activations) * self._num_embeddings(dataset.inputs)

    def _num_embeddings(self, inputs: Sequence[InputField]) -> int:
        periodic = len(self.frequencies) * len(self.frequency_scales) * len(self.number_widths)
        of_numbers = sum(periodic if name == "periodic" else 1 for name in self.numeric_embeddings)
        of_categories = sum(len(self.embeddings) if name == "learned" else 1 for name in self._fitting_categorical(inputs))
        kinds = {field.dtype == "int64" for field in inputs}
        return (of_numbers if False in kinds else 1) * (of_categories if True in kinds else 1)

    def hyperparameters(self, trial: Suggest, dataset: DatasetVersion, optimizers: Any) -> JSON:
        return sample_hyperparameters(trial, dataset, optimizers, dropout=self.dropout, label_smoothing=self.label_smoothing)

    def build(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int, dropout: float = 0.0) -> nn.Module:
        """The network; takes numbers float32 [B, N] and/or category codes int64 [B, C], in the inputs' order."""
        _check_inputs(inputs)
        return TableNetwork(architecture, inputs, num_outputs, dropout)

    def num_parameters(self, architecture: JSON, inputs: Sequence[InputField], num_outputs: int) -> int:
        _check_inputs(inputs)
        encoders = [_encoder(field, architecture) for field in inputs]
        in_width = sum(_width_of(encoder) for encoder in encoders)
        return num_parameters_of([*encoders, *_layers(architecture, in_width, num_outputs, 0.0)])

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
        self.encoders = nn.ModuleList(_encoder(field, architecture).build() for field in inputs)
        *hidden, head = _layers(architecture, sum(encoder.width for encoder in self.encoders), num_outputs, dropout)
        self.hidden = nn.Sequential(*(layer.build() for layer in hidden))
        self.head = head.build()
        self.members = architecture["members"]

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
        self.drop = 0.0 if shortcut else None

    def forward(self, features: Tensor) -> Tensor:
        changed = self.rest(self.linear(features))
        return features + left_out(changed, self.drop or 0.0, self.training) if self.shortcut else changed

    def begin_as_identity(self) -> bool:
        """Passes non-negative features on as they are, or beside a shortcut nearly adds nothing; for ReLU alone."""
        if not isinstance(self.rest[0], nn.ReLU):
            return False
        matrix = self.linear.linear if isinstance(self.linear, ScaledLinear) else self.linear
        with torch.no_grad():
            self.linear.bias.zero_()
            matrix.weight.copy_(matrix.weight * NEARLY_NOTHING if self.shortcut else torch.eye(*matrix.weight.shape))
            if isinstance(self.linear, ScaledLinear):
                self.linear.scale_out.copy_(self.linear.scale_in)  # signs, which undo themselves
        return True


def _encoder(field: InputField, architecture: JSON) -> Layer:
    """How a field's columns become features; architectures from before there was a choice embed as they always did."""
    if field.dtype == "int64":
        if architecture.get("categories") == "one_hot":
            return Layer.of(OneHotCategories, field.columns)
        return Layer.of(EmbedCategories, field.columns, architecture.get("embedding", 8))
    if architecture.get("numbers") == "periodic":
        waves = architecture["frequencies"], architecture["frequency_scale"], architecture["number_width"]
        return Layer.of(PeriodicNumbers, field.columns, *waves)
    return Layer.of(StandardNumbers if architecture.get("numbers") == "none" else EncodeNumbers, field.columns)


@lru_cache(maxsize=1024)
def _width_of(encoder: Layer) -> int:
    with torch.device("meta"):
        return int(encoder.build().width)


def _layers(architecture: JSON, in_width: int, num_outputs: int, dropout: float) -> list[Layer]:
    """The hidden layers and the head."""
    members, width = architecture["members"], architecture["width"]
    shortcuts = [bool(architecture.get("residual")) and index > 0 for index in range(architecture["depth"])]
    widths = [in_width, *[width] * (architecture["depth"] - 1)]
    hidden = [Layer.of(Hidden, before, width, members, architecture["activation"], dropout, on) for before, on in zip(widths, shortcuts)]
    return [*hidden, Layer.of(MemberLinear, width, num_outputs, members)]


def _check_inputs(inputs: Sequence[InputField]) -> None:
    if not inputs or any(len(field.shape) != 1 for field in inputs):
        shapes = ", ".join(f"{field.name} {list(field.shape)}" for field in inputs) or "none"
        raise UsageError(f"space=mlp takes fields of numbers and categories, this dataset has {shapes}; choose space=convnet for images")
