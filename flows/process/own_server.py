"""The local Prefect server of one run: started, started again if something kills it, and ended with the run."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

from filelock import FileLock

from flows.process import environment
from tasks.engine.errors import ConfigError
from tasks.engine.parent import die_with_parent

START_SECONDS = 180.0
END_SECONDS = 5.0
MOST_STARTS = 4
"""A server that dies as often as this does so for a reason of its own."""
logger = logging.getLogger("plumbline")


def answers(url: str) -> bool:
    """Whether there is a Prefect API at a URL."""
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OwnServer:
    """A server process on a free port of this machine; it imports Prefect at once, and touches its database from ``serve`` on."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._ending = threading.Event()
        self._starts = 0
        self._serves = False
        # Two servers that make the same new database at the same moment break each other's.
        self._one_at_a_time = FileLock(environment.prefect_home() / "server-start.lock", thread_local=False)
        self._process = self._start()

    def serve(self) -> None:
        """Have it open its database, or make one, and answer; the second call changes nothing."""
        if not self._serves:
            self._one_at_a_time.acquire()
            self._serves = True
            _tell(self._process)

    def wait_until_up(self) -> None:
        """Return when the server answers; from then on it is watched.

        Raises:
            ConfigError: it does not start.
        """
        try:
            end = time.monotonic() + START_SECONDS
            while not answers(self.url):
                status = self._process.poll()
                if status is not None:
                    raise ConfigError(
                        f"the local Prefect server did not start (exit status {status}, home {environment.HOME}); "
                        "look at `prefect server start` for the reason, or remove the folder's prefect/prefect.db"
                    )
                if time.monotonic() > end:
                    raise ConfigError(
                        f"the local Prefect server is still starting after {START_SECONDS:.0f} s, expected seconds: this machine "
                        "is very busy; run the same command again when it is less so"
                    )
                time.sleep(0.1)
        finally:
            self._one_at_a_time.release()
        threading.Thread(target=self._watch, name="watches the run's Prefect server", daemon=True).start()

    def end(self) -> None:
        """Tell it to end, and see that it does."""
        self._ending.set()
        self._process.send_signal(signal.SIGUSR1)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as it is."""
        self._ending.set()
        self._process.kill()
        self._process.wait()
        self._one_at_a_time.release()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._starts += 1
        command = [sys.executable, "-m", "flows.process.server", str(self.port)]
        settings = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        settings |= environment.closed_to_other_pages(self.port)
        quiet = subprocess.DEVNULL
        # A session of its own: Ctrl-C must not end the server before the run has said how it ended.
        return subprocess.Popen(
            command,
            cwd=environment.PROJECT,
            env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | settings,
            stdin=subprocess.PIPE,
            stdout=quiet,
            stderr=quiet,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )

    def _watch(self) -> None:
        """Start it again when it dies, on the port that the run and its workers know; they try again meanwhile."""
        while True:
            status = self._process.wait()
            if self._ending.is_set():
                return
            how = f"was killed (signal {-status})" if status < 0 else f"ended with status {status}"
            if self._starts == MOST_STARTS:
                logger.warning("the run's own Prefect server %s for the %d. time and stays away", how, MOST_STARTS)
                return
            logger.warning("the run's own Prefect server %s; it is started again, and the run goes on", how)
            self._process = self._start()
            _tell(self._process)


def _tell(process: "subprocess.Popen[bytes]") -> None:
    """Let it serve; whoever waits for it finds one that has ended instead."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as line:
        line.write(b"\n")
