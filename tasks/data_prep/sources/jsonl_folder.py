"""A folder of JSONL files as a source. Files are read line by line, in the order of their names."""

import gzip
import json
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from tasks.data_prep.config import FilesConfig, MinimumRows
from tasks.data_prep.sources.benchmark_rows import item_of, shape_of
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.sources.rows import PARSERS, Row
from tasks.engine.errors import DataError
from tasks.records.records import BenchmarkItem

SUFFIXES = (".jsonl", ".jsonl.gz")


def read_jsonl_folder(folder: str, files: FilesConfig, minimum: MinimumRows, layout: str) -> SourceRecords:
    """Every file that the patterns name.

    Raises:
        DataError: no such folder, no file for a required role, or a row that cannot be used (with file and line).
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"data_prep.folder: found no folder {folder}, expected one with JSONL files; correct the path")
    records = SourceRecords()
    for role, paths in choose_files(root, files, records.notices).items():
        # Test prompts may also come from the owners that test_fraction sets aside.
        if not paths and role != "test_prompts" and getattr(minimum, role, 0) > 0:
            patterns = ", ".join(getattr(files, role)) or "no pattern"
            raise DataError(
                f"{folder}: found no file for {role}, expected one matching {patterns}; add it, or change "
                f"data_prep.files.{role}, or set data_prep.minimum_rows.{role}=0 to go on without"
            )
        for path in paths:
            name = path.relative_to(root).as_posix()
            if role == "benchmarks":
                items = read_benchmark(path, name, records.notices)
                records.benchmarks += evenly_spaced(items, files.benchmark_items_per_task)
            else:
                rows = (Row(fields, where, layout) for where, fields in json_lines(path, name))
                getattr(records, role).extend(record for row in rows for record in PARSERS[role](row))
    return records


def choose_files(root: Path, files: FilesConfig, notices: list[str]) -> dict[str, list[Path]]:
    """Role -> its files, sorted by path. Each file belongs to the first role that matches it; excluded ones are noted.

    Raises:
        DataError: a pattern matches a file that is not JSONL.
    """
    taken: set[Path] = set()
    chosen: dict[str, list[Path]] = {}
    for role, patterns in files.model_dump(exclude={"exclude", "benchmark_items_per_task"}).items():
        found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()} - taken
        excluded = {path for path in found if _excluded(path, root, files.exclude)}
        for path in sorted(excluded):
            notices.append(f"{path.relative_to(root).as_posix()}: left alone, data_prep.files.exclude names it")
        kept = sorted(found - excluded)
        for path in kept:
            if not path.name.endswith(SUFFIXES):
                raise DataError(
                    f"{path.relative_to(root).as_posix()}: found a file of another kind for {role}, expected "
                    f"{' or '.join(SUFFIXES)}; convert it or add it to data_prep.files.exclude"
                )
        taken |= found
        chosen[role] = kept
    return chosen


def json_lines(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(file:line, parsed JSON) of every line that is not blank.

    Raises:
        DataError: broken JSON, text that is not UTF-8, a damaged gzip file.
    """
    number = 0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{name}:{number}", _parse(line, f"{name}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{name}:{number + 1}: found unreadable data ({error}), expected "
            f"{'a complete gzip file' if path.suffix == '.gz' else 'a readable file'}; copy the file again"
        ) from error


def read_benchmark(path: Path, name: str, notices: list[str]) -> list[BenchmarkItem]:
    """The items of one file, the task named for it; what cannot be used is noted, never dropped in silence."""
    task = path.name.split(".")[0]
    items: list[BenchmarkItem] = []
    unasked = 0
    for where, fields in json_lines(path, name):
        row = Row(fields, where, "{prompt}")
        shape = shape_of(row)
        if shape is None:
            if items:
                raise row.error(f"found fields {row.keys}", "those of the lines before", "split the file")
            notices.append(f"{name}: skipped, its fields ({row.keys}) are of no known benchmark format")
            return []
        item = item_of(row, shape, task, len(items))
        if item is None:
            unasked += 1
        else:
            items.append(item)
    if unasked:
        notices.append(
            f"{name}: {unasked} of {unasked + len(items)} rows skipped, they have no answer or no shared context"
        )
    return items


def evenly_spaced(items: list[BenchmarkItem], count: int) -> list[BenchmarkItem]:
    """At most ``count`` items, spread over the whole list: a file may be sorted by topic."""
    return items if len(items) <= count else [items[place * len(items) // count] for place in range(count)]


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _parse(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: found bytes that are not UTF-8 ({error.reason}), expected UTF-8; convert the file"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: found broken JSON (column {error.colno}: {error.msg}), expected one JSON object per "
            "line; correct the line"
        ) from None


def _excluded(path: Path, root: Path, patterns: list[str]) -> bool:
    relative = path.relative_to(root).as_posix()
    return any(fnmatch(path.name, pattern) or fnmatch(relative, pattern) for pattern in patterns)
