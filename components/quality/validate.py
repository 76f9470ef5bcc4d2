"""The validate verb: every check that accepts the data set, one row each.

It judges and raises nothing: `QualityReport.passed` is false when a row fails, and the flow stops there with the reasons.
"""

from __future__ import annotations

from components.artifacts import JSON, CheckResult, DatasetVersion, QualityReport
from components.build import build
from components.errors import UsageError
from components.quality.interface import Check, accepts
from components.workspace import Workspace


def validate(dataset: DatasetVersion, config: JSON, work: Workspace) -> QualityReport:
    """What the checks of `config["check"]` (a node each, by name) say of `dataset`, worst first."""
    checks = [build(node) for _, node in sorted(dict(config.get("check") or {}).items()) if node is not None]
    if not checks:
        raise UsageError("check needs at least one check; leave the default list, or name some, such as check=[classes,duplicates]")
    rows = [_run(check, dataset, work) for check in checks if accepts(check, dataset)]
    order = {"fail": 0, "warn": 1, "pass": 2}
    return QualityReport(dataset=dataset.identity, rows=tuple(sorted(rows, key=lambda row: (order[row.status], row.name))))


def _run(check: Check, dataset: DatasetVersion, work: Workspace) -> CheckResult:
    result = check.check(dataset)
    work.emit("check", name=result.name, status=result.status, reason=result.reason)
    return result
