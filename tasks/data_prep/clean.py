"""Cleaning and splitting, in the order of InstructGPT appendix A.2: personal data, duplicates, cap per owner.

The split is known first, because it depends on the owner alone; it decides which rows the rules see. Test is
cleaned before validation and validation before training, so that of two duplicates the held-out one stays.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tasks.data_prep.audit import AuditRow
from tasks.data_prep.cap import within_cap
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.deduplicate import PrefixIndex
from tasks.data_prep.facts import SAME_RESPONSE
from tasks.data_prep.pii import RULES
from tasks.data_prep.rules import MOVED
from tasks.data_prep.shelf import Numbers, Shelf
from tasks.data_prep.split import ANY_SPLITS, VALID, AnySplit, Shares, split_owners

PROMPT_ROLES = ("rl_prompts", "comparisons", "comparison_prompts", "demonstrations")
"""Roles with prompts, in the order in which their test owners' prompts follow the explicit test prompts."""

Table = dict[tuple[str, AnySplit], Numbers]
"""(role, split) -> rows."""


class Cleaner:
    """Cleans the rows on a shelf; ``rows`` and ``pii`` tell what was dropped."""

    def __init__(self, config: DataPrepConfig, shelf: Shelf) -> None:
        self._config, self._shelf = config, shelf
        self.rows: dict[tuple[str, str], AuditRow] = {}
        self.pii: Counter[str] = Counter()
        self._known = shelf.known()
        self._held_out = PrefixIndex(self._known)

    def clean(self) -> Table:
        """(role, split) -> the rows that stay, in the order in which they were read."""
        table = self._assign()
        for role in PROMPT_ROLES:
            # No stage tunes on a test owner's rows; their prompts are good for testing.
            moved = table.pop((role, "test"))
            self.rows[role, "test"].drop(MOVED, "", len(moved))
            table["test_prompts", "test"] = np.append(table["test_prompts", "test"], moved)
            self.rows["test_prompts", "test"].read += len(moved)
        for split in ANY_SPLITS:
            roles = [role for role, where in table if where == split]
            for role in roles:
                table[role, split] = self._clean_rows(role, split, table[role, split])
            if split != "train":
                for role in roles:
                    for number in table[role, split].tolist():
                        self._held_out.add(number)
        self._name_several_labelers(table)
        return table

    def split_documents(self) -> dict[AnySplit, Numbers]:
        """Pretraining texts by hash of the text: repetitions stay together, and nothing is dropped."""
        documents = self._shelf.numbers("documents")
        shares = Shares(valid=self._config.validation_fraction, test=0.0)
        held_out = split_owners({"documents": self._shelf.facts["owner"][documents]}, shares)["documents"] == VALID
        found: dict[AnySplit, Numbers] = {"train": documents[~held_out], "valid": documents[held_out]}
        for split, rows in found.items():
            self.rows["documents", split] = AuditRow("documents", split, read=len(rows), kept=len(rows))
        return found

    def count_left_out(self) -> None:
        """Count the rows that no record was made of among those of training, or of test for test prompts."""
        rest = self._shelf.rest
        for role, rules in rest.left_out.items():
            if role == "toxicity_prompts":  # shown as they are, and neither split nor cleaned
                rest.notices += [f"{role}: {count} rows left out by {rule}" for rule, count in rules.items()]
                continue
            row = self.rows[role, "test" if role == "test_prompts" else "train"]
            for rule, count in rules.items():
                row.read += count
                row.drop(rule, rest.first_left_out[role, rule], count)

    def _name_several_labelers(self, table: Table) -> None:
        """Note the prompts whose responses several people ranked, each by name: these rankings repeat nothing."""
        facts = self._shelf.facts[np.concatenate([rows for (role, _), rows in table.items() if role == "comparisons"])]
        named = facts[facts["labeler"] > 0]
        judged = named[_shared(named["ballot"], named["labeler"])]
        if len(judged):
            self._shelf.rest.notices.append(
                f"comparisons: {len(np.unique(judged['asked']))} prompts were ranked by several labelers: {len(judged)} "
                "rankings of the same responses, none of which repeats another"
            )

    def drop(self, role: str, split: str, rule: str, numbers: Numbers, goes: NDArray[np.bool_]) -> Numbers:
        """Count the rows that a rule drops; returns the others."""
        if goes.any():
            self.rows[role, split].drop(rule, self._shelf.where(numbers[goes][0]), int(goes.sum()))
        return numbers[~goes]

    def _assign(self) -> Table:
        owner = self._shelf.facts["owner"]
        given = self._shelf.numbers("test_prompts")
        table: Table = {("test_prompts", "test"): given}
        self.rows["test_prompts", "test"] = AuditRow("test_prompts", "test", read=len(given))
        numbers = {role: self._shelf.numbers(role) for role in PROMPT_ROLES}
        owners = {role: owner[found] for role, found in numbers.items()}
        splits = split_owners(owners, Shares.of(self._config), owner[given])
        for role, found in numbers.items():
            for place, split in enumerate(ANY_SPLITS):
                table[role, split] = found[splits[role] == place]
                self.rows[role, split] = AuditRow(role, split, read=len(table[role, split]))
        return table

    def _clean_rows(self, role: str, split: AnySplit, numbers: Numbers) -> Numbers:
        facts = self._shelf.facts
        if split == "train" and self._config.drop_pii:
            found = facts["pii"][numbers]
            counts = {rule: int((found >> place & 1).sum()) for place, rule in enumerate(RULES)}
            self.pii.update({rule: count for rule, count in counts.items() if count})
            numbers = self.drop(role, split, "pii", numbers, found > 0)
        if role == "comparisons":
            # A ranking that puts a text before itself: no model can learn it, and every model would be wrong about it.
            numbers = self.drop(role, split, "same_response", numbers, facts["signs"][numbers] & SAME_RESPONSE > 0)
        numbers = self._unique(role, split, numbers)
        stays = within_cap(
            facts["owner"][numbers],
            facts["text"][numbers],
            self._config.max_prompts_per_owner,
            self._config.seed,
            lambda place: self._shelf.owner(numbers[place]),
        )
        return self.drop(role, split, "owner_cap", numbers, ~stays)

    def _unique(self, role: str, split: AnySplit, numbers: Numbers) -> Numbers:
        """One prompt is one row, except for rankings: several labelers may rank several sets of responses to it.

        Where unnamed rankings of the same responses contradict each other, they are votes of several people: all stay.
        """
        facts, index = self._shelf.facts[numbers], PrefixIndex(self._known)
        several = role == "comparisons"
        asked, asked_count = _numbered(facts["asked"])
        said, said_count = _numbered(facts["same"]) if several else (asked, asked_count)
        seen, kept_prompts = np.zeros(said_count, np.bool_), np.zeros(asked_count, np.bool_)
        unnamed = facts["labeler"] == 0
        votes = unnamed & _shared(np.where(unnamed, facts["ballot"], 0), facts["order"]) & several
        why = np.zeros(len(numbers), np.int8)
        for place, number in enumerate(numbers.tolist()):
            if number in self._held_out:
                why[place] = 1
            elif seen[said[place]] and not votes[place]:
                why[place] = 2
            elif (several and kept_prompts[asked[place]]) or index.add(number):
                seen[said[place]] = kept_prompts[asked[place]] = True
            else:
                why[place] = 3
        rules = {1: "in_held_out_split", 2: "duplicate", 3: "duplicate_prefix"}
        for reason in dict.fromkeys(why[why > 0].tolist()):  # in the order of their first rows
            self.drop(role, split, rules[reason], numbers, why == reason)
        kept: Numbers = numbers[why == 0]
        return kept


def _numbered(digests: NDArray[np.uint64]) -> tuple[NDArray[np.int64], int]:
    """Each digest as a number from 0, and how many there are."""
    distinct, numbers = np.unique(digests, return_inverse=True)
    return numbers, len(distinct)


def _shared(firsts: NDArray[np.uint64], seconds: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each row has its first in common with a row that has another second."""
    both = np.unique(np.stack([firsts, seconds], axis=1), axis=0)[:, 0]
    first, count = np.unique(both, return_counts=True)
    return np.isin(firsts, first[count > 1])
