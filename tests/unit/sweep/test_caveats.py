from flows.sweep.findings import weigh
from tests.unit.sweep.points import point, weighing


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
