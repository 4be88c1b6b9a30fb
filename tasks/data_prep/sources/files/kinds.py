"""Which files hold rows, and how each kind is read.

========================  ====================================================================================
``.jsonl``, ``.jsonl.gz``  one JSON object per line
``.json``, ``.json.gz``    a JSON array of objects, or one object per line
``.csv``, ``.csv.gz``      a line of column names, then one row per record; a cell may spell a list as JSON
``.parquet``               any columns
a folder                   written by ``datasets.Dataset.save_to_disk``; of a ``DatasetDict``, one of its splits
========================  ====================================================================================
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data_prep.sources.files.comma_separated import csv_rows
from tasks.data_prep.sources.files.json_array import json_rows
from tasks.data_prep.sources.files.tables import parquet_count, parquet_rows, saved_count, saved_rows
from tasks.records.json_lines import json_lines, open_bytes

Rows = Iterator[tuple[str, Any]]
"""(place, fields) of each row."""
SAVED = ("dataset_info.json", "state.json")
SAVED_SPLITS = "dataset_dict.json"


class Kind(NamedTuple):
    """How files of one kind are read."""

    read: Callable[[Path, str], Rows]
    table: bool
    """Whether its columns have types, so that a number cannot be quoted."""


JSON_LINES, JSON, CSV = Kind(json_lines, False), Kind(json_rows, False), Kind(csv_rows, True)
KINDS = {
    ".jsonl": JSON_LINES,
    ".jsonl.gz": JSON_LINES,
    ".json": JSON,
    ".json.gz": JSON,
    ".csv": CSV,
    ".csv.gz": CSV,
    ".parquet": Kind(parquet_rows, True),
}
SAVED_DATASET = Kind(saved_rows, True)


def kind_of_file(path: Path) -> Kind | None:
    """How a file or a saved dataset is read; None when nobody knows."""
    if path.is_dir():
        return SAVED_DATASET
    return next((kind for suffix, kind in KINDS.items() if path.name.endswith(suffix)), None)


def rows_in(path: Path) -> int:
    """About as many rows as a file or a saved dataset holds, told by its lines or by what it says of itself; 0 where it cannot
    be read: whoever reads its rows says why."""
    try:
        if path.is_dir():
            return saved_count(path)
        if path.name.endswith(".parquet"):
            return parquet_count(path)
        with open_bytes(path) as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
    except Exception:  # whatever the readers of other people's formats raise
        return 0


def whole_datasets(files: Mapping[str, Path]) -> dict[str, Path]:
    """The files of a folder with those of a saved dataset put together: the dataset's folder stands for them.

    A saved ``DatasetDict`` of one split is that split; of several, each split stands for itself.
    """
    saved = {_folder_of(name) for name in files if name.endswith(SAVED[0]) and _beside(name, SAVED[1]) in files}
    notes = {name for name in files if name.rpartition("/")[2] == SAVED_SPLITS}
    found = {name: path for name, path in files.items() if name not in notes and _folder_of(name) not in saved}
    for name in saved:
        around, _, _ = name.rpartition("/")
        alone = f"{around}/{SAVED_SPLITS}" in notes and sum(_folder_of(other) == around for other in saved) == 1
        found[around if alone else name] = files[f"{name}/{SAVED[0]}"].parent if name else files[SAVED[0]].parent
    return dict(sorted(found.items()))


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _beside(name: str, other: str) -> str:
    return f"{_folder_of(name)}/{other}" if "/" in name else other
