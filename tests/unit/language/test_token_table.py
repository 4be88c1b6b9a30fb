"""Rows of token ids in little memory are the rows that went in."""

import random
import tracemalloc

import pytest
import torch

from tasks.language.models import ScalarModel
from tasks.language.token_table import TokenTable, of_lists
from tasks.records.rankings import RankedSequences, ranked_table, tokens_of
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.train import RewardLearner
from tasks.sft.config import SFTConfig
from tasks.sft.train import SFTLearner, demonstration_sequence
from tests.unit import tiny_models as tiny
from tests.unit.dpo.test_train import SMALL, comparisons
from tests.unit.dpo.test_train import learner as preference_learner


def test_what_is_read_is_what_was_put_in() -> None:
    rows = [[1, 2, 3], [], [2**31 - 1], [4, 4]]
    table = of_lists(iter(rows))
    assert (list(table), len(table), table[1:3], table[-1]) == (rows, 4, rows[1:3], [4, 4])
    assert all(type(row) is list for row in table)
    table[0].append(9)
    assert table[0] == [1, 2, 3]
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            table[beyond]
    assert list(of_lists([])) == [] and not of_lists([])


def test_elements_of_several_lists() -> None:
    elements = [
        RankedSequences([1, 2], [[3], [], [4, 5]], [2, 1, 2]),
        RankedSequences([], [[7], [8]], [1, 2]),
    ]
    assert list(ranked_table(elements)) == elements
    assert isinstance(ranked_table(elements)[0], RankedSequences)


def test_a_token_takes_four_bytes() -> None:
    draws = random.Random(1)

    def rows() -> list[list[int]]:
        return [[draws.randrange(1000, 50_000) for _ in range(100)] for _ in range(2000)]

    taken = []
    for keep in (of_lists, list):
        tracemalloc.start()
        kept = keep(row for row in rows()[:])  # type: ignore[operator]
        taken.append(tracemalloc.get_traced_memory()[0] / 200_000)
        tracemalloc.stop()
        assert len(kept) == 2000
    assert taken[0] < 5 and taken[1] > 30


def test_learners_keep_tables_of_what_they_encode() -> None:
    shown, ranked = tiny.demonstrations(5), comparisons()
    config = SFTConfig.model_validate(
        tiny.settings("sft", epochs=1, batch_size=4, prompt_tokens=12, response_tokens=10)
    )
    sft = SFTLearner(tiny.policy(), shown, [], tiny.tokenizer(), config, tiny.runtime(), valid=shown[:2])
    expected = [demonstration_sequence(item, tiny.tokenizer(), config) for item in shown]
    assert (list(sft.sequences), list(sft.valid)) == (expected, expected[:2])
    knobs = RewardModelConfig.model_validate(tiny.settings("reward_model", **SMALL))
    judge = ScalarModel.from_policy(tiny.policy(), torch.Generator())
    reward = RewardLearner(judge, ranked, tiny.tokenizer(), knobs, tiny.runtime())
    assert list(reward.elements) == [tokens_of(item, tiny.tokenizer(), knobs) for item in ranked]
    dpo = preference_learner()
    assert list(dpo.elements) == [tokens_of(item, tiny.tokenizer(), knobs) for item in ranked if item.ranks != [1, 1]]
    for kept in (sft.sequences, sft.valid, reward.elements, dpo.elements):
        assert isinstance(kept, TokenTable)
