"""The terminal that every command prints to."""

from typing import IO

from rich.console import Console

WIDTH = 120
"""Columns where there is no terminal: a file, a pipe, a log."""


def console(file: IO[str] | None = None) -> Console:
    """As wide as the terminal, or ``WIDTH`` without one. What it prints is text of data, models and paths as it stands:
    ``[dpo]`` is no style and ``:ok:`` no picture."""
    found = Console(file=file, markup=False, emoji=False)
    return found if found.is_terminal else Console(file=file, width=WIDTH, markup=False, emoji=False)
