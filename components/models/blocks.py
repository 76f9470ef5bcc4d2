"""Convolution blocks: plain, residual and separable, each `[B, in, H, W] → [B, out, H/stride, W/stride]`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.errors import UnknownNameError

NORMS = ("batch", "group", "layer")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "hardswish": nn.Hardswish}


def activation(name: str) -> nn.Module:
    """A fresh activation. Raises `UnknownNameError`."""
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def norm(name: str, channels: int) -> nn.Module:
    """Batch normalisation, group normalisation (groups of about 8 channels), or one group over all channels and places (layer)."""
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(max(g for g in range(1, max(channels // 8, 1) + 1) if channels % g == 0), channels)
    if name == "layer":
        return nn.GroupNorm(1, channels)
    raise UnknownNameError("norm", name, NORMS)


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias (a normalisation follows) that keeps the side at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)


class SqueezeExcite(nn.Module):
    """Each channel scaled by 0..1, as the averages of all channels say (Hu et al. 2018); `ratio` narrows in between."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        inner = max(4, channels // ratio)
        layers = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1), nn.Sigmoid())
        self.gate = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.gate(features)


def excitation(channels: int, ratio: int) -> list[nn.Module]:
    """A squeeze-and-excite layer, or none for ratio 0."""
    return [SqueezeExcite(channels, ratio)] if ratio else []


class Plain(nn.Sequential):
    """Convolution, normalisation, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, norm_name: str, activation_name: str, squeeze: int = 0
    ) -> None:  # fmt: skip
        super().__init__(
            convolution(in_channels, out_channels, kernel, stride),
            norm(norm_name, out_channels),
            activation(activation_name),
            *excitation(out_channels, squeeze),
        )


class Skipping(nn.Module):
    """A body beside a shortcut that fits its shape; begins as the shortcut alone (last scale 0), which trains faster."""

    def __init__(self, body: nn.Sequential, in_channels: int, out_channels: int, stride: int, norm_name: str, after: nn.Module) -> None:
        super().__init__()
        self.body, self.after, self.drop = body, after, 0.0
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Sequential(
            convolution(in_channels, out_channels, 1, stride), norm(norm_name, out_channels)
        )  # fmt: skip
        scales = [layer.weight for layer in body if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)]
        if same and scales:
            nn.init.zeros_(scales[-1])

    def forward(self, features: Tensor) -> Tensor:
        return self.after(left_out(self.body(features), self.drop, self.training) + self.shortcut(features))


def left_out(branch: Tensor, drop: float, training: bool) -> Tensor:
    """A branch beside a shortcut, [B, ...], left out for each row with the probability `drop` while training."""
    if not training or not drop:
        return branch
    kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), dtype=branch.dtype, device=branch.device) >= drop
    return branch * kept / (1.0 - drop)


def drop_residuals(network: nn.Module, rate: float) -> None:
    """Stochastic depth (Huang et al., ECCV 2016): branches beside shortcuts are left out, the last with the probability
    `rate`, those before it more rarely the earlier they come. They are modules with an attribute `drop`."""
    branches = [module for module in network.modules() if isinstance(getattr(module, "drop", None), float)]
    for place, module in enumerate(branches, start=1):
        module.drop = rate * place / len(branches)  # type: ignore[assignment]


class Residual(Skipping):
    """Two convolutions beside a shortcut (He et al. 2016)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, norm_name: str, activation_name: str, squeeze: int = 0
    ) -> None:  # fmt: skip
        body = nn.Sequential(
            convolution(in_channels, out_channels, kernel, stride),
            norm(norm_name, out_channels),
            activation(activation_name),
            convolution(out_channels, out_channels, kernel),
            norm(norm_name, out_channels),
            *excitation(out_channels, squeeze),
        )
        super().__init__(body, in_channels, out_channels, stride, norm_name, activation(activation_name))


class Separable(Skipping):
    """Widen by a 1x1 convolution, mix space per channel, narrow again, beside a shortcut (Sandler et al. 2018)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, norm_name: str, activation_name: str, expansion: int,
        squeeze: int = 0,
    ) -> None:  # fmt: skip
        inner = in_channels * expansion
        body = nn.Sequential(
            convolution(in_channels, inner, 1),
            norm(norm_name, inner),
            activation(activation_name),
            convolution(inner, inner, kernel, stride, groups=inner),
            norm(norm_name, inner),
            activation(activation_name),
            *excitation(inner, squeeze),
            convolution(inner, out_channels, 1),
            norm(norm_name, out_channels),
        )
        super().__init__(body, in_channels, out_channels, stride, norm_name, nn.Identity())
