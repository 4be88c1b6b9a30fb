"""Files that come from outside, by content: a folder of data or a local model counts by its bytes, not by its path."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.engine.config import ModelConfig
from tasks.engine.digests import file_digest


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    return file_digest(path)


def folder_fields(folder: str) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder; empty when there is no such folder."""
    root = Path(folder).expanduser()
    found = {}
    for path in sorted(root.rglob("*")) if root.is_dir() else []:
        if path.is_file():
            state = path.stat()
            found[path.relative_to(root).as_posix()] = _digest(path, state.st_size, state.st_mtime_ns)
    return found


def path_fields(path: str) -> dict[str, str]:
    """The same for a path that may be a single file."""
    given = Path(path).expanduser()
    if given.is_file():
        state = given.stat()
        return {given.name: _digest(given, state.st_size, state.st_mtime_ns)}
    return folder_fields(path)


def model_fields(model: ModelConfig) -> dict[str, Any]:
    """What a model is: the bytes of a local folder, or the name and revision on a hub."""
    fields = model.fingerprint_fields()
    if model.name_or_path and Path(model.name_or_path).expanduser().is_dir():
        fields["name_or_path"] = folder_fields(model.name_or_path)
    return fields
