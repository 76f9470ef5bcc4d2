"""An architecture made wider and deeper, as numbers alone; `components.models.growth` takes the weights along.

    enlarged({"width": 16, "depths": [1, 2], ...}, width=1.5, blocks=1)   {"width": 24, "depths": [2, 3], ...}

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from components.artifacts import JSON
from components.errors import UsageError
from components.settings import number, whole

WIDTHS, DEPTHS = ("width", "channels"), ("depths", "depth", "cells")
MOST = 16.0  # times as wide, at most: a slip of the finger costs memory with its square


def require_growth(width: float = 1.0, blocks: int = 0) -> None:
    """Raises `UsageError` for numbers out of range."""
    number("growth.width", width, 1.0, MOST)
    whole("growth.blocks", blocks, 0)


def enlarged(architecture: JSON, width: float = 1.0, blocks: int = 0) -> JSON:
    """The architecture with `width` times as many units or channels, rounded to what divides by 4 if they did, and with
    `blocks` more in each stage. Raises `UsageError` for numbers out of range and an architecture without such a setting."""
    require_growth(width, blocks)
    larger = dict(architecture)
    if width > 1:
        name = named(architecture, WIDTHS, "wider")
        step = 4 if architecture[name] % 4 == 0 else 1
        larger[name] = max(architecture[name] + step, step * round(width * architecture[name] / step))
    if blocks:
        name = named(architecture, DEPTHS, "deeper")
        depths = architecture[name]
        larger[name] = [depth + blocks for depth in depths] if isinstance(depths, list) else depths + blocks
    return larger


def named(architecture: JSON, names: Sequence[str], change: str) -> str:
    """Which of the names the architecture has. Raises `UsageError` where it has none."""
    found = next((name for name in names if name in architecture), None)
    if found is None:
        known = ", ".join(sorted(architecture))
        raise UsageError(f"a network is made {change} by one of {', '.join(names)}, this architecture has only {known}")
    return found


def changes(smaller: JSON, larger: JSON) -> str:
    """What has grown, in words: `width 16 to 24, depths [1, 2] to [2, 3]`."""
    return ", ".join(f"{name} {smaller[name]} to {value}" for name, value in larger.items() if smaller.get(name) != value)
