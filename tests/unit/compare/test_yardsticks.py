"""What shows how much a difference means: the base model measured twice, and one opponent for all runs."""

import pytest

from flows.config import load
from tasks.compare.compare import compare_sheets
from tasks.engine.errors import ModelError
from tasks.results.table import PREFERENCE, policy_table
from tests.unit.results.sheets import evaluation_config, four, trio

CONFIG = evaluation_config(best_of_n=[4], bootstrap_samples=400)


def with_sheet(name: str, sampled: list[float], greedy: list[float]) -> dict[str, object]:
    sheets = trio()
    rows = [
        row.model_copy(update={"responses": {"sampled": one, "greedy": two}})
        for row, one, two in zip(sheets["base"].samples, four(sampled), four(greedy), strict=True)
    ]
    return sheets | {name: sheets["base"].model_copy(update={"name": name, "samples": rows})}


def test_every_policy_is_compared_with_the_yardstick_at_its_own_decoding() -> None:
    found = compare_sheets(with_sheet("yardstick", [2, 2, 2, 2], [0, 0, 2, 2]), CONFIG)  # type: ignore[arg-type]
    # ppo_ptx sampled 2 2 2 0 by gold: three ties, one loss; greedy 2 3 2 1: two wins, a tie, a loss
    assert found.metrics["win_rate_vs_yardstick/ppo_ptx/gold"] == 0.375
    assert found.metrics["win_rate_vs_yardstick/ppo_ptx_greedy/gold"] == 0.625
    assert found.metrics["win_rate_vs_yardstick/base/gold"] == 0.125  # 0 0 0 2: three losses, a tie
    assert "win_rate_vs_yardstick/yardstick/gold" not in found.metrics
    table = policy_table(found, PREFERENCE)
    at = table.headings.index("Against yardstick %")
    shown = {row.cells[0].text: row.cells[at].text for row in table.rows}
    assert shown["PPO-ptx, T = 1"] == "37.5" and shown["Yardstick, T = 1"] == ""
    assert "Against yardstick %" not in policy_table(compare_sheets(trio(), CONFIG), PREFERENCE).headings


def test_a_second_measurement_of_base_tells_what_chance_does() -> None:
    # against SFT's second sample 1 1 1 1: base 0 0 0 2 wins 25 %, again 2 0 0 2 wins 50 %; the mean moves from 0.5 to 1
    found = compare_sheets(with_sheet("base_again", [2, 0, 0, 2], [0, 0, 0, 0]), CONFIG)  # type: ignore[arg-type]
    (note,) = [note for note in found.notes if note.startswith("Noise floor")]
    assert "wins 50.0 % against SFT instead of 25.0 %" in note and "its mean score moves by +0.50" in note
    assert not [note for note in compare_sheets(trio(), CONFIG).notes if note.startswith("Noise floor")]
    assert found.verdict == compare_sheets(trio(), CONFIG).verdict


def test_the_second_measurement_draws_other_numbers_and_changes_nothing_else() -> None:
    config = load(["noise_floor=true"])
    once, again = config.measured, config.measured_again
    assert once.seed != again.seed and again.model_copy(update={"seed": once.seed}) == once


def test_a_yardstick_that_is_no_model_is_refused_before_anything_runs() -> None:
    from flows.ask.doctor.requirements import check_model_folder

    with pytest.raises(ModelError, match="yardstick: folder /nowhere does not exist"):
        check_model_folder("yardstick", "/nowhere")
