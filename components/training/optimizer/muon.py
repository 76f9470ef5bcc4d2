"""Momentum whose steps are made orthogonal: every direction of a matrix moves alike (Jordan et al., "Muon", 2024).

Torch's own Muon takes matrices only. Here a kernel of a convolution is the matrix [out, in × height × width], and what
is no matrix (biases, scales) takes AdamW's steps, so that one optimizer trains a whole network. Steps of matrices are as
large as AdamW's usual ones (Liu et al., "Muon is Scalable for LLM Training", 2025), so that both share one learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration that pulls singular values to about 1 fastest
STEPS = 5
LIKE_ADAMW = 0.2  # root mean square of AdamW's usual steps, in learning rates
EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """`momentum` of matrices (Nesterov's), `betas` of the rest; weight decay is decoupled for both."""

    def __init__(
        self, params: Any, lr: float, weight_decay: float = 0.0, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.98)
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": tuple(betas)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update = self._orthogonal(parameter, group) if parameter.ndim > 1 else self._adam(parameter, group)
                    parameter.sub_(group["lr"] * update)
        return loss

    def _orthogonal(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        kept = self._kept(parameter, "momentum_buffer")
        kept.lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(kept, group["momentum"])
        matrix = ahead.reshape(len(ahead), -1)
        scale = LIKE_ADAMW * max(matrix.shape) ** 0.5
        return scale * orthogonal(matrix).reshape(parameter.shape)

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        first, second, count = (self._kept(parameter, name) for name in ("exp_avg", "exp_avg_sq", "step"))
        (beta, other), grad = group["betas"], parameter.grad
        count += 1
        first.lerp_(grad, 1 - beta)
        second.mul_(other).addcmul_(grad, grad, value=1 - other)
        steps = float(count)
        return first / (1 - beta**steps) / ((second / (1 - other**steps)).sqrt() + EPSILON)

    def _kept(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros(()) if name == "step" else torch.zeros_like(parameter)
        return state[name]


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the matrix [M, N] with all its singular values made 1, by Newton and Schulz's iteration."""
    a, b, c = COEFFICIENTS
    found = matrix.T if len(matrix) > matrix.shape[1] else matrix
    found = found / (found.norm() + 1e-7)
    for _ in range(STEPS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found.T if len(matrix) > matrix.shape[1] else found
