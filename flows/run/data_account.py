"""What happened to the data, on the terminal: what was read and kept of every role, and which rule took the rest."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.terminal import console
from tasks.data_prep.rules import MOVED, WORTH_A_LINE, WORTH_A_WARNING, sentence

REASONS = 2
"""How many rules the table names for a role."""


@dataclass
class RoleAccount:
    """One role, all splits together; prompts that became test prompts count as kept."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Rows that no split has."""
        return self.dropped.total()


def accounts(rows: Iterable[Mapping[str, Any]]) -> dict[str, RoleAccount]:
    """Role -> account, from the rows of ``audit.json``; roles that the data lacks are left out."""
    found: dict[str, RoleAccount] = {}
    for row in rows:
        account = found.setdefault(row["role"], RoleAccount())
        account.read += row["read"]
        account.dropped.update({rule: count for rule, count in row["dropped"].items() if rule != MOVED})
        for rule, place in row.get("examples", {}).items():
            account.examples.setdefault(rule, place)
    return {role: account for role, account in found.items() if account.read}


def account_table(found: Mapping[str, RoleAccount]) -> Table:
    """Role, read, kept, and the largest reasons."""
    table = Table(title="What happened to the data", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("role")
    for heading in ("read", "kept"):
        table.add_column(heading, justify="right")
    table.add_column("left out by")
    for cells in _cells(found):
        table.add_row(*cells)
    return table


def account_rows(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Role, read, kept and the largest reasons, from the rows of ``audit.json``."""
    return _cells(accounts(rows))


def _cells(found: Mapping[str, RoleAccount]) -> list[tuple[str, str, str, str]]:
    cells = []
    for role, account in found.items():
        reasons = ", ".join(f"{rule} {count:,}" for rule, count in account.dropped.most_common(REASONS) if count)
        cells.append((role, f"{account.read:,}", f"{account.read - account.lost:,}", reasons))
    return cells


def remarks(found: Mapping[str, RoleAccount], notices: Iterable[str]) -> list[str]:
    """One line for every rule that took more than a few per cent of a role, a warning where much is gone, the notices."""
    lines = []
    for role, account in found.items():
        if account.lost > WORTH_A_WARNING * account.read:
            lines.append(
                f"warning: {account.lost / account.read:.0%} of {role} are gone, {account.lost:,} of {account.read:,} rows"
            )
        for rule, count in account.dropped.most_common():
            if count > WORTH_A_LINE * account.read:
                lines.append(sentence(rule, count, account.read, role, account.examples.get(rule, "")))
    return lines + list(notices)


def say_what_happened(data: Path) -> None:
    """Print the account of a data artifact: all of one's own data, and of the embedded world what nobody expects."""
    if not logging.getLogger("plumbline").isEnabledFor(
        logging.INFO
    ):  # a point of a sweep, whose table says what it did
        return
    audit = json.loads((data / "audit.json").read_text(encoding="utf-8"))
    found, screen = accounts(audit["rows"]), console()
    if audit["source"] != "sandbox":
        screen.print(account_table(found))
    for line in remarks(found, audit["notices"]):
        screen.print(line, soft_wrap=True, highlight=False)
