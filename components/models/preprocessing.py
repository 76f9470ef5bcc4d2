"""The part of a network that takes raw rows: scaling images, encoding numbers, embedding categories.

It lives inside the network, with the training split's statistics as buffers, so that what is exported needs nothing
beside it. Legend: B rows of a batch, N numeric columns, T bins, K frequencies, C categorical columns, D embedding width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components.artifacts import Column, InputField


class ScaleImage(nn.Module):
    """Raw image (uint8 or float, in the data's own unit) to zero mean and unit variance per channel."""

    def __init__(self, spec: InputField) -> None:
        super().__init__()
        channels = spec.shape[0]
        mean = torch.tensor(spec.mean or (0.0,) * channels, dtype=torch.float32)
        std = torch.tensor(spec.std or (1.0,) * channels, dtype=torch.float32)
        self.register_buffer("shift", mean.view(1, -1, 1, 1))
        self.register_buffer("scale", (1.0 / std.clamp_min(1e-6)).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image.to(torch.float32) - self.shift) * self.scale


class StandardNumbers(nn.Module):
    """Numbers [B, N] with NaN for missing → [B, N * 2]: standardised value and missing mark."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([column.mean for column in columns], dtype=torch.float32))
        self.register_buffer("inverse_std", torch.tensor([1.0 / max(column.std, 1e-6) for column in columns], dtype=torch.float32))
        self.width = len(columns) * 2

    def forward(self, numbers_BN: Tensor) -> Tensor:
        return torch.cat(self.parts(numbers_BN), dim=-1).flatten(1)

    def parts(self, numbers_BN: Tensor) -> list[Tensor]:
        """What a column becomes, each [B, N, ...]; a missing number is 0 everywhere but in its mark."""
        missing_BN = torch.isnan(numbers_BN)
        known_BN = torch.where(missing_BN, self.mean.expand_as(numbers_BN), numbers_BN)
        present_BN1 = (~missing_BN).to(torch.float32).unsqueeze(-1)
        # Far outliers would dominate the standardised value; what embeds the number keeps the order of what lies within.
        standard_BN1 = ((known_BN - self.mean) * self.inverse_std).clamp(-5.0, 5.0).unsqueeze(-1)
        return [standard_BN1 * present_BN1, 1.0 - present_BN1, *(part * present_BN1 for part in self.embedded(known_BN))]

    def embedded(self, known_BN: Tensor) -> list[Tensor]:
        """More about each number, [B, N, ...]; here nothing."""
        return []


class EncodeNumbers(StandardNumbers):
    """Numbers [B, N] with NaN for missing → [B, N * (T + 2)]: standardised value, missing mark, piecewise-linear bins.

    A bin is 0 below its lower knot, 1 above its upper one and linear between (Gorishniy et al. 2022, "On Embeddings
    for Numerical Features"). Columns with fewer knots leave the rest of their bins at 0.
    """

    def __init__(self, columns: tuple[Column, ...]) -> None:
        super().__init__(columns)
        knots = [sorted(set(column.quantiles)) for column in columns]
        bins = max([len(k) - 1 for k in knots if len(k) > 1], default=0)
        lower, inverse = torch.zeros(len(columns), bins), torch.zeros(len(columns), bins)
        for row, values in enumerate(knots):
            edges = torch.tensor(values, dtype=torch.float64)
            for bin_index in range(len(values) - 1):
                lower[row, bin_index] = edges[bin_index]
                inverse[row, bin_index] = 1.0 / (edges[bin_index + 1] - edges[bin_index])
        self.register_buffer("lower", lower)
        self.register_buffer("inverse", inverse)
        self.width = len(columns) * (bins + 2)

    def embedded(self, known_BN: Tensor) -> list[Tensor]:
        return [self.bins(known_BN)]

    def bins(self, known_BN: Tensor) -> Tensor:
        """How much of each bin lies below the number, [B, N, T]."""
        return ((known_BN.unsqueeze(-1) - self.lower) * self.inverse).clamp(0.0, 1.0)


class PeriodicNumbers(EncodeNumbers):
    """Numbers [B, N] → [B, N * (D + 2)]: standardised value, missing mark, learned waves (Gorishniy et al. 2022, "PLR").

    A number is first replaced by its rank among the distinct training values, in -1..1, then seen through the sine and cosine of K
    learned frequencies, which begin normal with deviation `scale`; a linear layer of each column's own and a ReLU follow.
    """

    def __init__(self, columns: tuple[Column, ...], frequencies: int, scale: float, width: int) -> None:
        super().__init__(columns)
        self.register_buffer("num_bins", (self.inverse > 0).sum(dim=1).clamp_min(1).to(torch.float32))
        self.frequencies = nn.Parameter(torch.randn(len(columns), frequencies) * scale)
        bound = (2 * frequencies) ** -0.5
        self.weight = nn.Parameter(torch.empty(len(columns), 2 * frequencies, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(columns), width).uniform_(-bound, bound))
        self.width = len(columns) * (width + 2)

    def embedded(self, known_BN: Tensor) -> list[Tensor]:
        rank_BN1 = (2.0 * self.bins(known_BN).sum(dim=-1) / self.num_bins - 1.0).unsqueeze(-1)
        angle_BNK = 2.0 * math.pi * self.frequencies * rank_BN1
        waves_BNK = torch.cat([torch.sin(angle_BNK), torch.cos(angle_BNK)], dim=-1)
        # Not a batched product: static quantisation gives a weight of three axes a scale that ONNX Runtime refuses.
        return [torch.relu(torch.einsum("bnk,nkd->bnd", waves_BNK, self.weight) + self.bias)]


class EmbedCategories(nn.Module):
    """Category codes [B, C] (0: never seen in training) → [B, C * D]; all columns share one table of rows."""

    def __init__(self, columns: tuple[Column, ...], width: int) -> None:
        super().__init__()
        counts = [len(column.vocabulary) + 1 for column in columns]
        sizes = torch.tensor(counts)
        self.register_buffer("offsets", torch.cumsum(sizes, 0) - sizes)
        self.register_buffer("last", sizes - 1)
        self.table = nn.Embedding(sum(counts), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        with torch.no_grad():
            self.table.weight[self.offsets] = 0.0  # an unseen value says nothing until masking teaches otherwise
        self.width = len(columns) * width

    def forward(self, codes_BC: Tensor) -> Tensor:
        codes_BC = torch.minimum(codes_BC.clamp_min(0), self.last)
        return self.table(codes_BC + self.offsets).flatten(1)


class OneHotCategories(nn.Module):
    """Category codes [B, C] (0: never seen in training) → [B, sum of vocabularies]: a 1 for each column's value, none for 0."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        super().__init__()
        codes = [(place, code) for place, column in enumerate(columns) for code in range(1, len(column.vocabulary) + 1)]
        self.register_buffer("column", torch.tensor([place for place, _ in codes], dtype=torch.int64))
        self.register_buffer("code", torch.tensor([code for _, code in codes], dtype=torch.int64))
        self.width = len(codes)

    def forward(self, codes_BC: Tensor) -> Tensor:
        return (codes_BC[:, self.column] == self.code).to(torch.float32)
