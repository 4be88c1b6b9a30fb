"""What each road took: the sum of the stages that only it needs."""

from pathlib import Path
from typing import Any

import pytest

from flows.config import load
from flows.run.costs import SAMPLES, cost_table, road_cost, road_costs, stages_of_roads
from tasks.engine.artifacts import ArtifactStore

DRAWN = {"cost/samples": 32.0, "cost/tokens_drawn": 400.0, "cost/seconds": 2.0, "cost/peak_mib": 900.0}
LEARNED = {"cost/tokens_learned": 1234.0, "cost/seconds": 0.5, "cost/peak_mib": 700.0}


def test_a_road_of_two_stages_adds_up_and_takes_the_larger_memory() -> None:
    cost = road_cost("rejection_sampling", {SAMPLES: DRAWN, "rejection_sampling": LEARNED})
    assert cost.cells == ("Rejection sampling", "32", "400", "1,234", "2.5", "900")


def test_what_was_not_counted_is_empty_and_a_sum_that_lacks_a_stage_is_none() -> None:
    assert road_cost("dpo", {"dpo": LEARNED}).cells == ("DPO", "", "", "1,234", "0.5", "700")
    of_old = {name: value for name, value in LEARNED.items() if name != "cost/seconds"}
    assert road_cost("rejection_sampling", {SAMPLES: DRAWN, "rejection_sampling": of_old}).seconds is None


@pytest.mark.parametrize(
    ("asked", "roads"),
    [
        (["rivals=[]"], {"ppo_ptx": ["ppo_ptx"]}),
        (["train_dpo=true"], {"ppo_ptx": ["ppo_ptx"], "dpo": ["dpo"]}),
        (
            ["rivals=[rejection_sampling,grpo]"],
            {
                "ppo_ptx": ["ppo_ptx"],
                "grpo": ["grpo"],
                "rejection_sampling": [SAMPLES, "rejection_sampling"],
                "random_control": [SAMPLES, "random_control"],
            },
        ),
        (
            ["ppo_starts_from=rejection_sampling"],
            {
                "ppo_ptx": [SAMPLES, "rejection_sampling", "ppo_ptx"],
                "rejection_sampling": [SAMPLES, "rejection_sampling"],
            },
        ),
    ],
)
def test_each_road_has_its_own_stages(asked: list[str], roads: dict[str, Any]) -> None:
    assert stages_of_roads(load(asked)) == roads


def test_the_terminal_shows_a_dash_where_nothing_was_counted() -> None:
    table = cost_table([road_cost("dpo", {"dpo": LEARNED}).cells])
    assert [next(iter(column.cells)) for column in table.columns] == ["DPO", "-", "-", "1,234", "0.5", "700"]


def test_of_several_rounds_each_counts_once_and_a_rival_trains_in_the_last(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    made = {}
    for stage, cost in {"ppo_ptx": DRAWN, "ppo_ptx-round_2": DRAWN | {"cost/peak_mib": 950.0}, "dpo": LEARNED}.items():
        with store.publish(stage, "a" * 20, {}, {}) as draft:
            draft.metrics.update(cost)
        assert draft.ref is not None
        made[stage] = draft.ref
    costs = road_costs(store, made, load(["rounds=2", "rivals=[dpo]"]))
    assert [cost.cells[1:] for cost in costs] == [("64", "800", "", "4.0", "950"), ("", "", "1,234", "0.5", "700")]
