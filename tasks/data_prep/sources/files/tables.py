"""Parquet files and saved datasets: columns with types, read a batch at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.engine.errors import DataError

ROWS = 1000
"""Rows of a batch."""


def parquet_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(file row N, fields) of every row, counted from 0.

    Raises:
        DataError: no Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                for fields in batch.to_pylist():
                    yield f"{name} row {number}", fields
                    number += 1
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _damaged(f"{name} row {number}", "a Parquet file", error) from error


def saved_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(folder row N, fields) of every row of a folder that ``Dataset.save_to_disk`` wrote.

    Raises:
        DataError: the folder is damaged.
    """
    from datasets import load_from_disk

    try:
        for number, fields in enumerate(load_from_disk(str(path), keep_in_memory=False)):
            yield f"{name} row {number}", fields
    except Exception as error:  # datasets raises whatever its readers raise
        raise _damaged(name, "a dataset as save_to_disk writes it", error) from error


def parquet_count(path: Path) -> int:
    """Rows of a Parquet file, as its footer says."""
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(path).num_rows)


def saved_count(path: Path) -> int:
    """Rows of a saved dataset."""
    from datasets import load_from_disk

    return len(load_from_disk(str(path), keep_in_memory=False))


def _damaged(where: str, expected: str, error: Exception) -> DataError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{where}: found unreadable data ({said}), expected {expected}; copy it again")
