"""Comma-separated values, as spreadsheets and pandas write them: every cell is a text, an empty one is nothing."""

import csv
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.data_prep.sources.values import wrong
from tasks.engine.errors import DataError
from tasks.records.json_lines import open_bytes, unreadable

csv.field_size_limit(sys.maxsize)


def csv_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(file:line, fields) of every row; the line is the row's last.

    Raises:
        DataError: a row with more or fewer cells than there are columns, two columns of one name, no UTF-8.
    """
    line = 0
    try:
        with open_bytes(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            columns = next(reader, [])
            line = reader.line_num
            twice = next((column for column in columns if columns.count(column) > 1), None)
            if twice is not None:
                raise wrong(f"{name}:1", f"found two columns called '{twice}'", "one", "rename one of them")
            if len(columns) == 1 and any(sign in columns[0] for sign in ";\t|"):
                found = f"found one column called {columns[0]!r}"
                raise wrong(f"{name}:1", found, "columns with commas between them", "save the file with commas")
            for cells in reader:
                line = reader.line_num
                if not cells:
                    continue
                if len(cells) != len(columns):
                    found = f"found {len(cells)} cells"
                    raise wrong(
                        f"{name}:{line}", found, f"{len(columns)}, one for each column", "quote cells with commas"
                    )
                yield f"{name}:{line}", {column: cell or None for column, cell in zip(columns, cells, strict=True)}
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: found bytes that are not UTF-8 after line {max(1, line)} ({error.reason}), expected UTF-8; convert the file"
        ) from None
    except csv.Error as error:
        raise wrong(f"{name}:{line + 1}", f"found broken CSV ({error})", "quoted cells", "correct the line") from None
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, f"{name}:{max(1, line)}", error) from error
