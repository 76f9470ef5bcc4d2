"""No quantisation: the graphs are served as they were exported."""

from __future__ import annotations

from pathlib import Path

from components.compression.validation import Validation


class NoQuantization:
    """Offers no precision, so that it is never asked for a graph."""

    precisions: tuple[str, ...] = ()

    def quantize(self, model: Path, out: Path, precision: str, validation: Validation) -> None:
        """Raises `ValueError`: there is nothing to offer."""
        raise ValueError(f"quantization=none offers no precision, asked for {precision!r}")
