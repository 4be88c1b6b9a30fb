"""What every source returns."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.language.chat_layout import Turn
from tasks.records.records import BenchmarkItem, Comparison, Demonstration, Document, Prompt
from tasks.sandbox.world import World


class ReadFrom(NamedTuple):
    """Where a record was read, and what its prompt was before the layout."""

    where: str
    """File and line."""
    turns: tuple[Turn, ...] = ()


class LeftOut(Exception):
    """A row that is in order but of no use; the argument is the rule of ``rules.py`` that leaves it out."""


@dataclass
class SourceRecords:
    """Records as read: checked one by one, not yet cleaned, split or measured. Layouts are applied."""

    demonstrations: list[Demonstration] = field(default_factory=list)
    comparison_prompts: list[Prompt] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    rl_prompts: list[Prompt] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    test_prompts: list[Prompt] = field(default_factory=list)
    benchmarks: list[BenchmarkItem] = field(default_factory=list)
    toxicity_prompts: list[Prompt] = field(default_factory=list)
    world: World | None = None
    notices: list[str] = field(default_factory=list)
    """What was left out, and why; shown in the audit."""
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    """Role -> rule -> rows that no record was made of."""
    first_left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    """(Role, rule) -> file and line of the first of them."""
    origins: dict[int, ReadFrom] = field(default_factory=dict)
    """``id`` of a prompt or document -> its origin; the lists above keep these objects alive."""

    def leave_out(self, role: str, rule: str, where: str, count: int = 1) -> None:
        """Count rows that no record was made of."""
        self.left_out.setdefault(role, Counter())[rule] += count
        self.first_left_out.setdefault((role, rule), where)

    def origin(self, record: Prompt | Demonstration | Comparison | Document) -> ReadFrom:
        """Where a record was read; no place for what was computed."""
        known = record.prompt if isinstance(record, Demonstration | Comparison) else record
        return self.origins.get(id(known), ReadFrom(""))
