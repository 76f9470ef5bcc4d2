"""A share of a batch's rows meets the randomness that it would meet within the whole batch.

So a step taken in several parts, or on several devices, is the step that one process would take in one: dropout and
stochastic depth draw for all rows, from the same state of the generator, and each share takes its own rows' draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ELEMENTWISE = {F.dropout, torch.dropout}
CHANNELWISE = {F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout}
SIZED = {torch.rand, torch.randn}
LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}


def cut(rows: int, *, rank: int = 0, size: int = 1, parts: int = 1) -> list[slice]:
    """This rank's rows of a batch, in at most so many parts; every rank has the same number of parts, and at least a row in each.

    >>> cut(10, rank=1, size=2, parts=2)
    [slice(5, 7, None), slice(7, 10, None)]
    """
    first, last = rank * rows // size, (rank + 1) * rows // size
    parts = max(1, min(parts, rows // size))
    edges = [first + part * (last - first) // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


class ShareOfRows(TorchFunctionMode):
    """While active, what is drawn for the rows of `share` is cut out of what is drawn for all `rows` of the batch.

    A draw belongs to the rows if its first axis has as many as the share; others are left as they are.
    """

    def __init__(self, share: slice, rows: int) -> None:
        super().__init__()
        self.share, self.rows = share, rows

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in ELEMENTWISE:
            return self._dropped(*args, **kwargs)
        if function in CHANNELWISE:
            return self._dropped(*args, **kwargs, channels=True)
        if function in SIZED:
            return self._drawn(function, args, kwargs)
        if function in LIKE and not kwargs.get("memory_format"):
            like = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            return self._drawn(LIKE[function], tuple(args[0].shape), like)
        return function(*args, **kwargs)

    def _dropped(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool = True, channels: bool = False
    ) -> Tensor:
        """As torch's own dropout on the CPU does it, bit for bit."""
        values = input
        if not (training and train) or p == 0 or not values.numel():
            return values
        shape = (*values.shape[:2], *[1] * (values.ndim - 2)) if channels else tuple(values.shape)
        last = not channels and values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous()
        noise = torch.empty(self._whole(shape), dtype=values.dtype, device=values.device)
        noise = noise.to(memory_format=torch.channels_last) if last else noise
        noise = self._own(noise.bernoulli_(1 - p).div_(1 - p) if p < 1 else noise.zero_(), shape)
        return values.mul_(noise) if inplace else values * noise

    def _drawn(self, function: Callable[..., Tensor], sizes: Iterable[Any], options: dict[str, Any]) -> Tensor:
        sizes = options.pop("size", sizes)
        found = tuple(sizes)
        shape = tuple(found[0]) if len(found) == 1 and not isinstance(found[0], int) else found
        return self._own(function(self._whole(shape), **options), shape)

    def _is_of_rows(self, shape: tuple[int, ...]) -> bool:
        return bool(shape) and shape[0] == self.share.stop - self.share.start

    def _whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.rows, *shape[1:]) if self._is_of_rows(shape) else shape

    def _own(self, drawn: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A copy, so that the rest is not kept for the backward pass."""
        return drawn[self.share].clone() if self._is_of_rows(shape) else drawn
