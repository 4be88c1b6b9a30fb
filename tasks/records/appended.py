"""Files that are only ever appended to, one line of JSON at a time, and survive a writer that is killed at any moment."""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.engine.os_errors import readable_os_errors

ASIDE = ".cut"
"""Suffix of the file that takes what was cut off."""
logger = logging.getLogger("plumbline")


def append_line(path: Path, line: str) -> None:
    """Add a line; when this returns, it is on disk. Several processes may do so at once.

    A last line that a killed writer left half written is moved to ``<name>.cut`` first.

    Raises:
        ArtifactError: it cannot be written; then nothing of it is.
    """
    content = f"{line}\n".encode()
    with readable_os_errors(path.parent), _locked(path) as descriptor:
        end = _mend(path, descriptor)
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))  # part of it found room
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise


def whole_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """(file:line, text) of every line that is not blank, but a last one that was cut off: of that there is a notice."""
    text = path.read_bytes()
    lines = text.split(b"\n")
    if cut := _cut_off(text):
        logger.warning("%s: its last line is cut off after %d bytes and is left out", path, len(cut))
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}:{number}", line


def write_through(path: Path, content: str) -> None:
    """A whole file, on disk when this returns."""
    with path.open("wb") as file:
        file.write(content.encode())
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_off(text: bytes) -> bytes:
    """What is after the last line's end, unless it is a whole JSON value that lacks only that."""
    tail = text[text.rfind(b"\n") + 1 :]
    try:
        json.loads(tail)
    except ValueError:
        return tail
    return b""


def _mend(path: Path, descriptor: int) -> int:
    """Have the file end in a line's end; returns its size."""
    text = path.read_bytes()
    if text.endswith(b"\n") or not text:
        return len(text)
    if not (cut := _cut_off(text)):
        os.write(descriptor, b"\n")
        return len(text) + 1
    aside = path.with_suffix(ASIDE)
    logger.warning("%s: its last line was cut off; it is moved to %s", path, aside.name)
    with aside.open("ab") as file:
        file.write(cut + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.ftruncate(descriptor, len(text) - len(cut))
    return len(text) - len(cut)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor to append with, for one writer at a time; the kernel frees the lock when its holder dies."""
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if new:
            sync_folder(path.parent)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
