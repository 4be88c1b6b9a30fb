"""The account of what was read, dropped and kept, and a second look at what was written."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tasks.data_prep.deduplicate import normalise
from tasks.data_prep.lengths import Measured
from tasks.data_prep.split import AnySplit
from tasks.engine.errors import DataError
from tasks.records.data import SPLITS, PreparedData
from tasks.records.records import Prompt


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
    prompt_tokens: list[int] = field(default_factory=list)
    response_tokens: list[int] = field(default_factory=list)

    def drop(self, rule: str, where: str, count: int = 1) -> None:
        """Count rows that a rule drops."""
        self.dropped[rule] += count
        if where:
            self.examples.setdefault(rule, where)

    def count_kept(self, prompts: list[Prompt], measured: list[Measured]) -> None:
        """Take the numbers of what is left."""
        self.kept = len(prompts)
        self.owners = len({prompt.owner_id for prompt in prompts})
        self.prompt_tokens = [item.prompt for item in measured]
        self.response_tokens = [length for item in measured for length in item.responses]

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
            "prompt_tokens": _spread(self.prompt_tokens),
            "response_tokens": _spread(self.response_tokens),
        }


def _spread(lengths: list[int]) -> dict[str, float] | None:
    if not lengths:
        return None
    return {"mean": round(fmean(lengths), 2), "median": float(median(lengths)), "max": float(max(lengths))}


def check_no_leaks(folder: Path) -> dict[str, int]:
    """Read the artifact back and compare every two splits over all roles; returns how much was compared.

    Within one split, roles may share prompts: a training prompt of SFT may be one of PPO.

    Raises:
        DataError: a prompt (case and white space aside) or an owner is in two splits.
    """
    data = PreparedData(folder)
    prompts: dict[AnySplit, dict[str, str]] = {"test": {}, "valid": {}, "train": {}}
    owners: dict[AnySplit, dict[str, str]] = {"test": {}, "valid": {}, "train": {}}

    def note(split: AnySplit, role: str, found: list[Prompt]) -> None:
        for prompt in found:
            prompts[split].setdefault(normalise(prompt.text), f"{role} {prompt.prompt_id}")
            owners[split].setdefault(prompt.owner_id, f"{role} {prompt.prompt_id}")

    for split in SPLITS:
        note(split, "demonstrations", [item.prompt for item in data.demonstrations(split)])
        note(split, "comparisons", [item.prompt for item in data.comparisons(split)])
        note(split, "comparison_prompts", data.comparison_prompts(split))
        note(split, "rl_prompts", data.rl_prompts(split))
    note("test", "test_prompts", data.prompts_for_test())
    for first, second in combinations(prompts, 2):
        for what, table in (("prompt", prompts), ("owner", owners)):
            for shared in sorted(table[first].keys() & table[second].keys()):
                raise DataError(
                    f"leak: the same {what} is in {first} ({table[first][shared]}) and in {second} "
                    f"({table[second][shared]}), "
                    "expected none in two splits; please report this, data preparation should have prevented it"
                )
    return {
        "prompts": sum(len(found) for found in prompts.values()),
        "owners": sum(len(found) for found in owners.values()),
    }
