"""SHA-256 of files and folders, and what differs from the digests that were written down."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

MANIFEST = "manifest.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=65536)
def _known_digest(path: Path, size: int, modified: int) -> str:
    return file_digest(path)


def digest_if_changed(path: Path) -> str:
    """SHA-256 of a file, which is read again only if its size or its time of change differ from when it was last read."""
    state = path.stat()
    return _known_digest(path, state.st_size, state.st_mtime_ns)


def folder_digests(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> SHA-256 of every file below a folder, its manifest excepted."""
    return {name: file_digest(folder / name) for name in _files(folder)}


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
