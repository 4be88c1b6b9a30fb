"""Whether there is enough to go on with, and something to learn from it; if not, the rule that took most of it is named."""

from collections.abc import Mapping
from typing import NamedTuple

from tasks.data_prep.audit import AuditRow
from tasks.data_prep.clean import PROMPT_ROLES, Table
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.rules import MOVED, sentence
from tasks.data_prep.split import AnySplit
from tasks.engine.errors import DataError
from tasks.records.rankings import orders_something
from tasks.records.records import Comparison, Document

Rows = Mapping[tuple[str, str], AuditRow]


class _Found(NamedTuple):
    """Rows of every role."""

    train: dict[str, int]
    valid: dict[str, int]
    test: int


def require_enough(
    config: DataPrepConfig, table: Table, documents: Mapping[AnySplit, list[Document]], rows: Rows
) -> None:
    """Refuse roles with too few rows, without validation rows, or without a ranking that orders anything.

    Raises:
        DataError: what was found, and what can be done about it.
    """
    found = _count(config, table, documents)
    have = found.train | {"test_prompts": found.test}
    for role, wanted in config.minimum_rows.model_dump().items():
        if have[role] < wanted:
            split = "test" if role == "test_prompts" else "train"
            raise DataError(
                f"data_prep: found {have[role]} rows of {role} in the {split} split after cleaning, expected "
                f"at least {wanted}; {_remedy(role, split, rows)}"
            )
    for role, count in found.valid.items():
        if found.train[role] and not count and config.validation_fraction > 0:
            raise DataError(
                f"data_prep: found no validation rows of {role} beside {found.train[role]} training rows, expected some; "
                f"raise data_prep.validation_fraction ({config.validation_fraction}), add data from more owners, or "
                "try another seed"
            )
    _require_signal(table, "train")
    _require_signal(table, "valid")


def _require_signal(table: Table, split: AnySplit) -> None:
    rankings = [record for record in table["comparisons", split] if isinstance(record, Comparison)]
    if not rankings or any(orders_something(ranking) for ranking in rankings):
        return
    part = "training" if split == "train" else "validation"
    raise DataError(
        f"data_prep: none of the {len(rankings)} {part} rankings of comparisons orders two different responses, "
        f"expected some that do; found {len(rankings)} ties: "
        + (
            "a reward model cannot learn from them, so give comparisons with a better and a worse response"
            if split == "train"
            else "no accuracy can be measured on them, so raise data_prep.validation_fraction or try another seed"
        )
    )


def _count(config: DataPrepConfig, table: Table, documents: Mapping[AnySplit, list[Document]]) -> _Found:
    def of(split: AnySplit) -> dict[str, int]:
        counts = {role: len(table[role, split]) for role in PROMPT_ROLES} | {"documents": len(documents[split])}
        if config.source == "sandbox":
            counts["comparisons"] = counts["comparison_prompts"]
        return counts

    return _Found(of("train"), of("valid"), len(table["test_prompts", "test"]))


def _remedy(role: str, split: str, rows: Rows) -> str:
    """What to do about missing rows: undo the rule that took most of them, or add data where no rule did."""
    row = rows.get((role, split)) or AuditRow(role, split)
    rule, count = max(
        ((rule, row.dropped[rule]) for rule in row.dropped if rule != MOVED), key=lambda it: it[1], default=("", 0)
    )
    lower = f"or lower data_prep.minimum_rows.{role}"
    if not count:
        return f"add data {lower}"
    return f"{sentence(rule, count, row.read, f'rows of {role}', row.examples.get(rule, ''))}, {lower}"
