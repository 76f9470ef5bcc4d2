"""Configuration: composed, judged, remembered; each mistake is one line that names the nearest choice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.build import resolve
from components.errors import UnknownNameError, UsageError
from components.fingerprint import ROOT, targets
from flows import config
from flows.config import CONF, LISTS, conceal, load
from flows.table import STAGES

pytestmark = pytest.mark.usefixtures("home")
YAMLS = sorted(CONF.glob("*/*.yaml"))


def test_there_are_yamls_to_test() -> None:
    """The tests below walk conf/."""
    assert len(YAMLS) > 20


@pytest.mark.parametrize("file", YAMLS, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_shipped_choice_composes_and_names_classes_that_exist(file: Path) -> None:
    """A choice listed in conf/ is real."""
    value = f"[{file.stem}]" if file.parent.name in LISTS else file.stem
    config = load([f"{file.parent.name}={value}"])
    if file.parent.name == "experiment":
        return
    node = config.values[file.parent.name]
    node = node[file.stem] if file.parent.name in LISTS else node
    assert list(targets(node))
    assert callable(resolve(node["_target_"]))


@pytest.mark.parametrize("file", YAMLS, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_a_choice_has_the_name_of_its_module(file: Path) -> None:
    """conf/<family>/<name>.yaml names components/<stage>/<family>/<name>.py, or a library's class."""
    target = yaml.safe_load(file.read_text()).get("_target_", "")
    if target.startswith("components."):
        assert target.split(".")[-2] == file.stem


def test_of_many_words_the_wrong_one_is_found_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is composed once, and the first of several mistakes is told, wherever its choice stands."""
    many = ["experiment=ci", "seed=1", "search.trials=3", "training.ema=0.9", "training.clip=0.5", "budget=1m", "search.keep=2"]
    count, composed = 0, config._composed

    def counted(words: list[str], folders: list[Path], **how: Any) -> Any:
        nonlocal count
        count += 1
        return composed(words, folders, **how)

    monkeypatch.setattr(config, "_composed", counted)
    with pytest.raises(UnknownNameError, match="unknown key in training 'patince'; did you mean 'patience'"):
        load([*many, "training.patince=3"])
    assert count <= len(many) + 3
    with pytest.raises(UnknownNameError, match="unknown key in strategy 'populatoin'; did you mean 'population'"):
        load(["strategy.populatoin=20", *many, "search.trails=3", "strategy=evolution"])
    with pytest.raises(UnknownNameError, match="unknown key in dataset 'targt'; did you mean 'target'"):
        load(["dataset=csv", "dataset.targt=y", "dataset.path=x.csv"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+training.patince=3", "unknown training setting 'patince'; did you mean 'patience'"),
        ("+search.trails=3", "unknown search setting 'trails'; did you mean 'trials'"),
        ("+growth.block=3", "unknown growth setting 'block'; did you mean 'blocks'"),
        ("+split.validate=0.1", "unknown split setting 'validate'; did you mean 'validation'"),
    ],
)
def test_a_setting_that_nobody_reads_is_not_ignored(home: Path, word: str, message: str) -> None:
    """Hydra takes any after a plus."""
    with pytest.raises(UnknownNameError, match=message):
        load([word])


@pytest.mark.parametrize(
    "words", [["training.class_weights={1: 2, 3: 0.5}"], ["training.class_weights.1=2", "+training.class_weights.3=0.5"]]
)
def test_weights_of_classes_can_be_typed(words: list[str]) -> None:
    assert load(words).values["training"]["class_weights"] == {"1": 2, "3": 0.5}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["space=convnt"], "unknown space 'convnt'; did you mean 'convnet'"),
        (["check=[classes,imbalanc]"], "unknown check 'imbalanc'; did you mean 'imbalance'"),
        (["serch.trials=3"], "unknown key 'serch'; did you mean 'search'"),
        (["search.trails=3"], "unknown key in search 'trails'; did you mean 'trials'"),
        (["dataset=csv", "dataset.pth=x"], "unknown key in dataset 'pth'; did you mean 'path'"),
        (["search.trials=none"], "search.trials must be a whole number, at least 1, got 'none'"),
        (["seed=-1"], "seed must be"),
        (["training.epochs=many"], "training.epochs must be auto or a whole number, at least 1, got 'many'"),
        (
            ["search.trials=0", "split.test=2"],
            "split.test must be between 0 and 0.5, got 2; search.trials must be a whole number, at least 1, got 0",
        ),
        (["split.test=0.9"], "split.test must be between 0 and 0.5, got 0.9; "),
        (["budget=soon"], "a duration is a number with s, m, h or d"),
        (["training.precision=fp16"], "training.precision must be auto, fp32 or bf16, got 'fp16'"),
        (["training.patience=0"], "training.patience must be null or a whole number, at least 1, got 0"),
        (["training.threads=0", "training.memory_format=x"], "training.threads must be auto or a whole number, at least 1, got 0; trainin"),
        (["training.data=disk"], "training.data must be auto, memory or stream, got 'disk'"),
        (["training.workers=-1"], "training.workers must be auto or a whole number, at least 0, got -1"),
        (["training.class_weights={1: -2}"], "training.class_weights maps class indices to positive numbers, got 1: -2"),
        (["training.class_weights=7"], "training.class_weights maps class indices to positive numbers, as in {1: 2.0}, got 7"),
        (["search.workers=many"], "search.workers must be auto or a whole number"),
        (["trials"], "an override has the form key=value"),
        (["seed.x=1"], "seed has no keys"),
        (["experiment=fulll"], "unknown experiment 'fulll'; did you mean 'full'"),
        (["search.trials=[1"], "search.trials=[1"),
        (["gate=null"], "gate cannot be null"),
        (["conf_dir=/nonexistent"], "conf_dir '/nonexistent' is not a folder"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_choice(words: list[str], line: str) -> None:
    """Key, group, value, range, form."""
    with pytest.raises(UsageError) as caught:
        load(words)
    assert line.removesuffix("; ") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_composition_is_remembered_until_conf_changes(tmp_path: Path) -> None:
    """The second time Hydra is not imported; an edit of a yaml is noticed."""
    import shutil

    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    program = (
        "import sys; from pathlib import Path; from flows.config import load; c = load(['seed=3'], conf=Path(sys.argv[1]));"
        "print(c.values['search']['trials'], 'hydra' in sys.modules)"
    )

    def ask() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(conf)], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert ask().endswith("True")
    assert ask().endswith("False")
    text = (conf / "pipeline.yaml").read_text()
    (conf / "pipeline.yaml").write_text(text.replace("trials: 16", "trials: 17"))
    assert ask() == "17 True"


def test_a_choice_of_ones_own_comes_from_conf_dir_and_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's package adds a choice without touching ours."""
    (tmp_path / "conf" / "space").mkdir(parents=True)
    (tmp_path / "conf" / "space" / "mine.yaml").write_text("_target_: my_spaces.Mine\nwidth: 3\n")
    (tmp_path / "my_spaces.py").write_text("class Mine:\n    def __init__(self, width): self.width = width\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = load([f"conf_dir={tmp_path / 'conf'}", "space=mine", "plugins=[my_spaces]"])
    from components.build import build

    assert build(config.values["space"]).width == 3


def test_a_member_of_a_list_without_its_package_is_told_how_it_opens(tmp_path: Path) -> None:
    """Hydra would merge its keys into the list itself."""
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "mine.yaml").write_text("_target_: my_checks.Mine\n")
    with pytest.raises(UsageError, match=r"a yaml of a list opens with `# @package check.NAME`"):
        load([f"conf_dir={tmp_path}", "check=[mine]", "plugins=[]"])


def test_every_key_of_the_configuration_is_read_by_a_stage_or_is_over_all() -> None:
    """A setting that nobody reads would be decoration."""
    over_all = {"seed", "budget", "plugins"}
    read = {key for stage in STAGES.values() for key in stage.reads}
    assert set(load([]).values) - {"experiment"} == read | over_all


def test_the_models_name_is_the_data_sets(tmp_path: Path) -> None:
    """Unless model= says otherwise."""
    assert load([]).model == "digits"
    assert load(["model=mine"]).model == "mine"
    assert load(["dataset=csv", f"dataset.path={tmp_path}/churn.csv.gz", "dataset.target=left"]).model == "churn"


@pytest.mark.parametrize(("quote", "options"), [("", ""), ("'", "?sslmode=require")])
def test_a_password_is_written_nowhere(quote: str, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not into what is composed, remembered, journalled or handed to Prefect: it goes where PostgreSQL's client looks."""
    monkeypatch.setenv("ATHANOR_HOME", str(tmp_path))
    monkeypatch.setenv("PGPASSWORD", "another")
    found = load([f"search.storage={quote}postgresql://ann:s%40cret@db/studies{options}{quote}"])
    assert found.values["search"]["storage"] == f"postgresql://ann@db/studies{options}"
    assert os.environ["PGPASSWORD"] == "s@cret"
    assert "cret@" not in repr(found) + "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert conceal(["search.storage=postgresql://ann@db/studies", "seed=1"]) == ["search.storage=postgresql://ann@db/studies", "seed=1"]


def test_a_password_in_a_file_of_ones_own_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a composition is made anew each time, so that the password is found again."""
    monkeypatch.setenv("ATHANOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PGPASSWORD", "another")
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("# @package _global_\nsearch:\n  storage: postgresql://ann:secret@db/studies\n")
    for _ in range(2):
        os.environ["PGPASSWORD"] = "another"
        found = load(["experiment=ours", f"conf_dir={tmp_path / 'conf'}"])
        assert (found.values["search"]["storage"], os.environ["PGPASSWORD"]) == ("postgresql://ann@db/studies", "secret")
    assert not list((tmp_path / "home").rglob("*.json"))
