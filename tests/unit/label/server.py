"""The labelling page in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(home: Path, port: int, **more: str) -> "subprocess.Popen[bytes]":
    """Start the page and wait until it answers; ``more`` belongs to its environment."""
    environment = os.environ | {"PLUMBLINE_HOME": str(home)} | more
    command = [sys.executable, "-m", "flows.label", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        assert process.poll() is None and time.monotonic() < end, "the page did not start"
        time.sleep(0.05)


@contextmanager
def running(home: Path) -> Iterator[str]:
    """Address of a page that runs meanwhile."""
    port = free_port()
    process = start(home, port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
