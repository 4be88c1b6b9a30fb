"""Rows chosen by their fields, as ``data_prep.files.where`` asks: ``{license: [mit, cc0]}``."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.data_prep.sources.rows import Row
from tasks.engine.errors import DataError


class RowFilter:
    """Lets the rows pass whose fields hold one of the values asked for."""

    def __init__(self, where: Mapping[str, list[Any]]) -> None:
        self._where = where
        self._unknown = set(where)
        self._read = 0

    def of(self, rows: Iterable[Row], name: str, notices: list[str]) -> Iterator[Row]:
        """The rows of one file that pass; how many did not, and whether there was any, is noted."""
        read = passed = 0
        for row in rows:
            read += 1
            self._unknown -= row.fields.keys()
            if all(row.fields.get(field) in wanted for field, wanted in self._where.items()):
                passed += 1
                yield row
        self._read += read
        if not read:
            notices.append(f"{name}: it holds no rows")
        elif passed < read:
            asked = ", ".join(self._where)
            notices.append(f"{name}: {read - passed} of {read} rows left alone, data_prep.files.where asks for {asked}")

    def require_known_fields(self) -> None:
        """Refuse a field that no row has: a misspelled one would leave every row alone.

        Raises:
            DataError: its name.
        """
        for field in sorted(self._unknown if self._read else ()):
            raise DataError(
                f"data_prep.files.where: found no row with a field {field}, expected some; correct the name"
            )
