"""Files that come from outside, by content: a folder of data or a local model counts by its bytes, not by its path.

``files_below`` is the one list of them: a reader takes its files from it, and the key of its stage is made of it, so that no
file is read which the key does not know.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.engine.config import ModelConfig
from tasks.engine.digests import digest_if_changed
from tasks.engine.errors import DataError

LINK_TO_NOTHING = "a link to nothing"


def files_below(folder: Path) -> dict[str, Path]:
    """Relative path -> every file below a folder, sorted by path; empty when there is no such folder.

    Links to files and folders are followed; one that leads back to a folder around it is not entered again.

    Raises:
        DataError: a folder that may not be listed.
    """
    found = _walk(folder, frozenset({folder.resolve()})) if folder.is_dir() else ()
    return {path.relative_to(folder).as_posix(): path for path in found}


def folder_fields(folder: str) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder; empty when there is no such folder."""
    return {name: _digest(path) for name, path in files_below(Path(folder).expanduser()).items()}


def path_fields(path: str) -> dict[str, str]:
    """The same for a path that may be a single file."""
    given = Path(path).expanduser()
    return {given.name: _digest(given)} if given.is_file() else folder_fields(path)


def model_fields(model: ModelConfig) -> dict[str, Any]:
    """What a model is: the bytes of a local folder, or the name and revision on a hub."""
    fields = model.fingerprint_fields()
    if model.name_or_path and Path(model.name_or_path).expanduser().is_dir():
        fields["name_or_path"] = folder_fields(model.name_or_path)
    return fields


def _walk(folder: Path, around: frozenset[Path]) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder}: found a folder that cannot be listed ({error.strerror}); make it readable"
        ) from error
    for entry in entries:
        if entry.is_dir():
            if entry.resolve() not in around:
                yield from _walk(entry, around | {entry.resolve()})
        elif entry.is_file() or not entry.exists():
            _require_readable_name(entry)
            yield entry


def _require_readable_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{path.parent}: found the file name {os.fsencode(path.name)!r}, which is not UTF-8; rename it"
        ) from None


def _digest(path: Path) -> str:
    try:
        return digest_if_changed(path)
    except FileNotFoundError:
        return LINK_TO_NOTHING
    except OSError as error:
        raise DataError(f"{path}: found a file that cannot be read ({error.strerror}); make it readable") from error
