import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.compare.judges.humans import HumanJudge, pairs_for_humans, read_verdicts, write_pairs
from tasks.engine.errors import DataError
from tasks.results.judge import Pair
from tests.unit.results.test_judge import pairs

PAIRS = pairs(["good", "fair", "poor", "new"], ["bad", "dull", "rich", "old"])


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "verdicts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def line(row: int, a: str, b: str, verdict: str | None, annotator: str | None = "kim", **more: Any) -> dict[str, Any]:
    return {
        "prompt_id": f"p{row}",
        "response_a": a,
        "response_b": b,
        "verdict": verdict,
        "annotator": annotator,
        **more,
    }


def test_verdicts_hold_whichever_response_was_shown_first(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line(0, "good", "bad", "a"),
        line(1, "dull", "fair", "a"),
        line(2, "poor", "rich", "tie"),
    )
    found = HumanJudge("humans", path).judge(PAIRS)
    np.testing.assert_array_equal(found.outcomes, [1.0, 0.0, 0.5, np.nan])
    orders = found.orders
    assert (orders.pairs, orders.unjudged, orders.verdicts, orders.tied_verdicts) == (4, 1, 3, 1)
    assert orders.position_bias == 1.0  # both decisive verdicts were for what was shown first


def test_several_people_are_averaged_and_each_counts_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line(0, "good", "bad", "a", "kim"),
        line(0, "bad", "good", "b", "kim"),
        line(0, "bad", "good", "a", "lee"),
        line(1, "fair", "dull", "a", "kim"),
        line(1, "dull", "fair", "a", "kim"),
    )
    found = HumanJudge("humans", path).judge(PAIRS)
    assert found.outcomes[:2].tolist() == [0.5, 0.5]
    assert found.orders.inconsistent == 1  # kim on p1 followed the order


def test_prompts_by_text_and_responses_by_policy(tmp_path: Path) -> None:
    by_text = {"prompt": "question 0", "response_a": "bad", "response_b": "good", "verdict": "b", "annotator": "kim"}
    by_name = {"prompt_id": "p1", "policy_a": "sft", "policy_b": "ppo", "verdict": "a", "annotator": "kim"}
    other = {"prompt_id": "p2", "policy_a": "sft", "policy_b": "base", "verdict": "a", "annotator": "kim"}
    judge = HumanJudge("humans", write(tmp_path, by_text, by_name, other))
    np.testing.assert_array_equal(judge.judge(PAIRS).outcomes, [1.0, 0.0, np.nan, np.nan])
    assert (judge.lines, judge.unmatched) == (3, 1)


def test_a_verdict_on_other_texts_is_not_used(tmp_path: Path) -> None:
    judge = HumanJudge("humans", write(tmp_path, line(0, "good", "worse than before", "a")))
    assert np.isnan(judge.judge(PAIRS).outcomes).all()
    assert judge.unmatched == 1


def test_people_agree_in_one_direction(tmp_path: Path) -> None:
    path = write(tmp_path, line(0, "good", "bad", "a", "kim"), line(0, "bad", "good", "b", "lee"))
    (labels,) = HumanJudge("humans", path).labels()
    assert labels["kim"] == labels["lee"] != 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"verdicts.jsonl:2: found broken JSON"),
        (
            json.dumps(line(0, "a", "b", "c")),
            r"verdicts.jsonl:2: 'verdict': Input should be 'a', 'b' or 'tie', found 'c'",
        ),
        (json.dumps(line(0, "a", "b", "a", None)), r"verdicts.jsonl:2: 'verdict' is given and 'annotator' is null"),
        (json.dumps({"verdict": "a", "annotator": "k"}), r"verdicts.jsonl:2: neither 'prompt_id' nor 'prompt'"),
        (
            json.dumps({"prompt_id": "p", "response_a": "x", "policy_b": "y", "verdict": "a", "annotator": "k"}),
            r"verdicts.jsonl:2: give 'response_a' and 'response_b', or 'policy_a' and 'policy_b'",
        ),
        (json.dumps(line(0, "a", "b", "a", winner="a")), r"verdicts.jsonl:2: 'winner': Extra inputs"),
        (json.dumps(line(0, "a \ud83d", "b", "a")), r"verdicts.jsonl:2: 'response_a' holds half of a surrogate"),
        ("1" * 5000, r"verdicts.jsonl:2: found a number with thousands of digits"),
        ('{"prompt_id": "p"}', r"verdicts.jsonl:2: 'verdict': Field required"),
    ],
)
def test_a_wrong_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, line(0, "a", "b", "a"))
    path.write_text(path.read_text() + text + "\n")
    with pytest.raises(DataError, match=message):
        read_verdicts(path)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        HumanJudge("humans", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="every verdict is null"):
        HumanJudge("humans", write(tmp_path, line(0, "a", "b", None, None)))


def many(count: int) -> list[Pair]:
    return pairs([f"mine {i}" for i in range(count)], [f"theirs {i}" for i in range(count)])


def test_what_people_get_is_blind_shuffled_and_can_be_filled_in(tmp_path: Path) -> None:
    given = [*many(200), *pairs(["same"], ["same"])]
    rows = pairs_for_humans(given, 100, seed=3)
    assert len(rows) == 100 == len({row.pair_id for row in rows})
    mine_first = sum(str(row.response_a).startswith("mine") for row in rows)
    assert 35 <= mine_first <= 65
    assert [row.prompt_id for row in rows] != sorted(str(row.prompt_id) for row in rows)
    assert rows == pairs_for_humans(given, 100, seed=3) != pairs_for_humans(given, 100, seed=4)
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, rows)
    assert not any(word in path.read_text() for word in ("ppo", "sft", "policy"))
    assert read_verdicts(path) == rows
    # A person who always prefers what the policy said:
    filled = [json.loads(text) for text in path.read_text().splitlines()]
    for row in filled:
        row.update(verdict="a" if row["response_a"].startswith("mine") else "b", annotator="kim")
    judge = HumanJudge("humans", write(tmp_path, *filled))
    outcomes = judge.judge(given).outcomes
    assert np.nansum(outcomes) == 100
    assert judge.unmatched == 0


def test_fewer_pairs_than_asked_for_are_all_given() -> None:
    assert len(pairs_for_humans(many(5), 100, seed=1)) == 5
