"""SHA-256 of files and folders, and what differs from the digests that were written down."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

MANIFEST = "manifest.json"
MOMENT = 100_000_000
"""Nanoseconds after a change for which a digest is not remembered."""
WORTH_A_NOTE = 1 << 20
"""Bytes from which other processes are told the digest of a file."""
_known: dict[tuple[int, ...], str] = {}
_notes: Path | None = None


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def share_digests(run: Path | None) -> None:
    """From now on, tell the other processes of a run what this one has read, and believe what they have.

    The notes go with the run: what changes on a disk without a trace in its times is found by the next one.

    Args:
        run: its folder; None for a stage that belongs to no run.
    """
    global _notes
    _notes = run / "digests" if run is not None else None


def digest_if_changed(path: Path) -> str:
    """SHA-256 of a file, which the processes of a run read once, and again only if the file has changed since.

    The number and the time of change tell a file that was exchanged for one of equal size and age; both stay when a draft
    becomes an artifact. What was written a moment ago is not remembered: the file system's clock may not tell the next change.
    """
    state = path.stat()
    facts = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if facts not in _known and state.st_size >= WORTH_A_NOTE:
        _known.update(_noted())
    if facts in _known:
        return _known[facts]
    found = file_digest(path)
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > MOMENT:
        _known[facts] = found
        if state.st_size >= WORTH_A_NOTE:
            _note(facts, found)
    return found


def _note(facts: tuple[int, ...], digest: str) -> None:
    if _notes is not None:
        with suppress(OSError):  # the run has ended meanwhile, or the disk is full: others read the file themselves
            _notes.parent.mkdir(parents=True, exist_ok=True)
            with _notes.open("a", encoding="ascii") as file:
                file.write(f"{' '.join(map(str, facts))} {digest}\n")


def _noted() -> Iterator[tuple[tuple[int, ...], str]]:
    with suppress(OSError):
        for line in _notes.read_text(encoding="ascii").splitlines(keepends=True) if _notes is not None else ():
            if line.endswith("\n"):  # else it is being written
                *facts, digest = line.split()
                yield tuple(map(int, facts)), digest


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
