import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.compare.judges.annotated import longer_response, measure, read_annotated
from tasks.engine.errors import DataError
from tasks.results.judge import Pair, PairVerdicts, judge_both_orders
from tasks.results.win_rate import Resampling

HOW = Resampling(0.95, 200, 1)


class Longer:
    name = "longer"

    def judge(self, pairs: Any) -> PairVerdicts:
        return judge_both_orders(self.name, longer_response, pairs)


def row(a: str, b: str, **labels: str) -> dict[str, Any]:
    return {"prompt": "why ?", "completion_a": a, "completion_b": b, "labels": labels, "model_a": "not read"}


ROWS = [
    row("long answer", "short", kim="a", lee="a-slightly"),
    row("short", "long answer", kim="a", lee="tie"),
    row("same", "size", kim="tie"),
]


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_a_judge_that_prefers_length_is_measured_against_people(name: str, tmp_path: Path) -> None:
    found = measure(Longer(), read_annotated(write(tmp_path / name, ROWS)), HOW)
    assert found.people.exact is not None and found.each.exact is not None and found.majority.exact is not None
    assert (found.people.comparisons, found.people.exact.estimate) == (2, 0.5)
    assert (found.each.comparisons, found.each.exact.estimate) == (5, pytest.approx(3 / 5))
    assert (found.majority.items, found.majority.exact.estimate) == (2, 1.0)
    assert found.orders.tied_verdicts == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "pairs.jsonl:2: found broken JSON"),
        ("[]", "pairs.jsonl:2: found list"),
        ({"prompt": "p", "completion_a": "x"}, "pairs.jsonl:2: 'completion_b' is missing; expected a text"),
        (row("x", "y", kim="a") | {"prompt": ["secret"]}, "pairs.jsonl:2: 'prompt' is list; expected a text$"),
        (row("x", "y"), "pairs.jsonl:2: 'labels' is {}"),
        (row("x", "y", kim="c"), "pairs.jsonl:2: label 'c' of kim; expected one of a, a-slightly"),
        (row("x", "y", kim=["a"]), r"pairs.jsonl:2: label \['a'\] of kim; expected one of a, a-slightly"),
        (row("x \ud83d", "y", kim="a"), r"pairs.jsonl:2: 'completion_a' holds half of a surrogate pair \(\\ud83d\)"),
        ("[" * 100000, "pairs.jsonl:2: found JSON that is nested too deeply"),
    ],
)
def test_a_wrong_line_is_named(line: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_annotated(write(tmp_path / "pairs.jsonl", [ROWS[0], line]))


def test_no_file_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_annotated(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="it is a folder"):
        read_annotated(tmp_path)
    with pytest.raises(DataError, match="no pairs"):
        read_annotated(write(tmp_path / "pairs.jsonl", []))
    broken = tmp_path / "pairs.jsonl.gz"
    broken.write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"gz:1: found unreadable data .*expected a complete gzip file"):
        read_annotated(broken)


def test_names_of_policies_are_not_part_of_what_is_asked() -> None:
    seen: list[Any] = []
    judge_both_orders("x", lambda qs: seen.extend(qs) or [0] * len(qs), [Pair("id", "p", "a", "b", ("ppo", "sft"))])
    assert all("ppo" not in str(question) and "sft" not in str(question) for question in seen)
