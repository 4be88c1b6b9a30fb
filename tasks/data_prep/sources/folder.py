"""A folder of files as a source. Files are read row by row, in the order of their names."""

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path, PurePosixPath

from tasks.data_prep.config import OPTIONAL, FilesConfig, MinimumRows
from tasks.data_prep.sources.benchmark_rows import item_of, shape_of
from tasks.data_prep.sources.files.kinds import KINDS, kind_of_file, rows_in, whole_datasets
from tasks.data_prep.sources.filter import RowFilter
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.sources.rows import Row
from tasks.engine.errors import DataError
from tasks.engine.inputs import files_below
from tasks.language.plain_layout import BARE, Layout
from tasks.records.json_lines import at
from tasks.records.records import BenchmarkItem

NO_ROLES = {"exclude", "benchmark_items_per_task", "where"}
BARE_ROLES = ("toxicity_prompts", "benchmarks")
"""Shown to a policy as they are."""
Chosen = dict[str, dict[str, Path]]
"""Role -> name -> file."""


def folder_rows(
    folder: str,
    files: FilesConfig,
    minimum: MinimumRows,
    layout: Layout,
    into: SourceRecords,
    roles: Collection[str] | None = None,
) -> Iterator[tuple[str, Iterator[Row]]]:
    """(role, rows) of every file that the patterns name, of all roles or of some; benchmarks and notices go into ``into``.

    Raises:
        DataError: no such folder, no file for a required role, or a row that cannot be used (with file and line).
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"data_prep.folder: found no folder {folder}, expected one with data files; correct the path")
    rows_wanted = RowFilter(files.where or {})
    for role, found in choose_files(root, files, into.notices).items():
        if roles is not None and role not in roles:
            continue
        require_file(folder, role, found, files, minimum)
        for name, path in found.items():
            rows = rows_of(path, name, BARE if role in BARE_ROLES else layout)
            if role == "benchmarks":
                items = read_benchmark(rows, name, into.notices)
                into.benchmarks += evenly_spaced(items, files.benchmark_items_per_task)
            else:
                yield role, rows_wanted.of(rows, name, into.notices)
    rows_wanted.require_known_fields()


def count_rows(folder: str, files: FilesConfig) -> int:
    """About as many rows as the folder's files hold; nothing is parsed."""
    root = Path(folder).expanduser()
    chosen = choose_files(root, files, []) if root.is_dir() else {}
    return sum(rows_in(path) for role, found in chosen.items() if role not in BARE_ROLES for path in found.values())


def require_file(folder: str, role: str, found: Collection[str], files: FilesConfig, minimum: MinimumRows) -> None:
    """Refuse a role that needs rows and has no file. Test prompts may also come from owners that are set aside.

    Raises:
        DataError: the patterns of the role.
    """
    if not found and role != "test_prompts" and getattr(minimum, role, 0) > 0:
        patterns = ", ".join(getattr(files, role)) or "no pattern"
        near = [path.name for path in _named_so(Path(folder).expanduser(), getattr(files, role))]
        but = f" ({near[0]} is none, and no dataset that save_to_disk wrote)" if near else ""
        inside = f", move the files of {near[0]} beside it" if near else ""
        raise DataError(
            f"{folder}: found no file for {role}{but}, expected one matching {patterns}; add it{inside}, or change "
            f"data_prep.files.{role}{f', or set data_prep.minimum_rows.{role}=0' if role == OPTIONAL else ''}"
        )


def rows_of(path: Path, name: str, layout: Layout = BARE) -> Iterator[Row]:
    """The rows of one file or saved dataset, as they are read."""
    kind = kind_of_file(path)
    assert kind is not None
    for where, fields in kind.read(path, name):
        yield Row(fields, where, layout, table=kind.table)


def choose_files(root: Path, files: FilesConfig, notices: list[str]) -> Chosen:
    """Each file, and each saved dataset, belongs to the first role that matches it; excluded ones are noted.

    Raises:
        DataError: a pattern matches a file of a kind that nobody reads, or leaves the folder.
    """
    below = whole_datasets(files_below(root))
    taken: set[str] = set()
    chosen: Chosen = {}
    for role, patterns in files.model_dump(exclude=NO_ROLES).items():
        for pattern in patterns:
            if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
                raise DataError(
                    f"data_prep.files.{role}: found the pattern {pattern}, which leaves the folder, expected one below "
                    f"{root}; link the files there"
                )
        found = {name for name in below if any(matches(name, pattern) for pattern in patterns)} - taken
        excluded = {name for name in found if _excluded(name, files.exclude)}
        notices += [f"{name}: left alone, data_prep.files.exclude names it" for name in sorted(excluded)]
        kept = [name for name in below if name in found - excluded]
        for name in kept:
            if kind_of_file(below[name]) is None:
                raise DataError(
                    f"{name}: found a file of another kind for {role}, expected {', '.join(KINDS)} or a folder that "
                    "datasets.save_to_disk wrote; convert it or add it to data_prep.files.exclude"
                )
        taken |= found
        chosen[role] = {name: below[name] for name in kept}
    return chosen


def matches(name: str, pattern: str) -> bool:
    """As ``Path.glob`` reads a pattern: ``*`` stays within one folder, ``**`` does not."""
    return _match(name.split("/"), PurePosixPath(pattern).parts)


def benchmark_task(name: str) -> str:
    """The task that a file of benchmark items is named for; its figures are called so.

    Raises:
        DataError: MLflow takes no figure with such a name.
    """
    task = name.rpartition("/")[2].split(".")[0]
    if not re.fullmatch(r"\w([\w -]{0,98}[\w-])?", task):
        raise DataError(
            f"{name}: a benchmark's figures are called by its file, and {task[:50]!r} is no name for a figure; rename the file, "
            "with letters, digits, spaces, _ and - only"
        )
    return task


def read_benchmark(rows: Iterator[Row], name: str, notices: list[str]) -> list[BenchmarkItem]:
    """The items of one file, the task named for it; what cannot be used is noted, never dropped in silence."""
    task = benchmark_task(name)
    items: list[BenchmarkItem] = []
    unasked = 0
    for row in rows:
        shape = shape_of(row)
        if shape is None:
            if items:
                raise row.error(f"found fields {row.keys}", "those of the lines before", "split the file")
            notices.append(f"{name}: skipped, its fields ({row.keys}) are of no known benchmark format")
            return []
        with at(row.where):
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


def _named_so(root: Path, patterns: list[str]) -> list[Path]:
    """Folders, pipes and the like that are called as a role's files are."""
    below = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in below if not path.is_file() and any(matches(path.name, pattern) for pattern in patterns)]


def _match(parts: list[str], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match(parts[place:], pattern[1:]) for place in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])


def _excluded(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name.rpartition("/")[2], pattern) or fnmatch(name, pattern) for pattern in patterns)
