"""The artifact store: publish whole or not at all, verify, recompute once, explain a miss."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from components.artifacts import Candidate
from components.errors import TryAgainError, UsageError
from components.store import KeyParts, Store, explain, full_disk_says_so, is_intact, locked

CANDIDATE = Candidate(space="mlp", architecture={}, hyperparameters={})
FORK = multiprocessing.get_context("fork")


def parts(**changes: object) -> KeyParts:
    base: dict = {
        "stage": "train",
        "inputs": {"0:X": "a"},
        "config": {"training": {"epochs": 3}},
        "code": {"components/a.py": "1"},
        "libraries": {"torch": "2"},
        "seed": 0,
    }
    return KeyParts(**{**base, **changes})


def publish(store: Store, key: KeyParts, content: bytes = b"weights" * 1000) -> None:
    with store.workspace() as out:
        (out / "weights.bin").write_bytes(content)
        store.publish(key, CANDIDATE, out)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    store.prepare()
    return store


def test_what_is_published_is_found_again(store: Store) -> None:
    """Same key, same record; another key, nothing."""
    publish(store, parts())
    assert store.lookup(parts()) == CANDIDATE
    assert store.lookup(parts(seed=1)) is None
    assert oct(store.home.stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize("every_byte", [True, False])
def test_one_flipped_bit_is_detected_and_forgotten(store: Store, every_byte: bool) -> None:
    """A damaged artifact is a miss, and its folder is gone, so that it is computed again."""
    publish(store, parts())
    file = store.folder("train", parts().key) / "weights.bin"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert store.lookup(parts(), every_byte=every_byte) is None
    assert not file.exists()


def test_a_flipped_bit_with_its_old_mtime_is_found_when_every_byte_is_read(store: Store) -> None:
    """Only reading finds rot below the file system; `verify` reads."""
    publish(store, parts())
    file = store.folder("train", parts().key) / "weights.bin"
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"W")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.has(parts())
    assert store.verify() == [file.parent]
    assert store.lookup(parts(), every_byte=True) is None


@pytest.mark.parametrize("name", ["record.json", "manifest.json", "key.json"])
def test_a_truncated_or_missing_file_of_the_store_is_a_miss(store: Store, name: str) -> None:
    """Every file counts, the store's own too."""
    publish(store, parts())
    file = store.folder("train", parts().key) / name
    file.write_bytes(file.read_bytes()[:10])
    assert store.lookup(parts()) is None


def _publish_until_killed(home: Path) -> None:
    store = Store(home)
    for seed in range(10_000):
        publish(store, parts(seed=seed))


def test_a_kill_while_publishing_leaves_whole_artifacts_or_none(store: Store) -> None:
    """SIGKILL at five instants: whatever is there is intact, and the rest is swept away."""
    for pause in (0.02, 0.035, 0.05, 0.08, 0.13):
        child = FORK.Process(target=_publish_until_killed, args=(store.home,))
        child.start()
        time.sleep(pause)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    store.sweep()
    assert all(is_intact(folder, every_byte=True) for folder in store.folders())
    assert not list((store.artifacts / ".tmp").iterdir())
    assert store.folders(), "no publish finished in 0.3 s: the test has shown nothing"


def _compute_once(home: Path, log: Path) -> None:
    store = Store(home)
    with store.single_flight(parts().key):
        if store.lookup(parts()) is None:
            with log.open("a") as file:
                file.write("computed\n")
            time.sleep(0.2)
            publish(store, parts())


def test_the_same_key_asked_at_once_is_computed_once(store: Store, tmp_path: Path) -> None:
    """Four processes, one computation."""
    log = tmp_path / "log"
    children = [FORK.Process(target=_compute_once, args=(store.home, log)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert log.read_text() == "computed\n"


def test_a_killed_holder_frees_its_lock(tmp_path: Path) -> None:
    """The kernel lets go of a dead process's flock."""

    def hold() -> None:
        with locked(tmp_path / "lock"):
            time.sleep(60)

    child = FORK.Process(target=hold)
    child.start()
    time.sleep(0.2)
    with pytest.raises(TryAgainError, match="held by another process"), locked(tmp_path / "lock", timeout=0.1):
        pass
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with locked(tmp_path / "lock", timeout=1.0):
        pass


def test_a_miss_says_which_part_of_the_key_changed() -> None:
    """Each part by name, values where they are readable."""
    old = json.loads(json.dumps(parts().to_json()))
    assert explain(old, parts(config={"training": {"epochs": 4}})) == ["config training.epochs 3 → 4"]
    assert explain(old, parts(code={"components/a.py": "2"})) == ["code components/a.py"]
    assert explain(old, parts(libraries={"torch": "3"})) == ["libraries torch 2 → 3"]
    assert explain(old, parts(seed=5)) == ["seed 0 → 5"]
    assert explain(None, parts()) == ["never ran"]
    assert explain(old, parts()) == []
    space = {"_target_": "a.ConvNet", "widths": [8, 16]}
    old = json.loads(json.dumps(parts(config={"space": space, "parent": None, "loss": {"focal": {"_target_": "a.Focal"}}}).to_json()))
    new = {"space": {"_target_": "b.Adopted", "space": space}, "parent": "ab12" * 16, "loss": {"mse": {"_target_": "a.MSE"}}}
    assert explain(old, parts(config=new)) == [
        "config loss.focal Focal → None", "config loss.mse None → MSE",
        "config parent None → ab12ab12ab12", "config space ConvNet → Adopted",
    ]  # fmt: skip


def _write_past_the_limit(home: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        publish(Store(home), parts(), b"x" * 100_000)
    except TryAgainError as error:
        os._exit(75 if "no space left" in str(error) else 1)
    os._exit(0)


def test_a_full_disk_is_said_in_one_line_and_nothing_is_left(store: Store) -> None:
    """RLIMIT_FSIZE stands for the full disk: exit 75, no artifact, no temporary folder."""
    child = FORK.Process(target=_write_past_the_limit, args=(store.home,))
    child.start()
    child.join()
    assert child.exitcode == 75
    assert store.folders() == []
    assert not list((store.artifacts / ".tmp").iterdir())


def test_other_errors_of_the_disk_are_not_called_a_full_disk(tmp_path: Path) -> None:
    """Only ENOSPC, EFBIG and EDQUOT are."""
    with pytest.raises(OSError, match="boom") as caught, full_disk_says_so(tmp_path):
        raise OSError(errno.EIO, "boom")
    assert not isinstance(caught.value, TryAgainError)


def test_a_home_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    """The state folder must be a folder that can be written."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"state folder .* cannot be written"):
        Store(tmp_path / "file").prepare()
