"""A JSON array of objects; a ``.json`` file that holds one object per line is read as such."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.data_prep.sources.values import kind_of, wrong
from tasks.records.json_lines import json_lines, open_bytes, parse_json, unreadable


def json_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(file[index], fields) of every element, or (file:line, fields).

    Raises:
        DataError: neither of the two.
    """
    try:
        with open_bytes(path) as stream:
            text = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, name, error) from error
    begins = text.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not begins.startswith(b"[") and begins.partition(b"\n")[0].rstrip()[-1:] in (b"}", b""):
        yield from json_lines(path, name)
        return
    rows = parse_json(text, name)
    if not isinstance(rows, list):
        raise wrong(name, f"found {kind_of(rows)}", "a JSON array of objects", "write the rows in brackets")
    for place, fields in enumerate(rows):
        yield f"{name}[{place}]", fields
