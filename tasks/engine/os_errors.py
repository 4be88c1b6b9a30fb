"""What a full disk or a read-only folder says through the many libraries that write, as one sentence with a remedy."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.engine.errors import ArtifactError, PlumblineError

PROBE = 1_000_000
"""Bytes that a folder must take before a run."""
REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again, nothing published was lost",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again, nothing published was lost",
    errno.EFBIG: "a file would be larger than this process may write (ulimit -f, or the file system's limit); raise the "
    "limit and run the same command again, nothing published was lost",
    errno.EROFS: "the file system is read-only; choose another folder with {key}",
    errno.EACCES: "no permission to write there; choose another folder with {key}",
    errno.EPERM: "no permission to write there; choose another folder with {key}",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another folder with {key}",
    errno.ENAMETOOLONG: "a name in its path is too long; choose another folder with {key}",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder with {key}",
}
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Refusals that do not depend on which file it is."""
# How libraries spell them that pass on no number: safetensors and torch in their own words, SQLite in its own.
_SPELLINGS = {
    **{os.strerror(number): number for number in OF_THE_DISK},
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    # torch.save closes its archive after the failed write and then reports only that.
    "unexpected pos": errno.ENOSPC,
}


def refusal(error: BaseException) -> int | None:
    """The operating system's error number behind an exception or what caused it, if it is one a user can remedy."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in REMEDIES:
            return seen.errno
        for words, number in _SPELLINGS.items():
            if words in str(seen):
                return number
        seen = seen.__cause__ or seen.__context__
    return None


def _lies_elsewhere(error: BaseException, place: Path) -> bool:
    """Whether the refusal names a file that has nothing to do with ``place``, such as a data file of the user's."""
    named = getattr(error, "filename", None)
    return isinstance(named, str) and not Path(named).resolve().is_relative_to(place.resolve().parent)


def _what_moves(place: Path) -> str:
    """What to set so that something else is written to: the home folder holds Prefect's database and, by default, all."""
    home = os.environ.get("PLUMBLINE_HOME")
    below = home and place.resolve().is_relative_to(Path(home).resolve())
    return "the environment variable PLUMBLINE_HOME" if below else "tracking.root=..."


@contextmanager
def readable_os_errors(place: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence with a remedy.

    Raises:
        ArtifactError: something below ``place`` could not be written.
    """
    try:
        yield
    except PlumblineError:
        raise
    except Exception as error:
        number = refusal(error)
        if number is None or _lies_elsewhere(error, place):
            raise
        first = (str(error).splitlines() or [""])[0]
        remedy = REMEDIES[number].format(key=_what_moves(place))
        raise ArtifactError(f"{place} cannot be written: {remedy} ({first})") from error


def probe(folder: Path, size: int = PROBE) -> None:
    """Write a file of ``size`` bytes and take it away again; databases fail in unreadable ways where that is not possible.

    Raises:
        ArtifactError: the disk is full, or the folder cannot be made or written.
    """
    file = folder / f".probe-{uuid.uuid4().hex}"
    with readable_os_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(size))
        except OSError as error:
            if refusal(error) is None:
                moves = f"choose another folder with {_what_moves(folder)}"
                raise ArtifactError(f"{folder} cannot be written: {error.strerror}; {moves}") from error
            raise
        finally:
            with suppress(OSError):
                file.unlink(missing_ok=True)
