"""Which owner belongs to which split.

One assignment serves all roles, so whoever wrote a validation demonstration wrote no training prompt for PPO either.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data_prep.config import DataPrepConfig
from tasks.records.records import Comparison, Demonstration, Prompt

AnySplit = Literal["train", "valid", "test"]
ANY_SPLITS: tuple[AnySplit, ...] = ("test", "valid", "train")
"""In order of precedence: where two prompts are duplicates, the one of the earlier split is kept."""
TEST, VALID, TRAIN = range(3)
Keys = NDArray[np.uint64]


class Shares(NamedTuple):
    """Share of the owners per held-out split; the rest train."""

    valid: float
    test: float

    @classmethod
    def of(cls, config: DataPrepConfig) -> "Shares":
        """As configured."""
        return cls(config.validation_fraction, config.test_fraction)


def owner_key(owner_id: str, seed: int) -> int:
    """8 bytes that stand for an owner, and that say where the owner lies among all: the same in every process, on every
    machine."""
    return int.from_bytes(hashlib.sha256(f"split {seed} {owner_id}".encode()).digest()[:8], "big")


def split_of(owners: Keys, shares: Shares, test_owners: Keys | None = None) -> NDArray[np.int8]:
    """Place in ``ANY_SPLITS`` of each owner: test for those of explicit test prompts, else by hash.

    Source: InstructGPT section 3.2 (splits by user ID); hash(owner, seed) is our choice.
    """
    where = (owners >> np.uint64(8)).astype(np.float64) / 2**56  # in [0, 1)
    held_out = np.where(where < shares.test, TEST, np.where(where < shares.test + shares.valid, VALID, TRAIN))
    if test_owners is not None:
        held_out[np.isin(owners, test_owners)] = TEST
    return held_out.astype(np.int8)


def split_owners(
    owners: Mapping[str, Keys], shares: Shares, test_owners: Keys | None = None
) -> dict[str, NDArray[np.int8]]:
    """The split of every row, given the owner of each row by role.

    In small data no owner of a role may happen to validate; then that training owner does whose hash comes first,
    if another one is left to train on.
    """
    lent: list[Any] = []

    def splits(role: Keys) -> NDArray[np.int8]:
        found = split_of(role, shares, test_owners)
        found[np.isin(role, np.array(lent, np.uint64))] = VALID
        return found

    for role in owners.values():
        found = splits(role)
        training = np.unique(role[found == TRAIN])
        if shares.valid > 0 and len(training) > 1 and not (found == VALID).any():
            lent.append(training[0])
    return {name: splits(role) for name, role in owners.items()}


def short_digest(text: str) -> str:
    """16 hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompt_of(record: Prompt | Demonstration | Comparison) -> Prompt:
    """The prompt in a record."""
    return record if isinstance(record, Prompt) else record.prompt
