"""Gradient-based architecture search: weights and architecture weights trained in turn, each on rows of its own.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (bilevel, first order). Plain DARTS ends
in cells of shortcuts: operations without weights help a half-trained network most, and mixing them all hides what each
is worth alone. Against that: weights are trained alone at first; architecture weights only lead which operations are
trained more; what is selected is what changes the held-out rows' answers when it is chosen alone (Wang et al.,
"Rethinking Architecture Selection in Differentiable NAS", ICLR 2021); and no more than `most_skips` shortcuts a cell
(Chen et al., "Progressive DARTS", ICCV 2019). Legend: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler

from components.artifacts import JSON
from components.errors import UnknownNameError
from components.models.points import Point
from components.search.derivation import DerivedSampler
from components.search.problem import Problem
from components.search.supernet import MIXTURE, SUPERNET, TRAINED, Recipe, SupernetTask
from components.settings import number, whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from components.search.supernet_data import Data, Forward

RELAXATIONS = ("softmax", "gumbel")
SHORTCUT = "skip_connect"
TEMPERATURE = (5.0, 0.5)  # of Gumbel's softmax, from the first step to the last
PATHS = 5  # candidates a step: as many as a cell's edge has operations, so that each is trained once
UNIFORM = 0.5  # of the candidates are drawn alike, whatever the architecture weights say: none may starve
TUNED = 0.5  # of the rows held out tune architecture weights, the others judge
BETAS, DECAY = (0.5, 0.999), 1e-3  # of Adam for the architecture weights, as in DARTS


class DARTSStrategy:
    """Trains a supernet by gradients, then suggests the cells derived from it. Raises `UsageError`."""

    learns = True
    objectives = "many"  # the supernet knows accuracy alone; the trials after the derived ones pursue them all
    needs = frozenset({SUPERNET, MIXTURE})
    offers = frozenset({TRAINED})

    def __init__(
        self,
        *,
        relaxation: str = "gumbel",
        epochs: int = 200,
        batch_size: int = 64,
        learning_rate: float = 0.1,
        architecture_learning_rate: float = 0.01,
        holdout: float = 0.3,
        warmup: float = 0.3,
        views: int = 40,
        candidates: int = 8,
        most_skips: int = 2,
    ) -> None:
        if relaxation not in RELAXATIONS:
            raise UnknownNameError("strategy.relaxation", relaxation, RELAXATIONS)
        whole("strategy.most_skips", most_skips, 0)
        number("strategy.warmup", warmup, 0, 1, below=True)
        number("strategy.architecture_learning_rate", architecture_learning_rate, 0)
        self.recipe = Recipe(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, holdout=holdout, views=views, candidates=candidates
        )
        self.relaxation, self.warmup, self.most_skips = relaxation, warmup, most_skips
        self.architecture_learning_rate = architecture_learning_rate

    def sampler(self, seed: int, problem: Problem | None = None) -> BaseSampler:
        return DerivedSampler(seed, problem)

    def train_supernet(self, task: SupernetTask, *, emit: Callable[..., Any]) -> Path:
        """See `SupernetStrategy`. Raises `DivergedError`."""
        from components.search.supernet_training import trained

        def bilevel(supernet: Any, space: Any, data: Data) -> _Bilevel:
            return _Bilevel(supernet, data, self, task.seed)

        return trained(task, self.recipe, bilevel, tuned=TUNED, allowed=self._is_allowed, emit=emit)

    def _is_allowed(self, point: Point) -> bool:
        return sum(value == SHORTCUT for value in point.params.values()) <= self.most_skips


class _Bilevel:
    """The curriculum: candidates' weights by the trained rows; after the warm-up, architecture weights by the tuned rows."""

    def __init__(self, supernet: Any, data: Data, strategy: DARTSStrategy, seed: int) -> None:
        import torch

        self.supernet, self.data, self.seed = supernet, data, seed
        self.relaxation, self.warmup, self.batch_size = strategy.relaxation, strategy.warmup, strategy.recipe.batch_size
        self.alphas_EO = torch.zeros(len(supernet.choices), len(supernet.operations), requires_grad=True)
        self.optimizer = torch.optim.Adam([self.alphas_EO], lr=strategy.architecture_learning_rate, betas=BETAS, weight_decay=DECAY)

    def forwards(self, step: int, progress: float) -> Sequence[Forward]:
        if self.relaxation == "softmax":
            weights_EO = self.alphas_EO.detach().softmax(dim=1)
            return [lambda *inputs: self.supernet.mixture(weights_EO, *inputs)]
        return [lambda *inputs, path=path: self.supernet.mixture(path, *inputs) for path in self._paths(step)]

    def _paths(self, step: int) -> list[Tensor]:
        """One-hot weights [E, O] of candidates drawn by the architecture weights, each edge's operations in their shares."""
        import torch
        from torch.nn import functional as F

        from components.training.batches import seed_of

        generator = torch.Generator().manual_seed(seed_of(self.seed, "paths", step))
        count = self.alphas_EO.shape[1]
        shares_EO = (1 - UNIFORM) * self.alphas_EO.detach().softmax(dim=1) + UNIFORM / count
        edges = len(shares_EO)
        places = (torch.arange(PATHS) + torch.rand(edges, 1, generator=generator)) / PATHS  # one in each fifth of 0..1
        drawn = torch.searchsorted(shares_EO.cumsum(dim=1).contiguous(), places.contiguous()).clamp_max(count - 1)
        order = torch.rand(edges, PATHS, generator=generator).argsort(dim=1)
        return list(F.one_hot(drawn.gather(1, order), count).to(torch.float32).unbind(dim=1))

    def after_step(self, step: int, progress: float) -> None:
        import torch

        from components.training.batches import seed_of

        if progress < self.warmup:
            return
        generator = torch.Generator().manual_seed(seed_of(self.seed, "architecture", step))
        index = torch.randperm(len(self.data.tuned), generator=generator)[: self.batch_size]
        weights_EO = self._relaxed(progress, generator)
        # Not the log-loss that trains the weights: on few rows it punishes whoever is sure, so convolutions, and rewards shortcuts.
        worth = self.data.worth(lambda *inputs: self.supernet.mixture(weights_EO, *inputs), *self.data.tuned.at(index))
        loss = -worth.mean()
        (self.alphas_EO.grad,) = torch.autograd.grad(loss, [self.alphas_EO], allow_unused=True)
        if self.alphas_EO.grad is not None:  # a drawn cell that connects nothing has nothing to say
            self.optimizer.step()

    def _relaxed(self, progress: float, generator: torch.Generator) -> Tensor:
        """Weights [E, O] that gradients flow through: the mixture itself, or one operation an edge, drawn (Dong and Yang,
        "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019)."""
        import torch

        if self.relaxation == "softmax":
            return self.alphas_EO.softmax(dim=1)
        first, last = TEMPERATURE
        uniform = torch.rand(self.alphas_EO.shape, generator=generator).clamp(1e-9, 1 - 1e-9)
        noisy = self.alphas_EO.log_softmax(dim=1) - (-uniform.log()).log()
        soft_EO = (noisy / (first + (last - first) * progress)).softmax(dim=1)
        hard_EO = torch.zeros_like(soft_EO).scatter_(1, soft_EO.argmax(dim=1, keepdim=True), 1.0)
        return torch.where(hard_EO > 0, 1.0 - soft_EO.detach() + soft_EO, torch.zeros_like(soft_EO))

    def figures(self) -> JSON:
        shares = self.alphas_EO.detach().softmax(dim=1).tolist()
        table = zip(self.supernet.choices, shares)
        return {"architecture_weights": {name: dict(zip(self.supernet.operations, map(_short, row))) for name, row in table}}

    # ---- checkpoints ----

    def state(self) -> JSON:
        return {"alphas": self.alphas_EO.detach(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: JSON) -> None:
        import torch

        with torch.no_grad():
            self.alphas_EO.copy_(state["alphas"])
        self.optimizer.load_state_dict(state["optimizer"])


def _short(share: float) -> float:
    return round(share, 4)
