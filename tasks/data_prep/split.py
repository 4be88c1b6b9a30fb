"""Which owner belongs to which split.

One assignment serves all roles, so whoever wrote a validation demonstration wrote no training prompt for PPO either.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from tasks.data_prep.config import DataPrepConfig
from tasks.records.records import Comparison, Demonstration, Prompt

AnySplit = Literal["train", "valid", "test"]
ANY_SPLITS: tuple[AnySplit, ...] = ("test", "valid", "train")
"""In order of precedence: where two prompts are duplicates, the one of the earlier split is kept."""


class Shares(NamedTuple):
    """Share of the owners per held-out split; the rest train."""

    valid: float
    test: float

    @classmethod
    def of(cls, config: DataPrepConfig) -> "Shares":
        """As configured."""
        return cls(config.validation_fraction, config.test_fraction)


def split_of(owner_id: str, shares: Shares, seed: int, test_owners: Collection[str] = ()) -> AnySplit:
    """The split of an owner: test for those of explicit test prompts, else by hash.

    Source: InstructGPT section 3.2 (splits by user ID); hash(owner, seed) is our choice.
    """
    if owner_id in test_owners:
        return "test"
    place = _place(owner_id, seed)
    if place < shares.test:
        return "test"
    return "valid" if place < shares.test + shares.valid else "train"


def split_owners(
    owners: Mapping[str, Collection[str]], shares: Shares, seed: int, test_owners: Collection[str] = ()
) -> dict[str, AnySplit]:
    """The split of every owner, given the owners of each role.

    In small data no owner of a role may happen to validate; then that training owner does whose hash comes first,
    if another one is left to train on.
    """
    splits = {
        owner: split_of(owner, shares, seed, test_owners) for role in owners.values() for owner in dict.fromkeys(role)
    }
    for role in owners.values():
        training = sorted({owner for owner in role if splits[owner] == "train"}, key=lambda owner: _place(owner, seed))
        if shares.valid > 0 and len(training) > 1 and not any(splits[owner] == "valid" for owner in role):
            splits[training[0]] = "valid"
    return splits


def _place(owner_id: str, seed: int) -> float:
    return unit_interval(f"split {seed} {owner_id}")


def unit_interval(key: str) -> float:
    """A number in [0, 1) that depends on the text alone, in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56


def short_digest(text: str) -> str:
    """16 hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompt_of(record: Prompt | Demonstration | Comparison) -> Prompt:
    """The prompt in a record."""
    return record if isinstance(record, Prompt) else record.prompt
