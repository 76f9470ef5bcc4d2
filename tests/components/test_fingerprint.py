"""Code digests: constants count, comments do not, and the closure is that of an independent import graph."""

from __future__ import annotations

import shutil
from pathlib import Path

import grimp
import pytest

from components.fingerprint import ROOT, SourceCache, closure, read_source, targets, versions
from flows.table import STAGES

BASE = 'X = 1\n\ndef f(a):\n    """Says."""\n    return a + X\n'


@pytest.mark.parametrize("same", [BASE + "# why\n", BASE.replace("Says.", "Says more."), BASE.replace("X = 1", "X  =  1")])
def test_comments_docstrings_and_blanks_change_nothing(same: str) -> None:
    """What cannot change a result changes no key."""
    assert read_source(same).digest == read_source(BASE).digest


@pytest.mark.parametrize("other", [BASE.replace("X = 1", "X = 2"), BASE.replace("a + X", "a - X"), BASE.replace("def f", "def g")])
def test_a_constant_an_operator_and_a_name_change_the_digest(other: str) -> None:
    """What can change a result changes the key."""
    assert read_source(other).digest != read_source(BASE).digest


def test_imports_inside_functions_count_and_type_checking_ones_do_not() -> None:
    """The static closure is what can run."""
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\ndef f():\n    import b\n    from c import d\n"
    assert set(read_source(text).imports) == {"typing", "typing.TYPE_CHECKING", "b", "c", "c.d"}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_closure_agrees_with_grimps_import_graph(stage: str) -> None:
    """Grimp, which knows nothing of us, finds the same files below each verb."""
    graph = grimp.build_graph("components", exclude_type_checking_imports=True)
    module = STAGES[stage].module
    expected = {module, *graph.find_upstream_modules(module)}
    expected |= {".".join(name.split(".")[: i + 1]) for name in expected for i in range(name.count("."))}
    files, _ = closure([module], SourceCache())
    found = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in files}
    assert found == expected


def test_the_cache_notices_a_changed_file(tmp_path: Path) -> None:
    """By size, mtime and inode; the remembered digest is that of a fresh reading."""
    package = tmp_path / "components"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("X = 1\n")
    cache = SourceCache(tmp_path / "cache.json", root=tmp_path)
    before, _ = closure(["components.a"], cache)
    cache.save()
    assert closure(["components.a"], SourceCache(tmp_path / "cache.json", root=tmp_path))[0] == before
    (package / "a.py").write_text("X = 22\n")
    after, _ = closure(["components.a"], SourceCache(tmp_path / "cache.json", root=tmp_path))
    assert {f for f in after if after[f] != before[f]} == {"components/a.py"}


def test_targets_are_found_at_any_depth() -> None:
    """The configuration's classes belong to the code that runs."""
    assert set(targets({"a": {"_target_": "components.x.Y", "b": [{"_target_": "torch.optim.SGD"}]}})) == {"components.x", "torch.optim"}


def test_versions_come_by_import_name() -> None:
    """Also where the distribution has another name."""
    found = versions(["torch", "sklearn", "nonexistent"])
    assert set(found) == {"torch", "sklearn"}
    assert found["torch"].startswith("2.")


def test_the_root_is_the_project(tmp_path: Path) -> None:
    """Files are named relative to it."""
    files, libraries = closure(["components.store"], SourceCache())
    assert "components/store.py" in files
    assert all((ROOT / file).is_file() for file in files)
    assert not libraries & {"os", "json"}
    shutil.rmtree(tmp_path)
