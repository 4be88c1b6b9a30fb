"""A bound on how long a command takes to end: what waits for a server, a thread or a pool must not keep it for ever.

From the first Ctrl-C or SIGTERM, or from when the run's end is reached in error, the process has a number of seconds to end in
order. After them it ends as it is. Nothing that was published or saved can be lost by that, and no child outlives it.
"""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE_SECONDS = 10.0
"""To close tracking, pools and servers, once the stages have saved."""
STATUS_INTERRUPTED = 130


class CtrlC(KeyboardInterrupt):
    """Ctrl-C, SIGTERM, or the end of a stage's thread.

    A class of its own: once a plain KeyboardInterrupt has left code that was compiled from a string, such as a dataclass's,
    in whatever thread, Python ends the process by SIGINT in the place of its exit status.
    """


class Deadline:
    """When this process ends, whatever it waits for; nothing happens until ``begin``."""

    def __init__(self) -> None:
        self._stop_seconds = 0.0
        self._began: float | None = None
        self._status = 1

    def allow(self, stop_seconds: float) -> None:
        """Give the stages that train this long to save; what is left over is ``GRACE_SECONDS``."""
        self._stop_seconds = max(self._stop_seconds, stop_seconds)

    def watch(self) -> None:
        """Wait for ``begin`` in a thread of its own, so that a signal's handler need not start one."""
        threading.Thread(target=self._end, name="deadline", daemon=True).start()

    def begin(self, status: int) -> None:
        """From now on; the first call counts. Takes no lock, since whatever a signal interrupts may have it."""
        if self._began is None:
            self._status, self._began = status, time.monotonic()

    def _end(self) -> None:
        while self._began is None:
            time.sleep(0.2)
        while (left := self._began + self._stop_seconds + GRACE_SECONDS - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
        with suppress(OSError):  # whoever read it may be gone
            os.write(
                2,
                f"\nnot ended in order within {time.monotonic() - self._began:.0f} s, so ended as it is; what was published or "
                "saved is whole\n".encode(),
            )
        os._exit(self._status)


DEADLINE = Deadline()
"""Of this process."""


@contextmanager
def ends_in_time() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM alike raise KeyboardInterrupt, and the process ends in time; so it does after an error."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        DEADLINE.begin(STATUS_INTERRUPTED)
        raise CtrlC

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that nothing is left to write when the process ends as it is
    DEADLINE.watch()
    for asked_politely in (signal.SIGINT, signal.SIGTERM):
        if (
            signal.getsignal(asked_politely) is not signal.SIG_IGN
        ):  # of a shell's background job: deaf to Ctrl-C it stays
            signal.signal(asked_politely, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        DEADLINE.begin(STATUS_INTERRUPTED)
        raise
    except SystemExit as end:  # a status of its own, such as that of a failed gate
        DEADLINE.begin(end.code if isinstance(end.code, int) else 1)
        raise
    except BaseException:
        DEADLINE.begin(1)
        raise
