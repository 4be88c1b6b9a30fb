"""Intervals where prompts share an owner: by simulation, and against the analytic standard error."""

import math

import numpy as np
import pytest

from tasks.compare.compare import compare_sheets
from tasks.results.table import judge_table
from tasks.results.win_rate import Resampling, bootstrap_mean, clustered_mean, normal, win_rate
from tests.unit.results.sheets import evaluation_config, four, sheet

HOW = Resampling(confidence=0.95, samples=400, seed=1)
OWNERS, EACH = 50, 8
NAMES = [f"o{owner}" for owner in range(OWNERS) for _ in range(EACH)]


def drawn(rng: np.random.Generator, spread: float) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Wins of an owner's prompts share a rate of 0.5 - spread or 0.5 + spread: correlation (2 spread)^2, true mean one half."""
    rates = 0.5 + spread * rng.choice([-1.0, 1.0], size=OWNERS)
    return (rng.random((OWNERS, EACH)) < rates[:, None]).astype(np.float64).reshape(-1)


def test_only_the_clustered_interval_covers_the_truth_where_owners_differ() -> None:
    rng = np.random.default_rng(5)
    covered = {"clustered": 0, "over prompts": 0}
    for seed in range(300):
        wins = drawn(rng, 0.35)
        how = HOW._replace(seed=seed)
        for name, found in (
            ("clustered", clustered_mean(wins, NAMES, how)),
            ("over prompts", bootstrap_mean(wins, how)),
        ):
            assert found is not None
            covered[name] += found.low <= 0.5 <= found.high
    # 95 % of 300 is 285, with a standard deviation of 4; over prompts: 2 Phi(1.96 / sqrt(1 + 7 x 0.49)) - 1 = 65 %
    assert covered["clustered"] >= 273
    assert 165 <= covered["over prompts"] <= 225


def test_its_width_is_the_analytic_one() -> None:
    """Variance of a mean of m equally correlated values an owner: p (1 - p) (1 + (m - 1) rho) / n."""
    rng, rho = np.random.default_rng(6), 0.49
    widths = []
    for seed in range(60):
        found = clustered_mean(drawn(rng, 0.35), NAMES, HOW._replace(seed=seed))
        assert found is not None
        widths.append((found.high - found.low) / 2)
    expected = 1.96 * math.sqrt(0.25 * (1 + (EACH - 1) * rho) / (OWNERS * EACH))
    assert np.mean(widths) == pytest.approx(expected, rel=0.05)


def test_owners_that_mean_nothing_change_nothing() -> None:
    wins = drawn(np.random.default_rng(7), 0.0)
    clustered, plain = clustered_mean(wins, NAMES, HOW), normal(wins, 0.95)
    assert clustered is not None
    assert clustered.high - clustered.low == pytest.approx(plain.high - plain.low, rel=0.25)
    assert clustered.estimate == plain.estimate


def test_owners_of_unequal_size_weigh_by_their_prompts() -> None:
    values = np.array([1.0] * 90 + [0.0] * 10)
    found = clustered_mean(values, ["big"] * 90 + [f"small{i}" for i in range(10)], HOW)
    assert found is not None and found.estimate == 0.9  # not the mean of owners, which is 1 / 11
    # A draw lacks the big owner with (10 / 11)^11 = 35 %; it has it more than 3 times with 1.7 %: 270 of 278 prompts.
    assert found.low == 0.0 and found.high == pytest.approx(270 / 278)


def test_nothing_where_owners_have_one_prompt_each_or_are_few() -> None:
    values = np.arange(30) / 30
    assert clustered_mean(values, [str(i) for i in range(30)], HOW) is None
    assert clustered_mean(values, [str(i % 9) for i in range(30)], HOW) is None
    assert clustered_mean(values, [str(i % 10) for i in range(30)], HOW) is not None
    assert win_rate(values, HOW).clustered is None
    with_owners = win_rate(values, HOW, [str(i % 10) for i in range(30)])
    assert with_owners.model_copy(update={"clustered": None}) == win_rate(values, HOW)  # no other number moves


def test_the_comparison_shows_it_where_there_is_one() -> None:
    def sheets(owners: int) -> dict[str, object]:
        found = {}
        for name, scores in (("sft", [1.0, 1.0, 1.0] * 8), ("ppo_ptx", [2.0, 0.0, 2.0] * 8)):
            made = sheet(name, {"sampled": four(scores), "greedy": four(scores), "opponent": four([1.0] * 24)})
            samples = [row.model_copy(update={"owner": f"o{at % owners}"}) for at, row in enumerate(made.samples)]
            found[name] = made.model_copy(update={"samples": samples})
        return found

    config = evaluation_config(best_of_n=[4], bootstrap_samples=400)
    found = compare_sheets(sheets(12), config)  # type: ignore[arg-type]
    at = judge_table(found).headings.index("Interval over owners")
    # Owner o0 has prompts 0 and 12, both won; o1 has 1 and 13, both lost: as if there were half as many prompts.
    low, high = (found.metrics[f"win_rate_by_owner/ppo_ptx/gold_{end}"] for end in ("low", "high"))
    assert (low, high) != (found.metrics["win_rate/ppo_ptx/gold_low"], found.metrics["win_rate/ppo_ptx/gold_high"])
    assert high - low > 1.2 * (found.metrics["win_rate/ppo_ptx/gold_high"] - found.metrics["win_rate/ppo_ptx/gold_low"])
    cells = {
        row.cells[0].text: row.cells[at].text for row in judge_table(found).rows if row.cells[1].text == "gold labeler"
    }
    assert cells["PPO-ptx, T = 1"] == f"[{100 * low:.1f}, {100 * high:.1f}]"
    assert "Interval over owners" not in judge_table(compare_sheets(sheets(24), config)).headings  # type: ignore[arg-type]
