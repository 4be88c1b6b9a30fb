"""Style taken out of win rates: counts by hand, the fit against scikit-learn's, and judges whose taste is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tasks.compare.compare import compare_sheets
from tasks.compare.length_control import Strength
from tasks.compare.style_control import style_controlled, style_differences, style_of
from tasks.results.table import PREFERENCE, judge_table, policy_table
from tasks.results.win_rate import Resampling
from tests.unit.results.sheets import evaluation_config, response, sheet, trio

HOW = Resampling(0.95, 200, 1)
STRENGTH = Strength([0.01, 0.1, 1.0, 10.0], 5)
TEXT = """# Title
Some **bold** and __also bold__ words, 3 * 4 ** 2.
1. one
2) two
- three
  * four
#nothing
```
# no header
- no item **nor bold**
```
"""


def test_features_counted_by_hand() -> None:
    assert style_of(TEXT) == [len(TEXT), 1, 4, 2]
    assert style_of("plain text - with a dash") == [24, 0, 0, 0]
    assert style_of("a\n```\n# open to the end") == [23, 0, 0, 0]
    # 11 and 8 characters; 2 and 0 bold phrases: 3 / 20 and 2 / 3
    assert style_differences(["**a** **b**"[:11]], ["plain te"]).tolist() == [[3 / 20, 0.0, 0.0, 2 / 3]]


def texts(rng: np.random.Generator, count: int, bold: float) -> list[str]:
    """Words of which some are bold."""
    return [
        " ".join("**so**" if rng.random() < bold else "so" for _ in range(int(rng.integers(5, 15))))
        for _ in range(count)
    ]


def test_the_rate_is_that_of_an_independent_fit() -> None:
    rng = np.random.default_rng(3)
    mine, theirs = texts(rng, 300, 0.4), texts(rng, 300, 0.2)
    won = rng.choice([0.0, 0.5, 1.0], size=300, p=[0.3, 0.2, 0.5])
    # By hand: characters and bold phrases are all that differs.
    raw = np.array([[len(text), text.count("**so**")] for text in (*mine, *theirs)], dtype=float)
    d = (raw[:300] - raw[300:]) / (raw[:300] + raw[300:] + 1)
    features = np.column_stack([np.ones(300), d / d.std(axis=0)])
    penalty = 2.0
    fitted = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10, max_iter=1000).fit(
        np.tile(features, (2, 1)), np.repeat([1, 0], 300), sample_weight=np.concatenate([won, 1 - won])
    )
    expected = 1 / (1 + np.exp(-fitted.coef_[0, 0]))
    found = style_controlled(won, mine, theirs, Strength([penalty], 5), HOW)
    assert found is not None and found.estimate == pytest.approx(expected, abs=1e-6)
    assert found.low < expected < found.high


def test_a_judge_that_only_likes_bold_words_is_exposed_and_a_just_one_is_left_alone() -> None:
    rng = np.random.default_rng(4)
    mine, theirs = texts(rng, 500, 0.5), texts(rng, 500, 0.2)
    bolder = style_differences(mine, theirs)[:, 3]
    vain = (bolder + rng.normal(0, 0.2, 500) > 0).astype(float)
    assert vain.mean() > 0.8
    exposed = style_controlled(vain, mine, theirs, STRENGTH, HOW)
    assert exposed is not None and exposed.low < 0.5 < exposed.high
    just = (rng.random(500) < 0.7).astype(float)
    left = style_controlled(just, mine, theirs, STRENGTH, HOW)
    assert left is not None and left.low < 0.7 < left.high


def test_nothing_without_markdown_or_with_too_few_verdicts() -> None:
    plain = ["so " * (1 + at % 5) for at in range(30)]
    won = np.tile([1.0, 0.0], 15)
    assert style_controlled(won, plain, plain[::-1], STRENGTH, HOW) is None
    bold = ["**so**", *plain[1:]]
    assert style_controlled(won, bold, plain, STRENGTH, HOW) is not None
    assert style_controlled(np.where(np.arange(30) < 4, won, np.nan), bold, plain, STRENGTH, HOW) is None


def test_the_tables_have_it_only_where_there_is_markdown() -> None:
    config = evaluation_config(best_of_n=[4], bootstrap_samples=100)
    plain = compare_sheets(trio(), config)
    assert "At equal style %" not in judge_table(plain).headings + policy_table(plain, PREFERENCE).headings
    assert not [name for name in plain.metrics if name.startswith("win_rate_style/")]
    marked = [response(2, 2, text="**so** fine" if at % 2 else "so") for at in range(12)]
    bare = [response(1, 1, text="so fine") for _ in range(12)]
    sheets = {
        "sft": sheet("sft", {"sampled": bare, "greedy": bare, "opponent": bare}),
        "ppo_ptx": sheet("ppo_ptx", {"sampled": marked, "greedy": marked}),
    }
    found = compare_sheets(sheets, config)
    at = policy_table(found, PREFERENCE).headings.index("At equal style %")
    shown = {row.cells[0].text: row.cells[at].text for row in policy_table(found, PREFERENCE).rows}
    assert (
        shown["PPO-ptx, T = 1"] == f"{100 * found.metrics['win_rate_style/ppo_ptx/gold']:.1f}"
        and shown["SFT, T = 1"] == ""
    )
    assert "At equal style %" in judge_table(found).headings
    assert all(len(row.cells) == len(judge_table(found).headings) for row in judge_table(found).rows)
