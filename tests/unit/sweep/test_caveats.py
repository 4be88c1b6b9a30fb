from pathlib import Path

from flows.run.summary import headline
from flows.sweep.findings import weigh
from flows.sweep.report import build_report, write_report
from tests.unit.sweep.points import point, sweep, weighing


def test_what_takes_the_meaning_away_comes_before_the_verdict() -> None:
    few = {"policy/test_prompts": 24.0, "policy/win_rate_of_base_gold_low": 0.6}
    level = {"policy/win_rate_vs_start_gold_low": 0.45, "policy/win_rate_vs_start_gold_high": 0.55}
    points = [
        point(0, {"beta": "1"}, 0.6).model_copy(update={"metrics": point(0, {}, 0.6).metrics | few | level}),
        point(1, {"beta": "2"}, 0.7, kl=0.0),
        point(2, {"beta": "3"}, 0.65, kl=2.0),
    ]
    found = weigh(points, weighing())
    assert found.verdict.startswith("Too few prompts (24, fewer than 100) to conclude anything. The base model, before")
    assert "PPO has not moved at #0, #1: what stands there is its start's doing." in found.verdict
    assert any("chosen by the same judge and prompts" in note for note in found.notes)


def test_a_sound_sweep_has_no_caveat() -> None:
    enough = {"policy/test_prompts": 400.0, "policy/win_rate_of_base_gold_low": 0.2}
    moved = {"policy/win_rate_vs_start_gold_low": 0.55, "policy/win_rate_vs_start_gold_high": 0.65}
    one = point(0, {"beta": "1"}, 0.6, kl=2.0)
    found = weigh([one.model_copy(update={"metrics": one.metrics | enough | moved})], weighing())
    assert found.verdict.startswith("1 of 1 points is on the Pareto front")
    assert not any("chosen by the same judge" in note for note in found.notes)


def test_a_prompted_base_that_beats_sft_is_told_and_shown_on_the_page(tmp_path: Path) -> None:
    prompted = {"policy/win_rate_of_prompted_gold": 0.614, "policy/win_rate_of_prompted_gold_low": 0.55}
    one, two = point(0, {"beta": "1"}, 0.6), point(1, {"beta": "2"}, 0.7)
    points = [one.model_copy(update={"metrics": one.metrics | prompted}), two]
    assert "The base model behind examples, without any tuning, beats SFT" in weigh(points, weighing()).verdict
    write_report(build_report(sweep("beta"), points), tmp_path / "with")
    write_report(build_report(sweep("beta"), [one, two]), tmp_path / "without")
    page, plain = ((tmp_path / name / "sweep.html").read_text() for name in ("with", "without"))
    assert "win rate of the prompted base" in page and "61.4 %" in page
    assert "prompted" not in plain and "behind examples" not in weigh([one, two], weighing()).verdict


def test_the_figure_comes_from_the_comparison_s_row() -> None:
    found = headline({"win_rate/prompted/gold": 0.4, "win_rate/base/gold": 0.3}, "ppo_ptx")
    assert found == {"policy/win_rate_of_prompted_gold": 0.4, "policy/win_rate_of_base_gold": 0.3}
