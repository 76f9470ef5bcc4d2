"""What can be said of a run before anything heavy is started or waited for: mistakes in settings, too small a budget, bad data."""

from __future__ import annotations

from components.artifacts import DatasetVersion
from components.home import home
from flows import parents
from flows.config import Config


def look_ahead(config: Config, dataset: DatasetVersion | None) -> None:
    """Raises what a run would raise after its server and workers had been waited for; `dataset` is None where it is yet to be read."""
    judge(config, dataset)
    if storage := config.values["search"]["storage"]:
        from components.search.study import reach

        reach(storage)
    if dataset is None:
        from components.data.version import look

        look(config.section(("dataset", "split")))


def judge(config: Config, dataset: DatasetVersion | None) -> None:
    """The settings alone. Raises `UsageError`."""
    from components.build import build
    from components.search.preview import preview
    from components.training.devices import require
    from flows.run import Timings, budget_of
    from flows.table import STAGES

    budget_of(config, Timings(home() / "timings.json"))
    build(config.values["fusion"])
    parents.judge(config.values, dataset)
    require(build(config.values["trainer"]))
    preview(config.section((*STAGES["search"].reads, "plugins")), dataset)
