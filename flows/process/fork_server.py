"""The process from which the workers of ``runtime.runner=processes`` are forked; nothing heavy is imported here to start it."""

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing import forkserver
from typing import Any

from flows.process.allocator import tcmalloc


def warm_up() -> None:
    """Start the process from which workers are forked; returns at once, and does nothing when there is one."""
    multiprocessing.set_forkserver_preload(["flows.process.warm"])
    with tcmalloc():
        forkserver.ensure_running()


def cool_down() -> None:
    """End it as it is, if there is one: while it imports it would not notice that nobody will ask it for a worker."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
