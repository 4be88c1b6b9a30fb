"""A real Prefect server for the whole test session, and a store that the flow tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own for Prefect; set before Prefect is imported."""
    folder = tmp_path_factory.mktemp("home")
    os.environ["PLUMBLINE_HOME"] = str(folder)
    os.environ["PREFECT_HOME"] = str(folder / "prefect")
    os.environ["PREFECT_LOCAL_STORAGE_PATH"] = str(folder / "prefect" / "records")
    (folder / "prefect").mkdir()
    return folder


@pytest.fixture(scope="session")
def prefect_api(home: Path) -> Iterator[str]:
    """The session that the command line uses, kept for all tests."""
    from prefect.settings import PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from flows.process.session import prefect_session

    places = {PREFECT_HOME: home / "prefect", PREFECT_LOCAL_STORAGE_PATH: home / "prefect" / "records"}
    with temporary_settings(places), prefect_session() as url:
        yield url
