"""dvc.yaml, written from the stage table: the same stages through the stage door, for `dvc repro`.

    python -m flows.stage > dvc.yaml

`deps` are the record of the stage before, the files of code that the stage runs and the yaml of each choice it reads;
`params` the plain keys of conf/pipeline.yaml and the line of the defaults list that chose; `outs` are small records
kept out of DVC's cache, because the bytes live in the artifact store. A test holds the file to this table.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from components.artifacts import JSON, EvaluationReport, TrainedModel
from components.fingerprint import SourceCache, closure, targets
from components.home import home
from components.store import write_atomically
from flows.config import CONF, load
from flows.table import STAGES, Stage

PYTHON = ".venv/bin/python"
RECORDS = ".athanor/stages"
HEADER = "# Written by: python -m flows.stage > dvc.yaml   (from the stage table; a test compares)\n"


def render() -> str:
    """The text of dvc.yaml for the default composition."""
    defaults = yaml.safe_load((CONF / "pipeline.yaml").read_text())["defaults"]
    config = load([])
    cache = SourceCache()
    stages = {stage.name: _stage(stage, config.values, config.choices, defaults, cache) for stage in STAGES.values()}
    plots = [
        {f"{RECORDS}/learning_curve.csv": {"x": "epoch", "y": "value", "title": "Learning curve"}},
        {f"{RECORDS}/confusion.csv": {"x": "predicted", "y": "actual", "template": "confusion", "title": "Confusion (test)"}},
    ]
    text: str = yaml.safe_dump({"stages": stages, "plots": plots}, sort_keys=False, width=140, allow_unicode=True)
    return HEADER + text


def _stage(stage: Stage, values: JSON, choices: JSON, defaults: list[Any], cache: SourceCache) -> JSON:
    section = {key: values[key] for key in stage.reads}
    code, _ = closure([stage.module, *targets(section)], cache)
    families = [key for key in stage.reads if (CONF / key).is_dir()]
    plain = _plain_keys(stage, values, families)
    plain += [f"defaults.{i}.{name}" for i, entry in enumerate(defaults) if isinstance(entry, dict) for name in entry if name in families]
    conf = [f"conf/{family}/{name}.yaml" for family in families for name in _names(choices[family])]
    found: JSON = {"cmd": f"{PYTHON} -m flows.stage {stage.name}"}
    found["deps"] = sorted([*code, *conf, *(f"{RECORDS}/{name}.json" for name in stage.takes)])
    if plain:
        found["params"] = [{"conf/pipeline.yaml": sorted(plain)}]
    found["outs"] = [{f"{RECORDS}/{name}": {"cache": False}} for name in (f"{stage.name}.json", *EXTRA.get(stage.name, ()))]
    if stage.name == "evaluate":
        found["metrics"] = [{f"{RECORDS}/metrics.json": {"cache": False}}]
    return found


EXTRA = {"train": ("learning_curve.csv",), "evaluate": ("confusion.csv",)}


def _plain_keys(stage: Stage, values: JSON, families: list[str]) -> list[str]:
    keys = [key for key in stage.reads if key not in families]
    found = []
    for key in keys:
        below = [f"{key}.{name}" for name in values[key]] if isinstance(values[key], dict) else [key]
        found += [name for name in below if name not in stage.ignores]
    found += ["seed"] if stage.seeded else []
    return found + (["budget"] if stage.extent else [])


def _names(choice: Any) -> list[str]:
    return list(choice) if isinstance(choice, list | tuple) else [str(choice)]


def write_extras(name: str, record: Any) -> None:
    """The small files that `dvc metrics show` and `dvc plots show` read, beside the record of train and evaluate."""
    folder = home() / "stages"
    if isinstance(record, TrainedModel) and name == "train":
        rows = [f"{row.get('epoch')},{row.get('value')},{row.get('train_loss')}" for row in record.history]
        write_atomically(folder / "learning_curve.csv", "\n".join(["epoch,value,train_loss", *rows]) + "\n")
    if isinstance(record, EvaluationReport):
        figures = {
            "test": {k: round(v.value, 6) for k, v in record.test.items()},
            "size_kb": round(record.best.size_kb, 1),
            "chosen": record.chosen,
        }
        write_atomically(folder / "metrics.json", json.dumps(figures, indent=1))
        write_atomically(folder / "confusion.csv", _confusion(record))


def _confusion(report: EvaluationReport) -> str:
    classes = report.dataset.classes
    rows = ["actual,predicted"]
    for actual, counts in zip(classes, report.figures.get("confusion", []), strict=False):
        for predicted, count in zip(classes, counts, strict=True):
            rows += [f"{actual},{predicted}"] * int(count)
    return "\n".join(rows) + "\n"


