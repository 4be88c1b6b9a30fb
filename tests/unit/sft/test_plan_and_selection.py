"""Which sequences make up each step, and which epoch becomes the model."""

from pathlib import Path

import pytest

from tasks.engine.errors import PlumblineError
from tasks.sft.plan import plan_batches
from tasks.sft.selection import pick_checkpoint, select_by_reward


def test_each_epoch_visits_every_demonstration_once_in_a_fresh_order() -> None:
    plan = plan_batches(70, epochs=3, batch_size=32, pretraining_fraction=0.0, seed=1)
    assert [len(batch.demonstrations) for batch in plan] == [32, 32, 6] * 3
    orders = [[i for batch in plan if batch.epoch == epoch for i in batch.demonstrations] for epoch in (1, 2, 3)]
    assert all(sorted(order) == list(range(70)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [batch.closes_epoch for batch in plan] == [False, False, True] * 3


@pytest.mark.point(13)
def test_pretraining_takes_a_tenth_of_the_slots() -> None:
    plan = plan_batches(10_000, epochs=1, batch_size=32, pretraining_fraction=0.1, seed=2)
    rows = sum(batch.pretraining_rows for batch in plan)
    slots = rows + 10_000
    assert abs(rows / slots - 0.1) < 0.01
    assert sorted(i for batch in plan for i in batch.demonstrations) == list(range(10_000))
    full = plan[:-1]
    assert all(len(batch.demonstrations) + batch.pretraining_rows == 32 for batch in full)
    assert len({batch.pretraining_rows for batch in full}) > 3  # drawn per slot, not dealt out evenly


def test_plan_follows_its_seed() -> None:
    plans = [plan_batches(50, epochs=2, batch_size=8, pretraining_fraction=0.5, seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.point(14)
def test_reward_decides_against_validation_loss() -> None:
    losses = {1: 0.8, 2: 1.1, 3: 1.6}
    rewards = {Path("1"): 0.2, Path("2"): 0.9, Path("3"): 0.7}
    chosen, scores = select_by_reward({epoch: Path(str(epoch)) for epoch in losses}, rewards.__getitem__)
    assert chosen == 2
    assert scores == {1: 0.2, 2: 0.9, 3: 0.7}
    assert pick_checkpoint({epoch: -loss for epoch, loss in losses.items()}) == 1


def test_earliest_of_equals_wins() -> None:
    assert pick_checkpoint({3: 1.0, 2: 1.0, 1: 0.5}) == 2


@pytest.mark.parametrize(
    ("scores", "message"), [({}, "no epoch was scored"), ({1: 0.3, 2: float("nan")}, "epoch 2 is NaN")]
)
def test_nothing_to_choose_from_is_refused(scores: dict[int, float], message: str) -> None:
    with pytest.raises(PlumblineError, match=message):
        pick_checkpoint(scores)
