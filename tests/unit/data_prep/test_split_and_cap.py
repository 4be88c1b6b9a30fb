import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from tasks.data_prep import cap, split
from tasks.data_prep.deduplicate import digest
from tasks.data_prep.split import ANY_SPLITS, AnySplit, Keys, Shares, owner_key
from tasks.records.records import Prompt

SHARES = Shares(valid=0.2, test=0.1)


def keys(owners: Iterable[str], seed: int) -> Keys:
    return np.array([owner_key(owner, seed) for owner in owners], np.uint64)


def split_of(owner: str, shares: Shares, seed: int, test_owners: Iterable[str] = ()) -> AnySplit:
    return ANY_SPLITS[split.split_of(keys([owner], seed), shares, keys(test_owners, seed))[0]]


def split_owners(owners: dict[str, list[str]], shares: Shares, seed: int) -> dict[str, AnySplit]:
    found = split.split_owners({role: keys(names, seed) for role, names in owners.items()}, shares)
    return {
        name: ANY_SPLITS[place]
        for role, names in owners.items()
        for name, place in zip(names, found[role], strict=True)
    }


def within_cap(given: list[Prompt], limit: int, seed: int) -> list[bool]:
    owners = keys([prompt.owner_id for prompt in given], seed)
    texts = np.array([digest(prompt.text) for prompt in given], np.uint64)
    return list(map(bool, cap.within_cap(owners, texts, limit, seed, lambda place: given[place].owner_id)))


OWNERS = [f"owner {i}" for i in range(5000)]


def prompts(counts: dict[str, int]) -> list[Prompt]:
    return [
        Prompt(prompt_id=f"{owner}-{i}", owner_id=owner, text=f"{owner} asks {i}")
        for owner, count in counts.items()
        for i in range(count)
    ]


def test_shares_of_owners() -> None:
    counts = Counter(split_of(owner, SHARES, seed=1) for owner in OWNERS)
    # Binomial standard deviation is at most 33 owners: 5 of them.
    assert counts["valid"] == pytest.approx(1000, abs=150)
    assert counts["test"] == pytest.approx(500, abs=110)


def test_split_depends_on_owner_and_seed_alone() -> None:
    first = [split_of(owner, SHARES, 1) for owner in OWNERS]
    assert [split_of(owner, SHARES, 1) for owner in OWNERS] == first
    assert [split_of(owner, SHARES, 2) for owner in OWNERS] != first


@pytest.mark.point(1)
def test_split_is_the_same_in_another_process() -> None:
    code = "from tests.unit.data_prep.test_split_and_cap import *; print([split_of(o, SHARES, 1) for o in OWNERS[:50]])"
    environment = os.environ | {"PYTHONHASHSEED": "99"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str([split_of(owner, SHARES, 1) for owner in OWNERS[:50]])


def test_small_roles_get_a_validation_owner_and_keep_a_training_owner() -> None:
    for seed in range(5):
        splits = split_owners({"few": ["a", "b"], "one": ["c"], "many": OWNERS}, Shares(valid=0.01, test=0.0), seed)
        assert sorted(splits[owner] for owner in "ab") == ["train", "valid"]
        assert splits == split_owners({"few": ["b", "a"], "one": ["c"], "many": OWNERS}, Shares(0.01, 0.0), seed)
        assert [splits[owner] for owner in OWNERS] == [split_of(owner, Shares(0.01, 0.0), seed) for owner in OWNERS]
    lent = set()
    for seed in range(20):
        splits = split_owners({"few": ["a", "b"]}, Shares(valid=1e-9, test=0.0), seed)
        lent |= {owner for owner in splits if splits[owner] == "valid"}
    assert lent == {"a", "b"}  # the seed decides
    assert set(split_owners({"few": ["a", "b"]}, Shares(valid=0.0, test=0.0), 1).values()) == {"train"}
    assert split_owners({"one": ["c"]}, Shares(valid=1e-9, test=0.0), 1) == {"c": "train"}


def test_owners_of_explicit_test_prompts_are_test_owners() -> None:
    assert {split_of(owner, SHARES, 1, test_owners=OWNERS[:100]) for owner in OWNERS[:100]} == {"test"}


@pytest.mark.point(2)
def test_a_busy_owner_keeps_200_distinct_prompts_and_others_keep_all() -> None:
    given = prompts({"busy": 500, "just over": 201, "calm": 200})
    kept = [prompt for prompt, stays in zip(given, within_cap(given, 200, seed=1), strict=True) if stays]
    assert Counter(prompt.owner_id for prompt in kept) == {"busy": 200, "just over": 200, "calm": 200}
    assert len({(prompt.owner_id, prompt.text) for prompt in kept}) == 600


def test_the_choice_follows_the_seed_and_not_the_other_owners() -> None:
    given = prompts({"busy": 50})
    first = within_cap(given, 10, seed=1)
    assert within_cap(given, 10, seed=1) == first
    assert within_cap(given, 10, seed=2) != first
    assert within_cap(prompts({"other": 30}) + given, 10, seed=1)[30:] == first
    assert first[:10] != [True] * 10  # a sample, not the first ones


def test_rankings_of_one_prompt_count_once() -> None:
    given = [prompt for prompt in prompts({"busy": 4}) for _ in range(3)]
    stays = within_cap(given, 2, seed=1)
    assert sum(stays) == 6
    assert all(len(set(stays[i : i + 3])) == 1 for i in range(0, 12, 3))
