"""Runs that wait for a batch go on when it has the labels that they wait for."""

import logging
import threading
from pathlib import Path

from tasks.records.labels import WAITING

logger = logging.getLogger("plumbline")


def wake_runs(batch: Path) -> list[str]:
    """Start the runs again that wait for no more labels; returns what to tell about those that could not be started."""
    if not any((batch / WAITING).glob("*")):
        return []
    from flows.run.waiting import wake  # only now: Prefect takes seconds to import

    return wake(batch)


def wake_meanwhile(batch: Path) -> None:
    """The same, while the labeler goes on; what there is to tell goes to the log."""
    if any((batch / WAITING).glob("*")):
        threading.Thread(target=_wake_and_tell, args=(batch,)).start()


def _wake_and_tell(batch: Path) -> None:
    for told in wake_runs(batch):
        logger.warning("%s", told)
