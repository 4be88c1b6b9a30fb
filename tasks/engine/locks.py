"""Who may touch what in a store's folder: one builder per artifact, and garbage collection alone.

The kernel frees these locks when their holder dies, even by ``kill -9``; they hold on one machine or one shared folder.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.engine.errors import ArtifactError, Interrupted
from tasks.engine.os_errors import readable_os_errors

IN_USE = "in-use.lock"


class Locks:
    """The locks in the folder ``locks`` of a root."""

    root: Path

    @contextmanager
    def lock(
        self, stage: str, fingerprint: str, told_to_stop: Callable[[], bool] = lambda: False, patience: float = -1
    ) -> Iterator[None]:
        """One builder per artifact; the kernel frees the lock when its holder dies, even by ``kill -9``.

        Args:
            stage: of the artifact.
            fingerprint: of the artifact.
            told_to_stop: asked while waiting for another builder.
            patience: seconds to wait at most; negative waits for as long as it takes.

        Raises:
            Interrupted: told to stop while waiting.
            TimeoutError: ``patience`` came to an end.
        """
        lock = FileLock(self.root / "locks" / f"{stage}-{fingerprint}.lock", timeout=patience)
        with readable_os_errors(self.root):
            try:
                lock.acquire(cancel_check=told_to_stop)
            except Timeout:
                if told_to_stop():
                    raise Interrupted(
                        "stopped, as it was told to, while another run was making the same artifact"
                    ) from None
                raise
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Held by whoever reads or makes artifacts, any number at once; garbage collection waits for none of them."""
        with self._flock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def for_myself(self) -> Iterator[None]:
        """Held by garbage collection: nobody else uses the store, and whoever wants to waits.

        Raises:
            ArtifactError: the store is in use.
        """
        try:
            with self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield
        except BlockingIOError:
            raise ArtifactError(
                f"artifact store {self.root}: a run is using it; nothing was touched; try again when the run has ended"
            ) from None

    @contextmanager
    def _flock(self, kind: int) -> Iterator[None]:
        with readable_os_errors(self.root):
            descriptor = os.open(self.root / "locks" / IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)  # and with it, the lock
