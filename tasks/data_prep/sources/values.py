"""What a value is in words, and the sentence about a wrong one."""

from typing import Any

from tasks.engine.errors import DataError
from tasks.records.json_lines import Twice, escaped, text_problem

LARGEST = 2**31 - 1
"""Of a whole number: what the columns of the data artifact take."""
_KINDS = {
    dict: "an object",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    Twice: "given twice",
}


def wrong(where: str, found: str, expected: str, remedy: str) -> DataError:
    """A sentence about a row."""
    return DataError(f"{where}: {escaped(found)}, expected {expected}; {remedy}")


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "missing or null"
    if isinstance(value, list):
        messages = value and all(isinstance(item, dict) and {"role", "from"} & item.keys() for item in value)
        return f"a list of {len(value)}" + (" chat messages" if messages else "")
    return _KINDS.get(type(value), type(value).__name__)


def writable(where: str, name: str, text: str) -> str:
    """A text that UTF-8 can write and that every later reader takes.

    Raises:
        DataError: it holds half a character, or a NUL.
    """
    found = text_problem(text)
    if found is not None:
        raise wrong(where, f"'{name}' {found}", "text that UTF-8 can write", "correct the text or remove the row")
    return text


def whole(where: str, name: str, value: Any) -> int:
    """A whole number of a reasonable size; 2.0 is one.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        shown = value if isinstance(value, float) else kind_of(value)
        raise wrong(where, f"'{name}' holds {shown}", "a whole number", "correct the row")
    if abs(value) > LARGEST:
        raise wrong(where, f"'{name}' holds a number beyond {LARGEST}", "a whole number", "correct the row")
    return value
