"""A PostgreSQL server for one test: its own data folder, its own port, on this machine only."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDERS = ["/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/15/bin"]
USER = "plumbline"


def programs() -> Path | None:
    """Where ``initdb`` and ``postgres`` lie; None when PostgreSQL is not installed."""
    found = shutil.which("initdb", path=os.pathsep.join([*FOLDERS, os.environ.get("PATH", "")]))
    return Path(found).parent if found else None


def _unprivileged() -> dict[str, object]:
    """PostgreSQL refuses to run as root; then it runs as the user that its package made."""
    if os.getuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextmanager
def server() -> Iterator[str]:
    """``user@127.0.0.1:port`` of a server with the databases ``mlflow`` and ``prefect``; it is gone afterwards."""
    with TemporaryDirectory(prefix="plumbline-postgres-") as folder:  # pytest's own folders are closed to other users
        yield from _serve(Path(folder))


def _serve(folder: Path) -> Iterator[str]:
    binaries = programs()
    assert binaries is not None
    who = _unprivileged()
    if who:
        os.chown(folder, int(str(who["user"])), int(str(who["group"])))
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        **who,  # type: ignore[call-overload]
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", "unix_socket_directories="]
    process = subprocess.Popen(
        [binaries / "postgres", "-D", data, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **who,  # type: ignore[call-overload]
    )
    try:
        end = time.monotonic() + 60
        while subprocess.run(
            [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False
        ).returncode:
            assert process.poll() is None and time.monotonic() < end, "PostgreSQL did not start"
            time.sleep(0.2)
        for name in ("mlflow", "prefect"):
            subprocess.run(
                [binaries / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", USER, name],
                check=True,
                capture_output=True,
            )
        yield f"{USER}@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # closes the connections of clients; SIGTERM would wait for them
        process.wait(30)
