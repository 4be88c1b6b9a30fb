import random

import pytest

from tasks.engine.errors import DataError
from tasks.language.batches import microbatches, pad_batch


def test_rows_are_prompt_then_response_then_padding() -> None:
    batch = pad_batch([[5], [6, 7, 8]], [[9, 2], [4, 2, 2]], pad_id=0)
    assert batch.input_ids.tolist() == [[5, 9, 2, 0, 0, 0], [6, 7, 8, 4, 2, 2]]
    assert batch.prompt_lengths.tolist() == [1, 3]
    assert batch.response_lengths.tolist() == [2, 3]
    assert batch.lengths.tolist() == [3, 6]
    assert batch.response_mask.tolist() == [[True, True, False], [True, True, True]]


def test_an_empty_response_is_allowed_and_an_empty_prompt_is_not() -> None:
    assert pad_batch([[5]], [[]], 0).response_mask.shape == (1, 0)
    with pytest.raises(DataError, match="row 1: the prompt has 0 tokens"):
        pad_batch([[5], []], [[1], [1]], 0)


def test_microbatches_cover_every_row_once_within_the_budget() -> None:
    lengths = [random.Random(0).randint(1, 50) for _ in range(200)]
    groups = microbatches(lengths, 300)
    assert sorted(row for group in groups for row in group) == list(range(200))
    assert all(len(group) * max(lengths[row] for row in group) <= 300 for group in groups)
    assert len(groups) <= 2 * sum(lengths) / 300


def test_a_row_longer_than_the_budget_stands_alone() -> None:
    assert microbatches([3, 400, 3], 100) == [[0, 2], [1]]
    assert microbatches([], 100) == []


def test_tokens_move_and_lengths_stay() -> None:
    moved = pad_batch([[1]], [[2]], 0).to("meta")
    assert [part.device.type for part in moved] == ["meta", "cpu", "cpu"]
    assert moved.response_mask.is_meta and moved.response_width == 1
