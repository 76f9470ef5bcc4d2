"""The page: complete for a finished run, honest for a failed one, one file that loads nothing."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from components.artifacts import StoredFile
from components.errors import TryAgainError
from components.report import findings
from components.report.html import render, write_report
from tests.components.report.runs import ReportedRun

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if known.get("id"):
            self.ids.add(str(known["id"]))
        self.addresses += [str(known[name]) for name in ("src", "href", "action") if name in known]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


def page(reported: ReportedRun, **changes: object) -> Page:
    return Page(render(**{**reported.keywords(), **changes}))  # type: ignore[arg-type]


def test_a_finished_run_has_every_section(digits: ReportedRun) -> None:
    """Each part of the run can be reached from the menu, and its figures are in the text."""
    found = page(digits)
    sections = {"summary", "stages", "data", "search", "training", "deployables", "evaluation", "lineage", "reproduce"}
    assert sections <= found.ids
    assert {address[1:] for address in found.addresses if address.startswith("#")} <= found.ids
    estimate = digits.records["evaluate"].test["accuracy"]
    for word in (
        "digits 3 is the champion", f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}", "resumed once",
        "config training.epochs 20 → 40", "the loss was not a number at step 31", "label noise", "student-int8",
        "athanor run dataset=digits 'model=my model'", "git checkout 9115866c0ffee0", "had changes", "torch",
    ):  # fmt: skip
        assert word in found.text, word


def test_a_search_for_several_objectives_shows_its_front(halving: ReportedRun) -> None:
    """Who leads, who misses a constraint, how far each was carried, and the members that the search was put together from."""
    found = page(halving)
    result = halving.records["search"]
    missing = sum(t.constraints["num_parameters"] > 0 for t in result.trials)
    assert missing > 1
    assert len(result.front) > 1
    for word in (
        f"Of 20 trials, {result.best_number} is taken", "on the front of accuracy and size",
        f"{missing} trials miss a constraint (parameters)",
        "15 pruned", "Accuracy against size", "How far trials were carried", "The front", "not carried on past epoch 1 of 6",
        "strategy random, scheduler asha", "misses parameters by", "size, KiB",
    ):  # fmt: skip
        assert word in found.text, word
    assert found.text.count("on the front") >= len(result.front)


def test_a_search_with_one_objective_says_what_made_the_difference(digits: ReportedRun) -> None:
    """Every setting that varied has its bar, and chance its line."""
    found = page(digits)
    assert "What made the difference" in found.text
    assert "differences between 12 trials" in found.text
    assert "The front" not in found.text


def test_an_ensemble_says_what_it_is_made_of(digits: ReportedRun) -> None:
    """Each member with its share, beside the curves of those that were trained; the student learned from it."""
    teacher, student = digits.records["train"], digits.records["distill"]
    members = (
        {"model": teacher.identity, "role": "teacher", "weights": "0", "share": 0.6},
        {"model": "f" * 64, "role": "trial3", "weights": "1", "share": 0.4},
    )
    ensemble = teacher.replace(role="ensemble", members=members, parents=(teacher.identity, "f" * 64), history=())
    records = {**digits.records, "fuse": ensemble, "distill": student.replace(parents=(ensemble.identity,))}
    config = {**digits.config, "fusion": {"_target_": "components.fusion.method.ensemble.Ensemble"}}
    found = page(digits, records=records, config=config)
    assert "made of teacher (60%), trial3 (40%)" in found.text
    assert "Fusion ensemble took teacher (60%), trial3 (40%): accuracy" in found.text
    alone = page(digits, records={**records, "fuse": teacher}, config=config)
    assert "Fusion ensemble brought nothing on validation: the teacher goes on alone." in alone.text
    for role, name, said in (("finetuned1", "teacher", "finetuned1"), ("member", "run:B", "run:B")):
        single = ensemble.replace(role=role, members=({"model": "f" * 64, "role": name, "weights": "1", "parents": []},))
        told = page(digits, records={**records, "fuse": single}, config=config).text
        assert f"Fusion ensemble found no mixture better than {said}, which goes on alone: accuracy" in told
    assert "learned from the ensemble" in found.text
    assert "teacher, validation" in found.text
    assert "student, validation" in found.text


def test_a_network_with_a_parent_says_whose_weights_it_began_with(digits: ReportedRun) -> None:
    """And by which method how much of it was trained on."""
    told = {"parent": "ab" * 32, "finetune": "lora", "inherited": 0.9958, "trained_parameters": 6949, "of_parameters": 76965}
    teacher = digits.records["train"].replace(parents=("ab" * 32,), adopted=told)
    found = page(digits, records={**digits.records, "train": teacher})
    assert "100% of its weights began as those of network abababab" in found.text
    assert "finetune=lora, 6,949 of 76,965 parameters trained" in found.text


def test_a_network_of_anothers_stages_says_which(digits: ReportedRun) -> None:
    """Its own architecture is the child's, not the whole of what it was put together from."""
    teacher = digits.records["train"]
    told = {"inherit": "stages", "stages": "stage 1 of run:x, own", "inherited": 0.437}
    architecture = {"bases": [{"space": 0, "architecture": {"block": "separable"}, "image": [1, 8, 8]}], "pieces": []}
    stitched = teacher.replace(parents=("ab" * 32,), adopted=told, candidate=teacher.candidate.replace(architecture=architecture))
    found = page(digits, records={**digits.records, "train": stitched})
    assert "44% of its weights began as those of network abababab" in found.text
    assert "inherit=stages: stage 1 of run:x, own" in found.text
    assert "block separable" in found.text
    assert "pieces" not in found.text


def test_rounds_are_told_with_their_diagnosis(digits: ReportedRun) -> None:
    """Reached, target, what stood in the way and how the next round was aimed, as the search's record has them."""
    rounds = (
        {"round": 1, "target": {"accuracy": 0.99}, "reached": {"accuracy": 0.962}, "met": False, "diagnosis": "under-fit",
         "words": "training loss 0.2 is close to validation loss 0.3", "aim": "larger networks, trained longer, less dropout"},
        {"round": 2, "target": {"accuracy": 0.99}, "reached": {"accuracy": 0.991}, "met": True},
    )  # fmt: skip
    search = digits.records["search"].replace(rounds=rounds)
    found = page(digits, records={**digits.records, "search": search})
    for word in ("Rounds towards the target", "accuracy 0.9620", "under-fit", "Larger networks, trained longer", "accuracy 0.9910"):
        assert word in found.text, word
    assert "Rounds towards" not in page(digits).text


def test_a_derived_cell_is_drawn(digits: ReportedRun) -> None:
    """The best trial's cell and the one that the supernet derived, each with its string, and what the supernet says of each choice."""
    best, derived = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|", ["skip_connect", "none", "nor_conv_3x3"] * 2
    search = digits.records["search"]
    trials = tuple(
        t.replace(candidate=t.candidate.replace(architecture={"cell": best})) if t.number == search.best_number else t
        for t in search.trials
    )
    effects = {"arch.edge0=none": -0.02, "arch.edge0=nor_conv_3x3": 0.03}
    candidate = {f"arch.edge{i}": operation for i, operation in enumerate(derived)}
    told = {"effects": effects, "candidates": [candidate], "evidence": {"p_value": 0.00123}}
    found = page(digits, records={**digits.records, "search": search.replace(trials=trials, derived=told)})
    for word in (
        best,
        "|skip_connect~0|+|none~0|nor_conv_3x3~1|+",
        "training derived",
        "What the supernet says of each choice",
        "+0.0300",
        "a probability of 0.0012",
        "−0.0200",
    ):
        assert word in found.text, word


def test_a_supernet_that_tells_nothing_says_so(digits: ReportedRun) -> None:
    """Effects that are all 0 are no table but a sentence."""
    told = {"effects": {"arch.edge0=none": 0.0, "arch.edge0=nor_conv_3x3": 0.0}, "candidates": [], "evidence": {"p_value": 0.4}}
    found = page(digits, records={**digits.records, "search": digits.records["search"].replace(derived=told)})
    assert "it tells no candidates apart" in found.text
    assert "edge 0-1" not in found.text


def test_a_regression_shows_residuals_and_who_stays(table: ReportedRun) -> None:
    """Values instead of classes: truth against prediction, the largest residuals, the champion that stays."""
    found = page(table)
    for word in (
        "diabetes 3 stays the champion",
        "Truth against prediction",
        "The largest residuals",
        "Half of the rows",
        "bmi",
        "is an identifier",
    ):
        assert word in found.text, word
    assert "Confusion matrix" not in found.text


def test_every_chart_is_well_formed(digits: ReportedRun, table: ReportedRun) -> None:
    """An XML parser accepts each inline SVG, and no coordinate is NaN."""
    for reported, least in ((digits, 9), (table, 3)):
        charts = re.findall(r'<svg class="chart".*?</svg>', render(**reported.keywords()), re.S)
        assert len(charts) >= least
        for chart in charts:
            ElementTree.fromstring(chart)
            assert not re.search(r'="(nan|inf|-inf)', chart)


def test_the_page_loads_nothing(digits: ReportedRun) -> None:
    """No address but anchors and data: URIs, and a policy that forbids the browser to fetch."""
    text = render(**digits.keywords())
    assert "default-src 'none'" in text
    assert {address.split(",")[0].split(":")[0] for address in Page(text).addresses if not address.startswith("#")} <= {"data"}
    assert not re.search(r"https?://|url\(|@import", text)


def test_a_failed_run_says_why_and_shows_its_trials(failed: ReportedRun) -> None:
    """No records at all: the reason, the stage, and the trials that the journal knows of."""
    found = page(failed)
    for word in ("Stopped at search", "lower search.workers", "out of memory at batch 512", "1 trial complete of 3 started"):
        assert word in found.text, word
    assert "evaluation" not in found.ids


def test_what_the_run_does_not_hold_comes_from_its_journal() -> None:
    """Keys of finished stages, the stage that failed, its reason and its seconds."""
    run = {"id": "r", "state": "failed", "stages": {"version": {"state": "ran", "seconds": 1.0, "why": ["never ran"]}}}
    events = [
        {"time": 1.0, "event": "stage.started", "stage": "version", "why": []},
        {"time": 2.0, "event": "stage.finished", "stage": "version", "key": "abc123"},
        {"time": 3.0, "event": "stage.started", "stage": "validate", "why": ["never ran"]},
        {"time": 5.0, "event": "stage.failed", "stage": "validate", "why": "classes: only one class"},
        {"time": 5.1, "event": "run.failed", "why": "classes: only one class"},
    ]
    told = findings.complete(run, events)
    assert told["stages"]["version"]["key"] == "abc123"
    assert told["stages"]["validate"] == {"state": "failed", "why": "classes: only one class", "seconds": 2.0}
    assert findings.verdict(told, {}).words == "classes: only one class."
    assert "Stopped at validate" in Page(render(run=run, records={}, config={}, events=events)).text


def test_many_reasons_are_folded() -> None:
    """A stage that ran because forty files changed says three of them at once, and all of them when asked."""
    why = [f"code module{i}.py" for i in range(40)]
    run = {"id": "r", "stages": {"search": {"state": "ran", "seconds": 1.0, "why": why}}}
    text = Page(render(run=run, records={}, config={})).text
    assert "module2.py and 37 more code module3.py" in text
    assert "module39.py" in text
    few = {"id": "r", "stages": {"search": {"state": "ran", "seconds": 1.0, "why": why[:4]}}}
    assert "more" not in Page(render(run=few, records={}, config={})).text.partition("module3.py")[0]


@pytest.mark.parametrize(
    "kept",
    [(), ("version",), ("version", "search"), ("version", "search", "train"), ("version", "search", "train", "export"), ("evaluate",)],
)
def test_an_unfinished_run_reports_what_there_is(digits: ReportedRun, kept: tuple[str, ...]) -> None:
    """After any stage there is a page; best so far once something was evaluated."""
    records = {name: digits.records[name] for name in kept}
    found = page(
        digits, records=records, run={**digits.run, "state": "running", "stages": {name: {"state": "ran", "seconds": 1.0} for name in kept}}
    )
    assert ("Best so far" if "evaluate" in kept else "Not finished") in found.text


def test_files_that_are_gone_leave_gaps_not_errors(digits: ReportedRun, tmp_path: Path) -> None:
    """A cleaned artifact store: figures stay, pictures go."""

    def gone(file: StoredFile) -> StoredFile:
        return file.replace(path=tmp_path / "gone" / file.path.name)

    report, policy = digits.records["evaluate"], digits.records["augment"]
    dataset = report.dataset.replace(files={name: gone(file) for name, file in report.dataset.files.items()})
    report = report.replace(dataset=dataset, predictions=gone(report.predictions), targets=gone(report.targets))
    records = {**digits.records, "version": dataset, "evaluate": report, "augment": policy.replace(preview=gone(policy.preview))}
    found = page(digits, records=records)
    assert "Confusion matrix" in found.text
    assert "The mistakes it was surest of" not in found.text
    assert "There is no preview" in found.text


def test_the_former_champion_stands_beside(digits: ReportedRun) -> None:
    """With the champion's report, each test figure has its difference."""
    before = digits.records["evaluate"]
    before = before.replace(test={name: e.replace(value=e.value - 0.02) for name, e in before.test.items()})
    text = render(**digits.keywords(), champion=before)
    assert "champion before" in text
    assert 'up">+0.0200' in text  # accuracy rose
    assert 'down">+0.0200' in text  # so did log-loss


def test_names_from_data_are_text(digits: ReportedRun) -> None:
    """Classes, reasons and overrides cannot put markup into the page."""
    evil = "<img src=x onerror=alert(1)>"
    report = digits.records["evaluate"]
    dataset = report.dataset.replace(name=evil, classes=(evil, *report.dataset.classes[1:]))
    run = {**digits.run, "model": evil, "overrides": [f"model={evil}"]}
    text = render(run=run, records={**digits.records, "version": dataset, "evaluate": report.replace(dataset=dataset)}, config={"x": evil})
    assert evil not in text
    assert "&lt;img src=x" in text


def test_the_file_is_written_whole(digits: ReportedRun, tmp_path: Path) -> None:
    """The page replaces an older one; a page that cannot be written leaves the old one and nothing beside it."""
    path = tmp_path / "runs" / "r1" / "report.html"
    assert write_report(path, **digits.keywords()) == path
    whole = path.read_text(encoding="utf-8")
    assert whole.startswith("<!doctype html>")
    with pytest.raises(AttributeError):
        write_report(path, run=digits.run, records={"evaluate": object()}, config={})
    assert path.read_text(encoding="utf-8") == whole
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_full_disk_is_told_in_one_line(digits: ReportedRun, tmp_path: Path) -> None:
    """No space: exit code 75, and the page that was there is untouched."""
    path = tmp_path / "report.html"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(TryAgainError, match="no space left"):
            write_report(path, **digits.keywords())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "old")]


def test_the_report_imports_nothing_heavy() -> None:
    """A run's tail cannot afford torch, mlflow, pandas, scikit-learn or matplotlib for a page."""
    heavy = "{'torch', 'mlflow', 'pandas', 'sklearn', 'matplotlib', 'prefect', 'lightning', 'onnxruntime', 'optuna', 'scipy'}"
    code = (
        "import sys; from pathlib import Path; from components.report.html import render;"
        "from components.report import markdown; render(run={}, records={}, config={'a': 1});"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
