"""The part of a network that takes raw rows: scaling images, encoding numbers, embedding categories.

It lives inside the network, with the training split's statistics as buffers, so that what is exported needs nothing
beside it. Legend: B rows of a batch, N numeric columns, T bins, C categorical columns, D embedding width.
"""

from __future__ import annotations

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


class EncodeNumbers(nn.Module):
    """Numbers [B, N] with NaN for missing → [B, N * (T + 2)]: standardised value, missing mark, piecewise-linear bins.

    A bin is 0 below its lower knot, 1 above its upper one and linear between (Gorishniy et al. 2022, "On Embeddings
    for Numerical Features"). Columns with fewer knots leave the rest of their bins at 0.
    """

    def __init__(self, columns: tuple[Column, ...]) -> None:
        super().__init__()
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
        self.register_buffer("mean", torch.tensor([column.mean for column in columns], dtype=torch.float32))
        self.register_buffer("inverse_std", torch.tensor([1.0 / max(column.std, 1e-6) for column in columns], dtype=torch.float32))
        self.width = len(columns) * (bins + 2)

    def forward(self, numbers_BN: Tensor) -> Tensor:
        missing_BN = torch.isnan(numbers_BN)
        known_BN = torch.where(missing_BN, self.mean.expand_as(numbers_BN), numbers_BN)
        present_BN1 = (~missing_BN).to(torch.float32).unsqueeze(-1)
        # Far outliers would dominate the standardised value; the bins keep the order of what lies within.
        standard_BN1 = ((known_BN - self.mean) * self.inverse_std).clamp(-5.0, 5.0).unsqueeze(-1)
        bins_BNT = ((known_BN.unsqueeze(-1) - self.lower) * self.inverse).clamp(0.0, 1.0)
        encoded = torch.cat([standard_BN1 * present_BN1, 1.0 - present_BN1, bins_BNT * present_BN1], dim=-1)
        return encoded.flatten(1)


class EmbedCategories(nn.Module):
    """Category codes [B, C] (0: never seen in training) → [B, C * D]; all columns share one table of rows."""

    def __init__(self, columns: tuple[Column, ...], width: int) -> None:
        super().__init__()
        sizes = torch.tensor([len(column.vocabulary) + 1 for column in columns])
        self.register_buffer("offsets", torch.cumsum(sizes, 0) - sizes)
        self.register_buffer("last", sizes - 1)
        self.table = nn.Embedding(int(sizes.sum()), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        with torch.no_grad():
            self.table.weight[self.offsets] = 0.0  # an unseen value says nothing until masking teaches otherwise
        self.width = len(columns) * width

    def forward(self, codes_BC: Tensor) -> Tensor:
        codes_BC = torch.minimum(codes_BC.clamp_min(0), self.last)
        return self.table(codes_BC + self.offsets).flatten(1)
