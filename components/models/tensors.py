"""The tensors of two networks compared, by name and shape: whether weights fit, and whether they have a mean. Without torch."""

from __future__ import annotations

from collections.abc import Mapping


def difference(first: Mapping[str, list[int]], second: Mapping[str, list[int]], name: str, other: str) -> str | None:
    """The first tensor in which two networks differ, in words; None if they have the same.

    >>> difference({"head.bias": [2]}, {"head.bias": [3]}, "one", "another")
    'head.bias is [2] in one and [3] in another'
    """
    for tensor in sorted({*first, *second}):
        here, there = (str(found[tensor]) if tensor in found else "none" for found in (first, second))
        if here != there:
            return f"{tensor} is {here} in {name} and {there} in {other}"
    return None
