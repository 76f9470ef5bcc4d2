"""What every `check` choice promises, for each yaml in conf/check: a new one is found here without being named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components.artifacts import CheckResult, DatasetVersion
from components.build import allow, build, resolve
from components.quality.interface import ANY, accepts
from tests.datasets import CONF, image_arrays, table_arrays, write_version

FOUND = sorted(CONF.glob("check/*.yaml"))
BROKEN = sorted((Path(__file__).parent / "broken").glob("check_*.py"))


def sound_data() -> list[tuple[dict[str, np.ndarray], Any, tuple[str, ...]]]:
    """Data sets without a flaw: images, a table to classify, a table with a quantity."""
    images, image_fields = image_arrays()
    table, fields = table_arrays()
    quantity, _ = table_arrays(regression=True)
    return [(images, image_fields, ("a", "b", "c")), (table, fields, ("no", "yes")), (quantity, fields, ())]


def check_contract(node: dict[str, Any], folder: Path) -> None:
    """Sound data pass, the check's own flaw does not, and the answer is one sentence with figures in JSON."""
    check = build(node)
    assert check.modalities == ANY or set(check.modalities) <= {"image", "table", "text", "audio"}
    assert check.tasks == ANY or set(check.tasks) <= {"classification", "regression"}
    seen = 0
    for number, (arrays, fields, classes) in enumerate(sound_data()):
        sound = write_version(folder / f"sound{number}", arrays, fields, classes)
        if not accepts(check, sound):
            continue
        seen += 1
        check_answer(check, sound, "pass")
        flawed = write_version(folder / f"flawed{number}", check.flaw(arrays), fields, classes)
        check_answer(check, flawed, "warn", "fail")
    assert seen, "a check must accept some data"


def check_answer(check: Any, dataset: DatasetVersion, *statuses: str) -> None:
    """The status is one of those expected, the same when asked again, and nothing of the data changed."""
    before = {name: np.load(file.path).tobytes() for name, file in dataset.files.items()}
    result = check.check(dataset)
    assert isinstance(result, CheckResult)
    assert result.name == check.name
    assert result.status in statuses, result.reason
    assert result.reason
    assert "\n" not in result.reason
    assert CheckResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert check.check(dataset) == result
    assert {name: np.load(file.path).tobytes() for name, file in dataset.files.items()} == before


def test_choices_are_found() -> None:
    """The suite runs over something."""
    assert len(FOUND) >= 8


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_contract(file: Path, tmp_path: Path) -> None:
    """A check keeps all promises of the family and is named like its file."""
    node = yaml.safe_load(file.read_text())
    assert node["_target_"].rpartition(".")[0] == f"components.quality.check.{file.stem}"
    assert resolve(node["_target_"]).name == file.stem
    check_contract(node, tmp_path)


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_broken_check_fails(file: Path, tmp_path: Path) -> None:
    """The suite has teeth."""
    allow("tests")
    with pytest.raises(AssertionError):
        check_contract({"_target_": f"tests.contracts.broken.{file.stem}.Broken"}, tmp_path)


def test_broken_checks_are_found() -> None:
    """At least one broken check is tried."""
    assert BROKEN
