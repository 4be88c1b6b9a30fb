"""A local Prefect API for one command, shared with every process the command starts.

Prefect would start an ephemeral server by itself, but that one loses the last task runs at exit, outlives a killed
parent, and is started once more by every worker process. This one is drained before it stops, dies with its parent, and
is announced to children through ``PREFECT_API_URL``. If that variable is set already, its server is used.
"""

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from flows.process.deadline import CtrlC
from flows.process.environment import prefect_home
from flows.process.fork_server import cool_down, warm_up
from flows.process.own_server import OwnServer, answers
from tasks.engine.errors import ConfigError
from tasks.engine.urls import without_password

SETTLE_SECONDS = 10.0
SETTLE_SECONDS_INTERRUPTED = 2.0
_ahead: list[OwnServer] = []


def start_ahead(forks: bool = False) -> None:
    """Start the local server of the session that is about to be opened, while this process imports what it needs itself.

    Not where one is given. A database is only opened, never made: a run that is refused ends this one as it is.

    Args:
        forks: also start what workers are forked from.
    """
    if forks:
        atexit.register(cool_down)
        warm_up()
    if not os.environ.get("PREFECT_API_URL"):
        with suppress(OSError):  # the session tells
            _ahead.append(OwnServer())
            atexit.register(_end_ahead)
            if (prefect_home() / "prefect.db").is_file():
                _ahead[0].serve()


def _end_ahead() -> None:
    while _ahead:
        _ahead.pop().kill()


@contextmanager
def _terminate_like_ctrl_c() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that either ends a run in order."""

    def interrupt(*_: object) -> None:
        raise CtrlC

    ours_to_say = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not ours_to_say:  # the command line has said it
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _announced(url: str) -> Iterator[None]:
    """Make an API known to this process, to all its threads, and to the processes it starts."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_API_URL, temporary_settings

    os.environ["PREFECT_API_URL"] = url
    # Prefect's own threads do not see temporary settings; without this they would start a second server.
    refresh_global_settings_context()
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        refresh_global_settings_context()


@contextmanager
def prefect_session(
    meanwhile: Callable[[], object] | None = None, shown: AbstractContextManager[object] | None = None
) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers.

    Args:
        meanwhile: what there is to do while a local server starts; not called where a server is given.
        shown: entered for as long as it starts.

    Raises:
        ConfigError: ``PREFECT_API_URL`` is set and does not answer, or a local server does not start.
        KeyboardInterrupt: SIGTERM or Ctrl-C.
    """
    from prefect.settings import PREFECT_API_URL

    with _terminate_like_ctrl_c():
        given = PREFECT_API_URL.value()
        if given:
            _end_ahead()
            if not answers(given):
                raise ConfigError(
                    f"PREFECT_API_URL is {without_password(given)}: no answer; start that server or unset the variable"
                )
            yield given
            return
        server = _ahead.pop() if _ahead else OwnServer()
        try:
            with shown or nullcontext():
                server.serve()
                if meanwhile is not None:
                    meanwhile()
                server.wait_until_up()
        except BaseException:
            server.kill()
            raise
        try:
            with _announced(server.url):
                try:
                    yield server.url
                except BaseException:
                    _settle(SETTLE_SECONDS_INTERRUPTED)
                    raise
                _settle(SETTLE_SECONDS)
        finally:
            server.end()


def drain() -> None:
    """Send what this process still has for the Prefect API; at its exit, when the server is gone, it would try for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all()
    APILogWorker.drain_all()


def _settle(seconds: float) -> None:
    """Wait until the server has recorded what this process sent; its recorder is asynchronous."""
    from prefect import get_client

    drain()
    states = ("PENDING", "RUNNING", "COMPLETED", "FAILED")
    with get_client(sync_client=True) as client:
        end, last, same = time.monotonic() + seconds, None, 0
        while time.monotonic() < end and same < 3:
            bodies = [{"task_runs": {"state": {"type": {"any_": [state]}}}} for state in states]
            counts = [client._client.post("/task_runs/count", json=body).json() for body in bodies]
            same = same + 1 if counts == last else 0
            last = counts
            time.sleep(0.25)
