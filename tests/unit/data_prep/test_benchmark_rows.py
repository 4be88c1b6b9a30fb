from pathlib import Path
from typing import Any

import pytest

from tasks.data_prep.sources.folder import read_benchmark, rows_of
from tasks.engine.errors import DataError
from tasks.records.records import BenchmarkItem
from tests.unit.data_prep.samples import write


def read(folder: Path, *rows: Any) -> tuple[list[BenchmarkItem], list[str]]:
    notices: list[str] = []
    write(folder, {"some_task.jsonl": rows})
    return read_benchmark(rows_of(folder / "some_task.jsonl", "some_task.jsonl"), "some_task.jsonl", notices), notices


@pytest.mark.parametrize(
    ("row", "context", "choices", "answer", "references"),
    [
        ({"query": "q", "choices": ["x", "y"], "gold": 1, "source": "s"}, "q", ["x", "y"], 1, []),
        (
            {"context": "c", "question": "q?", "choices": ["x", "y"], "gold": 0},
            "c\nQuestion: q?\nAnswer:",
            ["x", "y"],
            0,
            [],
        ),
        (
            {
                "context_options": ["Ann met Bea because Ann", "Ann met Bea because Bea"],
                "continuation": "was lost.",
                "gold": 1,
            },
            "Ann met Bea because",
            ["Ann was lost.", "Bea was lost."],
            1,
            [],
        ),
        ({"context": "so he said", "target": "no", "text": "so he said no"}, "so he said", [], None, ["no"]),
        ({"passage": "P.", "question": "q?", "answers": ["a", "b"]}, "P.\nQuestion: q?\nAnswer:", [], None, ["a", "b"]),
        ({"question": "q?", "answers": ["a"]}, "Question: q?\nAnswer:", [], None, ["a"]),
        (
            {"premise": "P.", "hypothesis": "H.", "label": 1},
            "P.\nQuestion: H. True or False?\nAnswer:",
            ["False", "True"],
            1,
            [],
        ),
        (
            {"sentence": "fine .", "label": 1},
            "fine .\nQuestion: Is this sentence positive or negative?\nAnswer:",
            ["negative", "positive"],
            1,
            [],
        ),
        (
            {"question": "q?", "mc1_targets": {"choices": ["x", "y"], "labels": [0, 1]}},
            "Question: q?\nAnswer:",
            ["x", "y"],
            1,
            [],
        ),
    ],
)
def test_known_shapes(
    tmp_path: Path, row: dict[str, Any], context: str, choices: list[str], answer: int | None, references: list[str]
) -> None:
    (item,), notices = read(tmp_path, row)
    assert (item.context, item.choices, item.answer, item.references) == (context, choices, answer, references)
    assert (item.task, item.item_id, item.form) == ("some_task", "some_task-000000", "choice" if choices else "exact")
    assert notices == []


def test_a_file_of_unknown_shape_is_skipped_with_a_notice(tmp_path: Path) -> None:
    items, notices = read(tmp_path, {"fr": "oui", "en": "yes"})
    assert items == []
    assert notices == ["some_task.jsonl: skipped, its fields (en, fr) are of no known benchmark format"]


def test_rows_that_cannot_be_asked_are_counted(tmp_path: Path) -> None:
    items, notices = read(tmp_path, {"question": "q?", "answers": []}, {"question": "q?", "answers": ["a"]})
    assert [item.references for item in items] == [["a"]]
    assert notices == ["some_task.jsonl: 1 of 2 rows skipped, they have no answer or no shared context"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"query": "q", "choices": ["x"], "gold": 1}],
            "some_task.jsonl:1: 'gold' is 1, expected the number of one of 1 choices, 0 for the first; correct the row",
        ),
        (
            [{"query": "q", "choices": ["x"], "gold": "A"}],
            "some_task.jsonl:1: 'gold' is 'A', expected the number of one of 1 choices",
        ),
        ([{"query": "q", "choices": ["x"], "gold": None}], "some_task.jsonl:1: 'gold' is missing or null, expected"),
        ([{"sentence": "s", "label": 2}], "some_task.jsonl:1: 'label' is 2, expected the number of one of 2 choices"),
        ([{"query": "", "choices": ["x"], "gold": 0}], "some_task.jsonl:1: 'query' is empty"),
        (
            [{"query": "q", "choices": ["x"], "gold": 0}, {"fr": "oui"}],
            "some_task.jsonl:2: found fields fr, expected those of the lines before; split the file",
        ),
        (
            [{"question": "q?", "mc1_targets": {"choices": ["x", "y"], "labels": [1, 1]}}],
            "'mc1_targets.labels' does not hold exactly one 1",
        ),
    ],
)
def test_mistakes(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, *rows)
