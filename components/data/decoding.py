"""Packed images decoded ahead of time by worker processes, in the order they are asked for, in bounded memory.

    for array in ahead(packed, batches_of_row_numbers): ...

A worker is a small process of its own (numpy and Pillow, nothing forked, no handle inherited): it reads row numbers from a
pipe and writes pixels into memory it shares with its parent. Every batch is cut into one part per worker, so at most
`AHEAD` batches are waiting however many workers there are. A worker that dies costs its share of the speed: what it
owed is decoded by the parent.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
import struct
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import components
from components.data.packed import Packed
from components.errors import DataError
from components.processes import available_cores

AHEAD = 2  # batches decoded before they are asked for
MEASURED = 3  # batches decoded by the parent to learn what a batch costs and how long its user takes with one
LITTLE = 0.05  # decoding that takes less than this share of the user's time is left to the parent
ENDING_SECONDS = 2.0
REQUEST = struct.Struct("<qq")  # place of the first pixel in the shared memory, number of rows; then the rows, int64
ANSWER = struct.Struct("<q")  # bytes of the message that follows; 0: decoded


def ahead(packed: Packed, batches: Iterable[NDArray[np.int64]], most: int, workers: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """The pixels of each batch of at most `most` rows, in order. `workers` None: as many as the first batches show to be of use.

    Raises `DataError` that names a damaged image."""
    waiting = iter(batches)
    if workers is None:
        decoding = using = math.inf
        for rows in itertools.islice(waiting, MEASURED):
            started = time.perf_counter()
            array = packed.take(rows)
            decoded = time.perf_counter()
            yield array
            decoding, using = min(decoding, decoded - started), min(using, time.perf_counter() - decoded)
        workers = enough(decoding, using)
    if not workers:
        yield from map(packed.take, waiting)
        return
    with Decoders(packed, workers, most) as decoders:
        yield from decoders.run(waiting)


def enough(decoding: float, using: float, cores: int | None = None) -> int:
    """Workers that keep up with a user who takes `using` seconds with a batch that takes `decoding` seconds; 0 where they are of no use."""
    cores = cores or available_cores()
    if cores < 2 or not math.isfinite(decoding) or decoding < LITTLE * using:
        return 0
    return min(cores, math.ceil(decoding / max(using, 1e-9)))


class Decoders:
    """So many worker processes and the memory they share; use as a context manager."""

    def __init__(self, packed: Packed, workers: int, most: int) -> None:
        self._packed, self._most = packed, max(1, most)
        slot = self._most * packed.row_bytes
        self._memory = os.memfd_create("athanor-decoded")
        os.ftruncate(self._memory, max(1, (AHEAD + 1) * slot))
        self._map = mmap.mmap(self._memory, 0)
        self._slots = np.frombuffer(self._map, np.uint8, (AHEAD + 1) * slot).reshape(AHEAD + 1, self._most, *packed.shape[1:])
        self._workers = [_Worker(packed, self._memory) for _ in range(workers)]
        self._asked = 0

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.wait()
        os.close(self._memory)

    @property
    def pids(self) -> list[int]:
        """The workers that were alive when last heard of."""
        return [worker.process.pid for worker in self._workers if worker.is_alive]

    def run(self, batches: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """The pixels of each batch, in order."""
        owed: deque[_Owed] = deque()
        for rows in batches:
            owed.append(self._ask(rows))
            if len(owed) > AHEAD:
                yield self._fetch(owed.popleft())
        while owed:
            yield self._fetch(owed.popleft())

    def _ask(self, rows: NDArray[np.int64]) -> _Owed:
        slot = self._asked % (AHEAD + 1)
        self._asked += 1
        alive = [worker for worker in self._workers if worker.is_alive]
        cuts = np.linspace(0, len(rows), len(alive) + 1).astype(int)
        parts = [(worker, int(start), int(stop)) for worker, start, stop in zip(alive, cuts[:-1], cuts[1:]) if stop > start]
        for worker, start, stop in parts:
            worker.ask((slot * self._most + start) * self._packed.row_bytes, rows[start:stop])
        return _Owed(rows, slot, parts)

    def _fetch(self, owed: _Owed) -> NDArray[np.uint8]:
        pixels = self._slots[owed.slot][: len(owed.rows)]
        if not owed.parts:
            return self._packed.take(owed.rows)
        for worker, start, stop in owed.parts:
            if not worker.answered():
                self._packed.fill(pixels[start:stop], owed.rows[start:stop])
        return pixels.copy()


class _Owed:
    """A batch that was asked for: its rows, the slot they come to, and which worker decodes which of them."""

    def __init__(self, rows: NDArray[np.int64], slot: int, parts: list[tuple[_Worker, int, int]]) -> None:
        self.rows, self.slot, self.parts = rows, slot, parts


class _Worker:
    """One process that decodes."""

    def __init__(self, packed: Packed, memory: int) -> None:
        told = {"files": [[str(path) for path in pair] for pair in packed.files], "shape": packed.shape[1:], "where": packed.where}
        root = str(Path(components.__file__).resolve().parent.parent)
        paths = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self.process = subprocess.Popen(
            # -P: a folder `components` where the user happens to be is not ours
            [sys.executable, "-P", "-m", __name__, json.dumps({**told, "memory": memory})], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, pass_fds=[memory], env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.is_alive = True

    def ask(self, place: int, rows: NDArray[np.int64]) -> None:
        """Sends the numbers of rows whose pixels are to come to a place in the shared memory."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(REQUEST.pack(place, len(rows)) + rows.astype("<i8").tobytes())
            self.process.stdin.flush()
        except BrokenPipeError:
            self._mourn()

    def answered(self) -> bool:
        """Waits for the oldest request; False if the process died over it. Raises `DataError` for a damaged image."""
        assert self.process.stdout is not None
        head = self.process.stdout.read(ANSWER.size) if self.is_alive else b""
        if len(head) < ANSWER.size:
            self._mourn()
            return False
        (length,) = ANSWER.unpack(head)
        if length:
            raise DataError(self.process.stdout.read(length).decode())
        return True

    def _mourn(self) -> None:
        if self.is_alive:
            self.is_alive = False
            code = self.process.wait()
            warnings.warn(f"a process that decodes images ended with {code}; training goes on without it", stacklevel=2)

    def dismiss(self) -> None:
        """Lets the process end when it has answered."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self) -> None:
        """Waits for the end of a dismissed process; kills one that is still busy."""
        assert self.process.stdout is not None
        try:
            self.process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def serve(told: dict[str, Any], requests: IO[bytes], answers: IO[bytes]) -> None:
    """The worker's side: decodes until its requests end."""
    packed = Packed([(Path(content), Path(ends)) for content, ends in told["files"]], told["shape"], told["where"])
    with mmap.mmap(told["memory"], 0) as memory:
        while head := requests.read(REQUEST.size):
            place, count = REQUEST.unpack(head)
            rows = np.frombuffer(requests.read(8 * count), dtype="<i8")
            found = np.ndarray((count, *packed.shape[1:]), np.uint8, memory, place)
            message = _fill(packed, found, rows)
            del found  # a map that is looked at cannot be closed
            answers.write(ANSWER.pack(len(message)) + message)
            answers.flush()


def _fill(packed: Packed, found: NDArray[np.uint8], rows: NDArray[np.int64]) -> bytes:
    try:
        packed.fill(found, rows)
    except DataError as error:
        return str(error).encode()
    return b""


if __name__ == "__main__":
    import components.lifeline  # the process dies with its parent and leaves a Ctrl-C to it

    serve(json.loads(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
