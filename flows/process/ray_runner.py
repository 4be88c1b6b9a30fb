"""Prefect's task runner for Ray, which leaves it to the run how it ends."""

import signal
import threading
from typing import Self

from prefect_ray import RayTaskRunner


class RunnerOnRay(RayTaskRunner):  # type: ignore[misc]
    """Connects to Ray, which would end this process at a SIGTERM at once, without a word and without a checkpoint."""

    def __enter__(self) -> Self:
        before = signal.getsignal(signal.SIGTERM)
        try:
            super().__enter__()
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        return self
