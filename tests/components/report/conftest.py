"""The runs that the report's tests report on, made once a session."""

from __future__ import annotations

import pytest

from tests.components.report import runs


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> runs.ReportedRun:
    return runs.digits_run(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> runs.ReportedRun:
    return runs.table_run(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def halving(tmp_path_factory: pytest.TempPathFactory) -> runs.ReportedRun:
    return runs.halving_run(tmp_path_factory.mktemp("halving"))


@pytest.fixture
def failed() -> runs.ReportedRun:
    return runs.failed_run()
