"""Work divided among processes, whose results come in the order of the work: nobody can tell how many there were."""

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tasks.engine.errors import WorkerKilled
from tasks.engine.parent import die_with_parent

AHEAD = 3
"""Pieces of work for each process that may wait, or wait to be fetched."""
Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Crew:
    """Some processes; of one, this one. A daemon, as Dask's workers are, may start none and does the work itself.

    Args:
        processes: how many.
        folder: for what they are told.
    """

    def __init__(self, processes: int, folder: Path) -> None:
        self.processes = 1 if multiprocessing.current_process().daemon else processes
        self._folder, self._told, self._pool = folder, 0, None
        if self.processes > 1:
            spawn = multiprocessing.get_context("spawn")  # torch has threads, which a fork would not copy
            self._pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
        """The result of each piece, in the order of the pieces, of which only a few are there at any time.

        Raises:
            WorkerKilled: a process was killed.
        """
        if self._pool is None:
            yield from map(work, pieces)
            return
        self._told += 1
        told = self._folder / f"work-{self._told}.pickle"
        told.write_bytes(pickle.dumps(work))
        waiting: deque[Future[Result]] = deque()
        failed: Exception | None = None
        try:
            for piece in _until_it_fails(pieces):
                if isinstance(piece, _Failure):
                    failed = piece.error
                    break
                waiting.append(self._pool.submit(_do, str(told), piece))
                if len(waiting) >= AHEAD * self.processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerKilled(
                f"one of {self.processes} processes that prepared data was killed (out of memory?); the same command starts "
                "the stage again, with less memory where runtime.processes is lower"
            ) from error
        if failed is not None:  # after what earlier pieces may have raised
            raise failed


class _Failure:
    """What the next piece could not be made for."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _until_it_fails(pieces: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from pieces
    except Exception as error:
        yield _Failure(error)


def _begin() -> None:
    """In a process of the crew."""
    die_with_parent()
    for asked_politely in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a terminal tells every process; the first one ends the others
        signal.signal(asked_politely, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@lru_cache(maxsize=1)
def _work(told: str) -> Callable[[Any], Any]:
    work: Callable[[Any], Any] = pickle.loads(Path(told).read_bytes())
    return work


def _do(told: str, piece: Any) -> Any:
    return _work(told)(piece)
