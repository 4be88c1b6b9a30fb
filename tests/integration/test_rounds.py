"""Rounds on the miniature: the second goes on from the first, which is found, and one table says how it went."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from flows.rlhf import rlhf
from tasks.records.comparison_sets import read_comparisons
from tests.integration.test_flow import digests, explained, miniature, ran, record_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


def test_a_second_round_finds_the_first_and_adds_to_it(tmp_path: Path) -> None:
    first = rlhf(miniature(tmp_path))
    before = digests(tmp_path)
    outcome = rlhf(miniature(tmp_path, "rounds=2"))
    made = set(ran(outcome))
    assert not made & {"data_prep", "pretrain", "sft", "ppo_init", "comparisons", "reward_model", "ppo_ptx"}
    assert {
        "comparisons-round_2",
        "reward_model-round_2",
        "reward_model-independent-round_2",
        "reward_model_before-round_2",
        "ppo_ptx-round_2",
        "evaluation-ppo_ptx_round_1",
        "rounds",
    } <= made
    assert {name: digest for name, digest in digests(tmp_path).items() if name in before} == before

    def sets(stage: str) -> dict[str, list[str]]:
        found = read_comparisons(tmp_path / "artifacts" / record_of(outcome, stage))
        return {name: [" ".join(one.completions) for one in rankings] for name, rankings in found.items()}

    old, new = sets("comparisons"), sets("comparisons-round_2")
    assert new["train"][: len(old["train"])] == old["train"] and len(new["train"]) > len(old["train"])
    assert len(new["valid"]) <= 4 and new["valid"] != old["valid"]
    rounds = outcome.over_rounds
    assert rounds is not None and [row.number for row in rounds.rows] == [1, 2]
    assert rounds.rows[0].accuracy_before is None and rounds.rows[1].accuracy_before is not None
    before_2 = json.loads(
        (tmp_path / "artifacts" / record_of(outcome, "reward_model_before-round_2") / "accuracy.json").read_text()
    )
    assert rounds.rows[1].accuracy_before == before_2["valid"]["accuracy"]
    # The last row of the table over rounds is the run's own row of the table of policies.
    own = outcome.comparison.row("ppo_ptx")
    assert own is not None and rounds.rows[1].win == own.win and rounds.rows[1].kl == own.kl
    assert outcome.metrics["policy/win_rate_gold"] == outcome.metrics["win_rate/ppo_ptx/gold"]
    assert outcome.policy != first.policy and "ppo_ptx-round_2" in outcome.policy
    screen = Console(width=120, record=True)
    screen.print(rounds.terminal())
    assert "Old RM" in screen.export_text()
    page = Path(outcome.page).read_text(encoding="utf-8")
    assert 'id="rounds"' in page and "data:image/svg+xml" in page
    assert explained(miniature(tmp_path, "rounds=2")) == []
