"""Data pinned by `.dvc` files, in a repository of its own."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from components.data import pins
from components.data.sources import covering_pin, is_current, source_digests
from components.errors import DataError, UsageError
from tests.datasets import dataset_config, read_version


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository in which `churn` (a file) and `pictures` (a folder) are pinned."""
    from components.data.dataset.csv import Csv
    from components.data.dataset.image_folder import ImageFolder

    root = tmp_path_factory.mktemp("repository")
    outside = tmp_path_factory.mktemp("outside")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    Csv.example(outside)
    (outside / "pictures").mkdir()
    ImageFolder.example(outside / "pictures")
    pins.add("churn", outside / "churn.csv", root)
    pins.add("pictures", outside / "pictures", root)
    return root


def test_pin_holds_digest_and_data_stay_out_of_git(repository: Path) -> None:
    """`add` leaves a small .dvc file for git, and the bytes in data/ that git ignores; folders DVC keeps state in are private."""
    assert (repository / "data" / "churn.csv.dvc").is_file()
    assert (repository / "data" / "churn.csv").is_file()
    ignored = subprocess.run(["git", "check-ignore", "data/churn.csv", "data/pictures"], cwd=repository, capture_output=True, text=True)
    assert ignored.stdout.split() == ["data/churn.csv", "data/pictures"]
    assert (repository / ".dvc" / "site_cache").stat().st_mode & 0o077 == 0
    assert not (repository / "data" / "churn.csv").is_symlink()


def test_md5_of_current_pin_is_the_source_digest(repository: Path, home: Path) -> None:
    """DVC's md5 is used where the pin is current, for a file and for a folder."""
    table = source_digests(dataset_config("csv", path=str(repository / "data" / "churn.csv"), target="left"))
    pictures = source_digests(dataset_config("image_folder", path=str(repository / "data" / "pictures")))
    recorded = (repository / "data" / "churn.csv.dvc").read_text()
    assert list(table) == ["churn.csv"]
    assert table["churn.csv"].removeprefix("md5:") in recorded
    assert list(pictures) == ["pictures"]
    assert pictures["pictures"].endswith(".dir")


def test_stale_pin_is_not_believed(repository: Path, home: Path, tmp_path: Path) -> None:
    """Data changed after pinning are digested themselves; their version is another one."""
    copy = tmp_path / "copy"
    shutil.copytree(repository / "data", copy)
    file = copy / "churn.csv"
    config = dataset_config("csv", path=str(file), target="left")
    assert is_current(copy / "churn.csv.dvc")
    assert source_digests(config)["churn.csv"].startswith("md5:")
    before = read_version(tmp_path / "before", "csv", path=str(file), target="left").digest
    file.write_text(file.read_text() + "u9999,1.5,basic,2024-01-01,no\n")
    assert not is_current(copy / "churn.csv.dvc")
    assert source_digests(config)["train"].startswith("sha256:")
    assert read_version(tmp_path / "after", "csv", path=str(file), target="left").digest != before


def test_pinned_and_unpinned_bytes_are_the_same_version(repository: Path, home: Path, tmp_path: Path) -> None:
    """Pinning changes no digest of a version."""
    from components.data.dataset.csv import Csv

    options = Csv.example(tmp_path)
    pinned = read_version(tmp_path / "a", "csv", path=str(repository / "data" / "churn.csv"), target="left")
    assert pinned.digest == read_version(tmp_path / "b", "csv", **options).digest


def test_push_and_pull_with_a_local_remote(repository: Path, home: Path, tmp_path: Path) -> None:
    """What was pushed comes back after data and cache are lost; until then a missing file points to `data pull`."""
    file = repository / "data" / "churn.csv"
    content = file.read_bytes()
    pins.push(repository, str(tmp_path / "remote"))
    shutil.rmtree(repository / ".dvc" / "cache")
    file.unlink()
    with pytest.raises(DataError, match=r"churn\.csv\.dvc pins it: run `athanor data pull`"):
        source_digests(dataset_config("csv", path=str(file), target="left"))
    pins.pull(repository)
    assert file.read_bytes() == content


def test_adding_again_takes_the_new_bytes(repository: Path, tmp_path: Path, home: Path) -> None:
    """A name may be pinned anew while its bytes are remembered; changes that no pin remembers are never overwritten."""
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    pin = pins.add("again", tmp_path / "new.csv", repository)
    first = pin.read_text()
    (tmp_path / "new.csv").write_text("a,b\n1,3\n")
    assert pins.add("again", tmp_path / "new.csv", repository).read_text() != first
    (repository / "data" / "again.csv").write_text("precious")
    with pytest.raises(DataError, match="changes that no pin remembers"):
        pins.add("again", tmp_path / "new.csv", repository)


def test_two_adds_at_once_both_succeed(repository: Path, tmp_path: Path) -> None:
    """DVC's lock is waited for."""
    errors: list[Exception] = []

    def add(name: str) -> None:
        (tmp_path / name).write_text(name)
        try:
            pins.add(name, tmp_path / name, repository)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (repository / "data" / "one.dvc").is_file()
    assert (repository / "data" / "two.dvc").is_file()


def test_mistakes_are_one_line(repository: Path, tmp_path: Path) -> None:
    """A bad name, a missing path, a path in the repository: each is refused with what to do."""
    with pytest.raises(UsageError, match="letters, digits"):
        pins.add("a/b", tmp_path, repository)
    with pytest.raises(DataError, match="does not exist"):
        pins.add("gone", tmp_path / "gone.csv", repository)
    (repository / "here.csv").write_text("a\n1\n")
    with pytest.raises(UsageError, match=r"move it to data/mine\.csv first"):
        pins.add("mine", repository / "here.csv", repository)


def test_covering_pin_stops_at_the_repository(repository: Path) -> None:
    """A pin above the repository's root is no pin of ours."""
    assert covering_pin(repository / "data" / "pictures" / "dark" / "000.png") == repository / "data" / "pictures.dvc"
    assert covering_pin(repository / "elsewhere.csv") is None
