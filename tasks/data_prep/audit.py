"""The account of what was read, dropped and kept, and a second look at what was written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data_prep.deduplicate import digest, normalise
from tasks.data_prep.split import Keys
from tasks.engine.errors import DataError
from tasks.records.data import PreparedData, tables_in

Lengths = NDArray[np.int32]


@dataclass
class AuditRow:
    """One role in one split."""

    role: str
    split: str
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """Rule -> file and line of the first row that it dropped; none where nothing was read from files."""
    kept: int = 0
    owners: int = 0
    prompt_tokens: dict[str, float] | None = None
    response_tokens: dict[str, float] | None = None

    def drop(self, rule: str, where: str, count: int = 1) -> None:
        """Count rows that a rule drops."""
        self.dropped[rule] += count
        if where:
            self.examples.setdefault(rule, where)

    def count_kept(self, owners: Keys, prompt_tokens: Lengths, response_tokens: Lengths) -> None:
        """Take the numbers of what is left: of each row its owner and tokens, and the tokens of each response."""
        self.kept = len(owners)
        self.owners = len(np.unique(owners))
        self.prompt_tokens, self.response_tokens = _spread(prompt_tokens), _spread(response_tokens)

    def to_json(self) -> dict[str, Any]:
        """As it stands in audit.json."""
        examples = {"examples": dict(sorted(self.examples.items()))} if self.examples else {}
        return {
            "role": self.role,
            "split": self.split,
            "read": self.read,
            "dropped": {rule: count for rule, count in sorted(self.dropped.items()) if count},
            **examples,
            "kept": self.kept,
            "owners": self.owners,
            "prompt_tokens": self.prompt_tokens,
            "response_tokens": self.response_tokens,
        }


def _spread(lengths: Lengths) -> dict[str, float] | None:
    if not len(lengths):
        return None
    mean = int(lengths.sum(dtype=np.int64)) / len(lengths)
    return {"mean": round(mean, 2), "median": float(np.median(lengths)), "max": float(lengths.max())}


def check_no_leaks(folder: Path) -> dict[str, int]:
    """Read the artifact back and compare every two splits over all roles; returns how much was compared.

    Within one split, roles may share prompts: a training prompt of SFT may be one of PPO.

    Raises:
        DataError: a prompt (case and white space aside) or an owner is in two splits.
    """
    found = {split: _seen_in(folder, split) for split in ("test", "valid", "train")}
    for first, second in combinations(found, 2):
        for what, ours, theirs in zip(("prompt", "owner"), found[first], found[second], strict=True):
            shared = np.intersect1d(ours, theirs)
            if len(shared):
                one, other = (_first_with(folder, split, what, shared) for split in (first, second))
                text = min(one)
                raise DataError(
                    f"leak: the same {what} is in {first} ({one[text]}) and in {second} ({other[text]}), "
                    "expected none in two splits; please report this, data preparation should have prevented it"
                )
    return {
        "prompts": sum(len(seen.prompts) for seen in found.values()),
        "owners": sum(len(seen.owners) for seen in found.values()),
    }


class _Seen(NamedTuple):
    """Digests in one split, each once."""

    prompts: Keys
    owners: Keys


def _seen_in(folder: Path, split: str) -> _Seen:
    prompts, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for _, rows in _prompts_in(folder, split):
        prompts.append(np.array([digest(normalise(row["text"])) for row in rows], np.uint64))
        owners.append(np.array([digest(row["owner_id"]) for row in rows], np.uint64))
    return _Seen(np.unique(np.concatenate(prompts)), np.unique(np.concatenate(owners)))


def _first_with(folder: Path, split: str, what: str, shared: Keys) -> dict[str, str]:
    """Shared text -> role and id of the first prompt that has it."""
    wanted, found = set(shared.tolist()), dict[str, str]()
    for role, rows in _prompts_in(folder, split):
        for row in rows:
            text = normalise(row["text"]) if what == "prompt" else row["owner_id"]
            if digest(text) in wanted:
                found.setdefault(text, f"{role} {row['prompt_id']}")
    return found


def _prompts_in(folder: Path, split: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(role, prompts) of a split, some at a time."""
    roles = (
        ("test_prompts",) if split == "test" else ("demonstrations", "comparisons", "comparison_prompts", "rl_prompts")
    )
    for role in roles:
        for table in tables_in(PreparedData(folder).file(role, split)):
            yield role, table.select(["text", "owner_id", "prompt_id"]).to_pylist()
