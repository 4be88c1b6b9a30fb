"""JSON from elsewhere: the one place that reads it, and that adds file and line to whatever is wrong with it."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from tasks.engine.errors import DataError, PlumblineError

GZIP = b"\x1f\x8b"
SHOWN = 60
"""Characters of a wrong value that a sentence shows."""


class Twice:
    """The value of a field that an object names more than once: an objection for whoever reads it, and for nobody else."""


def json_lines(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(file:line, parsed JSON) of every line that is not blank; the file may be gzipped.

    Raises:
        DataError: broken JSON, text that is not UTF-8, a damaged gzip file.
    """
    number = 0
    try:
        with open_bytes(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{name}:{number}", parse_json(line.rstrip(b"\r\n"), f"{name}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, f"{name}:{number + 1}", error) from error


def parse_json(text: bytes, where: str) -> Any:
    """The value that a text holds; a byte order mark does not matter.

    Raises:
        DataError: no JSON, no UTF-8, or more than a parser takes.
    """
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: found bytes that are not UTF-8 ({error.reason}), expected UTF-8; convert the file"
        ) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataError(f"{where}: found broken JSON ({place}: {error.msg}), expected JSON; correct the line") from None
    except RecursionError:
        raise DataError(
            f"{where}: found JSON that is nested too deeply, expected fewer levels; correct the line"
        ) from None
    except ValueError:  # Python reads no integer of more than 4300 digits
        raise DataError(
            f"{where}: found a number with thousands of digits, expected a number; correct the line"
        ) from None


@contextmanager
def at(where: str) -> Iterator[None]:
    """Whatever goes wrong inside is wrong with the row at ``where``.

    Raises:
        DataError: with file and line.
    """
    try:
        yield
    except PlumblineError:
        raise
    except ValidationError as error:
        raise DataError(f"{where}: {problem(error)}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{where}: found a value that cannot be used ({escaped(said)}), expected what the format page describes; "
            "correct the row"
        ) from error


def problem(error: ValidationError) -> str:
    """The first thing pydantic objects to, as a sentence."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in first["loc"])
    if not place:
        return escaped(message)
    found = "" if first["type"] == "missing" else f", found {repr(first['input'])[:SHOWN]}"
    return escaped(f"'{place}': {message}{found}")


def text_problem(text: str) -> str | None:
    """Why a text cannot be written, shown or tokenized; None when it can."""
    half = next((character for character in text if "\ud800" <= character <= "\udfff"), None) if _halved(text) else None
    if half is not None:
        return f"holds half of a surrogate pair (\\u{ord(half):04x})"
    return "holds a NUL character (\\u0000)" if "\0" in text else None


def escaped(text: str) -> str:
    """A text that can be printed, whatever it holds."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\u0000")


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, plain or gzipped, whatever its name."""
    with path.open("rb") as stream:
        packed = stream.read(2) == GZIP
    return gzip.open(path, "rb") if packed or path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def unreadable(path: Path, where: str, error: Exception) -> DataError:
    """A file that the operating system or gzip refuses."""
    expected = "a complete gzip file" if path.suffix == ".gz" else "a readable file"
    remedy = "copy the file again" if path.exists() else "restore what the link points to, or remove the link"
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{where}: found unreadable data ({said}), expected {expected}; {remedy}")


def _halved(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        fields |= {name: Twice() for name in fields if names.count(name) > 1}
    return fields
