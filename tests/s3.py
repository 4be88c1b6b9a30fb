"""An S3 server of this machine, for the tests of one file."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
import pytest


@contextmanager
def s3_server() -> Iterator[str]:
    """An address below which each test takes a prefix of its own; server and credentials are told by the environment.

    The server is a process of its own: moto keeps its buckets in the memory of its process, and the next file of tests
    that asks for a server must find it empty.
    """
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        TemporaryDirectory() as folder,
        (Path(folder) / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        try:
            environment.setenv("AWS_ENDPOINT_URL", _address(server, Path(log.name)))
            environment.setenv("AWS_ACCESS_KEY_ID", "somebody")
            environment.setenv("AWS_SECRET_ACCESS_KEY", "not-so-secret")
            environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
            environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
            fsspec.get_filesystem_class("s3").clear_instance_cache()  # they know the last server
            fsspec.filesystem("s3", use_listings_cache=False).mkdir("results")
            yield "s3://results"
        finally:
            server.kill()


def _address(server: "subprocess.Popen[bytes]", log: Path) -> str:
    """What the server prints once it listens."""
    for _ in range(600):
        found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if found:
            return found[1]
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    raise TimeoutError(log.read_text())
