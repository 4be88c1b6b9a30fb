"""However many processes share the work, results and errors come as one process would give them."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.data_prep.crew import AHEAD, Crew
from tasks.engine.errors import DataError, WorkerKilled


def square(number: int) -> int:
    if number == 13:
        raise DataError("row 13: unlucky")
    return number * number


def killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def numbers(*, fails_at: int) -> Iterator[int]:
    for number in range(100):
        if number == fails_at:
            raise DataError(f"row {number}: broken JSON")
        yield number


def results(processes: int, folder: Path, pieces: Iterator[int]) -> tuple[list[int], str]:
    found: list[int] = []
    with Crew(processes, folder) as crew, pytest.raises(DataError) as refused:
        for result in crew.each(square, pieces):
            found.append(result)
    return found, str(refused.value)


def test_results_and_the_first_error_are_those_of_one_process(tmp_path: Path) -> None:
    # The reader fails at row 15 while row 13 is still being worked on: row 13 comes first in the file.
    expected = ([number * number for number in range(13)], "row 13: unlucky")
    assert results(1, tmp_path, numbers(fails_at=15)) == results(2, tmp_path, numbers(fails_at=15)) == expected
    assert results(2, tmp_path, numbers(fails_at=5))[1] == "row 5: broken JSON"


def test_a_daemon_does_the_work_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with Crew(2, tmp_path) as crew:
        assert list(crew.each(square, range(4))) == [0, 1, 4, 9]


def test_only_a_few_pieces_wait_and_a_killed_process_is_a_sentence(tmp_path: Path) -> None:
    taken = 0

    def counted() -> Iterator[int]:
        nonlocal taken
        for number in range(14, 60):
            taken += 1
            yield number

    with Crew(2, tmp_path) as crew:
        results = crew.each(square, counted())
        assert next(results) == 14 * 14
        assert taken <= 2 * AHEAD
        assert list(results) == [number * number for number in range(15, 60)]
        with pytest.raises(WorkerKilled, match=r"one of 2 processes .* was killed .*runtime\.processes is lower"):
            list(crew.each(killed, range(9)))
