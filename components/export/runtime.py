"""Exported graphs on ONNX Runtime: one thread, real rows in, numpy out. The only door to onnxruntime for evaluation.

    session = Session(path)
    outputs = session.run(feeds(session.spec, arrays))

Legend: N rows, K classes, Kc category columns.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.artifacts import Column, DatasetVersion, InputField
from components.errors import DataError
from components.export.spec import Spec, from_metadata, is_text

Arrays = Mapping[str, NDArray]
WARM_UP, RUNS_PER_TURN, LEAST_RUNS = 10, 10, 50


class Session:
    """A graph loaded for inference on the CPU. Raises `DataError` for a file that ONNX Runtime cannot load."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors: the warnings are about constant folding, not about results
        if not path.is_file():
            raise DataError(f"model file {path} does not exist; name an .onnx file that `athanor run` has made")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a different class for each way of being unreadable
            raise DataError(f"model file {path} cannot be loaded by ONNX Runtime: {first_line(error)}") from error
        self.path = path

    @functools.cached_property
    def spec(self) -> Spec:
        """What the graph says of its inputs and classes. Raises `DataError` when it was not exported by Athanor."""
        try:
            return from_metadata(self._session.get_modelmeta().custom_metadata_map)
        except (ValueError, KeyError) as error:
            raise DataError(f"model file {self.path} carries no input spec ({first_line(error)}); use one that Athanor exported") from error

    def run(self, feeds: Arrays) -> NDArray:
        """The graph's only output for one batch."""
        return self._session.run(None, {name: np.asarray(array) for name, array in feeds.items()})[0]

    def run_in_batches(self, feeds: Arrays, batch_size: int = 256) -> NDArray:
        """The same, for any number of rows at bounded memory; no rows give an empty array."""
        return np.concatenate([self.run(batch) for batch in batches(feeds, batch_size)])


def feeds(source: DatasetVersion | Spec, arrays: Arrays) -> dict[str, NDArray]:
    """Stored arrays as the graph takes them: codes of categories become strings, everything else stays as it is, on disk too."""
    return {field.name: _as_fed(field, arrays[field.name]) for field in source.inputs}


def batches(feeds: Arrays, size: int) -> Iterator[dict[str, NDArray]]:
    """Consecutive slices of at most `size` rows; one empty slice when there are no rows."""
    num_rows = len(next(iter(feeds.values())))
    for start in range(0, max(num_rows, 1), size):
        yield {name: array[start : start + size] for name, array in feeds.items()}


def latencies(sessions: Sequence[Session], feeds: Arrays, seconds: float = 0.2) -> list[NDArray]:
    """Milliseconds of single-row runs, one array per session, after a warm-up.

    The sessions take turns, so that a slow moment of the machine falls on all of them. `seconds` bounds the time per session
    once `LEAST_RUNS` are done.
    """
    rows = list(batches({name: array[:RUNS_PER_TURN] for name, array in feeds.items()}, 1))
    for session in sessions:
        _time_runs(session, rows, WARM_UP)
    timed: list[list[float]] = [[] for _ in sessions]
    until = time.perf_counter() + seconds * len(sessions)
    while time.perf_counter() < until or len(timed[0]) < LEAST_RUNS:
        for session, row in zip(sessions, timed):
            row += _time_runs(session, rows, RUNS_PER_TURN)
    return [np.array(row) for row in timed]


def _time_runs(session: Session, rows: list[dict[str, NDArray]], count: int) -> list[float]:
    timed = []
    for index in range(count):
        row = rows[index % len(rows)]
        started = time.perf_counter_ns()
        session.run(row)
        timed.append((time.perf_counter_ns() - started) / 1e6)
    return timed


def _as_fed(field: InputField, array: NDArray) -> NDArray:
    if not is_text(field):
        return array
    return np.stack([_vocabulary(column)[array[:, i]] for i, column in enumerate(field.columns)], axis=1)


def _vocabulary(column: Column) -> NDArray:
    return np.array([unseen(column.vocabulary), *column.vocabulary], dtype=object)


def unseen(vocabulary: Sequence[str]) -> str:
    """A string that a vocabulary lacks: code 0 is fed as this. The empty string, a missing value, where it was never seen."""
    text = ""
    while text in vocabulary:
        text += "?"
    return text


def first_line(error: BaseException) -> str:
    """An exception's message without what follows its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
