"""The page templates of this folder, which are Jinja files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.report import words

HERE = Path(__file__).parent


def environment() -> Any:
    """The templates of this folder, with the words they use."""
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        seconds=words.seconds, moment=words.moment, short=words.short, sentence=words.sentence, count=words.count, spoken=words.metric
    )
    return environment
