"""What the command lines do about logging once Hydra has set it up, and how workers' sentences reach it."""

import logging
import logging.handlers
import threading
from multiprocessing.queues import Queue
from typing import Any

LEVELS = {
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "distributed": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,  # it reports every retry of a server that is away, which is told once
}


def tame_logs() -> None:
    """Silence libraries that Hydra made talk, and what is said elsewhere.

    A log file on a full disk misses a line instead of printing tracebacks.
    """
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)  # Hydra raises every logger's level
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _skip  # type: ignore[assignment]
        else:
            handler.addFilter(_not_told_twice)
            handler.addFilter(_not_of_an_interrupt)


def speak_through(queue: "Queue[Any]") -> None:
    """In a worker: hand every sentence to the process of the run, whose screen and log file they belong to."""
    to_the_run = logging.handlers.QueueHandler(queue)
    to_the_run.addFilter(_not_told_twice)
    to_the_run.addFilter(_not_of_an_interrupt)
    logging.getLogger().handlers[:] = [to_the_run]


def listen(queue: "Queue[Any]") -> None:
    """In the run's process: say what workers hand over, for as long as there is a queue."""

    def repeat() -> None:
        while True:
            try:
                record = queue.get()
            except (EOFError, OSError, ValueError):  # closed
                return
            logging.getLogger(record.name).handle(record)

    threading.Thread(target=repeat, name="sentences of workers", daemon=True).start()


def _not_told_twice(record: logging.LogRecord) -> bool:
    """Keep Prefect's reports of failed stages in the log file; on the screen the sentence at the end says why."""
    return not record.name.startswith("prefect.")


def _not_of_an_interrupt(record: logging.LogRecord) -> bool:
    """Keep what a library reports of a call that Ctrl-C cut off, such as a closed database, in the log file."""
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return False
        error = error.__cause__ or error.__context__
    return True


def _skip(_record: logging.LogRecord) -> None:
    """The stage that meets the same disk says it in one sentence."""
