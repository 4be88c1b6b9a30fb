"""What of other libraries' reports reaches the screen, and what the log file alone."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.process.logs import tame_logs


@pytest.fixture
def screen_and_file(tmp_path: Path) -> Iterator[Callable[[], tuple[str, str]]]:
    screen, file = tmp_path / "screen", tmp_path / "file"
    root, stream = logging.getLogger(), screen.open("w", encoding="utf-8")
    before = root.handlers[:]
    root.handlers[:] = [logging.StreamHandler(stream), logging.FileHandler(file, encoding="utf-8")]
    tame_logs()
    yield lambda: (stream.flush(), (screen.read_text("utf-8"), file.read_text("utf-8")))[1]
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    stream.close()


def report(*errors: BaseException) -> None:
    """As a database's pool does when it cannot clean up after the errors before."""
    try:
        raise errors[0]
    except BaseException:
        if errors[1:]:
            report(*errors[1:])
        else:
            logging.getLogger("sqlalchemy.pool").error("Error closing cursor", exc_info=True)


CLOSED = sqlite3.ProgrammingError("Cannot operate on a closed database.")


def test_what_ctrl_c_cut_off_is_in_the_log_file_alone(screen_and_file: Callable[[], tuple[str, str]]) -> None:
    report(KeyboardInterrupt(), CLOSED)
    screen, file = screen_and_file()
    assert screen == ""
    assert "Error closing cursor" in file and "KeyboardInterrupt" in file


def test_an_error_of_its_own_is_on_the_screen(screen_and_file: Callable[[], tuple[str, str]]) -> None:
    report(ValueError("a value"), CLOSED)
    screen, file = screen_and_file()
    assert "Error closing cursor" in screen and "a value" in screen
    assert "Error closing cursor" in file
