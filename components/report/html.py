"""One self-contained HTML page a run: what was decided and why, with the pictures that show it.

The page is one file that loads nothing (its content security policy forbids it), follows the reader's light or dark
theme and works on a telephone and on paper. It is written for finished, failed and unfinished runs alike: what has
no record has no section. A run writes it at its end; `athanor report` says where it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.artifacts import JSON, EvaluationReport
from components.report import findings, search, sections, strategies
from components.report.findings import Records, Run
from components.report.template import environment
from components.store import full_disk_says_so, write_atomically


def write_report(
    path: Path,
    *,
    run: Run,
    records: Records,
    config: JSON,
    events: Sequence[Mapping[str, Any]] = (),
    champion: EvaluationReport | None = None,
    comparison: JSON | None = None,
) -> Path:
    """Writes the page (whole or not at all) and returns its path.

    `run` and `records` are described in `findings`; any record may be missing. `champion` is the report of the
    version that was champion before this run: its figures are shown beside the new ones. `comparison` is what
    `benchmarks/strategies.py` measured on the same data (see `strategies`). Raises `TryAgainError` when the disk is full.
    """
    text = render(run=run, records=records, config=config, events=events, champion=champion, comparison=comparison)
    with full_disk_says_so(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return path


def render(
    *,
    run: Run,
    records: Records,
    config: JSON,
    events: Sequence[Mapping[str, Any]] = (),
    champion: EvaluationReport | None = None,
    comparison: JSON | None = None,
) -> str:
    """The page's text."""
    run = findings.complete(run, events)
    views = {
        "summary": sections.summary(run, records, events, champion),
        "stages": sections.stages(run),
        "data": sections.data(records),
        "search": search.view(records, events, config),
        "strategies": strategies.view(comparison),
        "training": sections.training(records, config),
        "deployables": sections.deployables(records, config),
        "evaluation": sections.evaluation(records, champion),
        "lineage": sections.lineage(run, records),
        "reproduction": sections.reproduction(run, records, config),
    }
    return environment().get_template("page.html").render(run=run, title=_title(run, records), config=_yaml(config), **views)


def _title(run: Run, records: Records) -> str:
    dataset = findings.dataset_of(records)
    return str(run.get("model") or (dataset.name if dataset else "") or "run")


def _yaml(config: JSON) -> str:
    import yaml

    return yaml.safe_dump(json.loads(json.dumps(config, default=str)), sort_keys=False, allow_unicode=True, width=110)
