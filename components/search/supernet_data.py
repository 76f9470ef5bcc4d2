"""The rows of a supernet: those that train it, those that tune architecture weights and those that judge candidates.

Legend: B rows of a batch, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from components.artifacts import AugmentationPolicy, DatasetVersion
from components.build import build
from components.training.batches import Rows, load_rows, seed_of

Forward = Callable[..., Tensor]
"""From the raw inputs to logits [B, K]: a candidate, or a mixture of them, in a supernet."""


@dataclass(frozen=True)
class Data:
    """The rows that train weights, those that tune architecture weights and those that judge candidates, none of them
    the same; `vary` is the augmentation."""

    dataset: DatasetVersion
    trained: Rows
    tuned: Rows
    judged: Rows
    vary: Callable[..., tuple[dict[str, Tensor], Tensor]]

    @classmethod
    def of(
        cls, dataset: DatasetVersion, policy: AugmentationPolicy, holdout: float, rows: int | None, seed: int, *, tuned: float = 0.0
    ) -> Data:  # fmt: skip
        """Holds a share of the training rows out by `seed`; the share `tuned` of those and the validation rows tunes, the
        rest judges. With `rows` only so many training rows are used."""
        train, validation = load_rows(dataset, "train", limit=rows, seed=seed), load_rows(dataset, "validation")
        generator = torch.Generator().manual_seed(seed_of(seed, "holdout"))
        order = torch.randperm(len(train), generator=generator)
        held = max(1, round(holdout * len(train)))
        rest = _joined(_taken(train, order[:held]), validation)
        mixed = torch.randperm(len(rest), generator=generator)
        cut = round(tuned * len(rest))
        return cls(dataset, _taken(train, order[held:]), _taken(rest, mixed[:cut]), _taken(rest, mixed[cut:]), build(policy.config))

    def loss(self, forward: Forward, fields: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Cross-entropy, or the squared error of standardised targets."""
        outputs = forward(*(as_float(fields[field.name]) for field in self.dataset.inputs))
        if self.dataset.task == "classification":
            return F.cross_entropy(outputs, targets)
        return F.mse_loss(outputs.squeeze(-1), targets)

    def worth(self, forward: Forward, fields: dict[str, Tensor], targets: Tensor) -> Tensor:
        """For each row the probability of its class, or the negative error: higher is better.

        The mean probability is the accuracy of a guess drawn from what the network believes. Where labels have no
        meaning it is 1/K for every candidate, however sure of itself; a log-loss would punish the sure ones.
        """
        outputs = forward(*(as_float(fields[field.name]) for field in self.dataset.inputs))
        if self.dataset.task == "classification":
            return outputs.softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
        return -(outputs.squeeze(-1) - targets).abs()


def as_float(values: Tensor) -> Tensor:
    return values.to(torch.float32) if values.dtype == torch.uint8 else values


def _taken(rows: Rows, index: Tensor) -> Rows:
    fields, targets = rows.at(index)
    return Rows(fields=fields, targets=targets)


def _joined(one: Rows, other: Rows) -> Rows:
    fields = {name: torch.cat([values, other.fields[name]]) for name, values in one.fields.items()}
    return Rows(fields=fields, targets=torch.cat([one.targets, other.targets]))
