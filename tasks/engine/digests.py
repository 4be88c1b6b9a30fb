"""SHA-256 of files and folders, and what differs from the digests that were written down."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

MANIFEST = "manifest.json"
MOMENT = 100_000_000
"""Nanoseconds after a change for which a digest is not remembered."""
_known: dict[tuple[int, ...], str] = {}


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_if_changed(path: Path) -> str:
    """SHA-256 of a file, which a process reads once, and again only if the file has changed since.

    The number and the time of change tell a file that was exchanged for one of equal size and age; both stay when a draft
    becomes an artifact. What was written a moment ago is not remembered: the file system's clock may not tell the next change.
    """
    state = path.stat()
    facts = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if facts in _known:
        return _known[facts]
    found = file_digest(path)
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > MOMENT:
        _known[facts] = found
    return found


def folder_digests(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> SHA-256 of every file below a folder, its manifest excepted."""
    return {name: digest_if_changed(folder / name) for name in _files(folder)}


def content_digest(stage: str, files: Mapping[str, str]) -> str:
    """One digest for a whole artifact: the same files give the same digest, whenever and wherever made."""
    lines = [stage, *(f"{name} {files[name]}" for name in sorted(files))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def differences(folder: Path, files: Mapping[str, str], digest: Callable[[Path], str]) -> Iterator[str]:
    """Every file that is missing, cannot be read, or has another digest than the one written down, in words."""
    for name, expected in files.items():
        try:
            found = digest(folder / name)
        except FileNotFoundError:
            yield f"file {name} is missing"
            continue
        except OSError as error:
            yield f"file {name} cannot be read ({error.strerror})"
            continue
        if found != expected:
            yield f"file {name} has digest {found[:12]}, expected {expected[:12]}"


def strangers(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Files that somebody has put beside those whose digests are known."""
    return [name for name in _files(folder) if name not in files]


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [name for name in found if name != MANIFEST]
