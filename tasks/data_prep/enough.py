"""Whether there is enough to go on with, and something to learn from it; if not, the rule that took most of it is named."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.data_prep.audit import AuditRow
from tasks.data_prep.clean import PROMPT_ROLES, Table
from tasks.data_prep.config import OPTIONAL, DataPrepConfig
from tasks.data_prep.facts import ORDERS, SAME_RESPONSE
from tasks.data_prep.rules import MOVED, sentence
from tasks.data_prep.shelf import Numbers, Shelf
from tasks.data_prep.split import AnySplit
from tasks.engine.errors import DataError
from tasks.records.rankings import no_signal

Rows = Mapping[tuple[str, str], AuditRow]
Documents = Mapping[AnySplit, Numbers]


class _Found(NamedTuple):
    """Rows of every role."""

    train: dict[str, int]
    valid: dict[str, int]
    test: int


def require_enough(config: DataPrepConfig, table: Table, documents: Documents, rows: Rows, shelf: Shelf) -> None:
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
                f"at least {wanted}; {_remedy(role, split, rows, have[role])}"
            )
    for role, count in found.valid.items():
        if found.train[role] and not count and config.validation_fraction > 0:
            raise DataError(
                f"data_prep: found no validation rows of {role} beside {found.train[role]} training rows, expected some; "
                f"raise data_prep.validation_fraction ({config.validation_fraction}), add data from more owners, or "
                "try another seed"
            )
    _require_signal(table, "train", shelf)
    _require_signal(table, "valid", shelf)


def require_documents(documents: Documents, rows: Rows, knobs: Sequence[str]) -> None:
    """Refuse data without pretraining documents when a later stage would train on them.

    Raises:
        DataError: the knobs that ask for documents.
    """
    if knobs and not len(documents["train"]):
        remedy = _taken("documents", "train", rows) or "give some (data_prep.files.documents)"
        raise no_documents("data_prep: found no pretraining documents", knobs, remedy)


def no_documents(found: str, knobs: Sequence[str], remedy: str) -> DataError:
    """What to say where later stages would train on documents and there are none."""
    reason = f"{' and '.join(knobs)} {'is' if len(knobs) == 1 else 'are'} above 0"
    unset = " ".join(f"{knob}=0" for knob in knobs)
    return DataError(f"{found}, expected some because {reason}; {remedy}, or set {unset}")


def _require_signal(table: Table, split: AnySplit, shelf: Shelf) -> None:
    signs = shelf.facts["signs"][table["comparisons", split]]
    if not len(signs) or (signs & ORDERS).any():
        return
    if split == "train":
        raise no_signal(len(signs), int((signs & SAME_RESPONSE > 0).sum()), "data_prep: training")
    raise DataError(
        f"data_prep: none of the {len(signs)} validation rankings orders two different responses (all are ties), "
        "expected some that do, to measure accuracy on; raise data_prep.validation_fraction or try another seed"
    )


def _count(config: DataPrepConfig, table: Table, documents: Documents) -> _Found:
    def of(split: AnySplit) -> dict[str, int]:
        counts = {role: len(table[role, split]) for role in PROMPT_ROLES} | {"documents": len(documents[split])}
        if config.source == "sandbox":
            counts["comparisons"] = counts["comparison_prompts"]
        return counts

    return _Found(of("train"), of("valid"), len(table["test_prompts", "test"]))


def _remedy(role: str, split: str, rows: Rows, have: int) -> str:
    took = _taken(role, split, rows)
    if not have and role != OPTIONAL:
        return took or "add data"
    return f"{took + ',' if took else 'add data'} or lower data_prep.minimum_rows.{role}"


def _taken(role: str, split: str, rows: Rows) -> str:
    """The rule that took most rows of a role, with its remedy; empty where no rule took any."""
    row = rows.get((role, split)) or AuditRow(role, split)
    rule = max((rule for rule in row.dropped if rule != MOVED), key=lambda rule: row.dropped[rule], default="")
    if not row.dropped[rule]:
        return ""
    return sentence(rule, row.dropped[rule], row.read, f"rows of {role}", row.examples.get(rule, ""))
