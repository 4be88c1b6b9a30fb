import pytest
from pydantic import ValidationError

from tasks.records.records import BenchmarkItem, Comparison, Demonstration, Prompt

PROMPT = Prompt(prompt_id="p", owner_id="o", text="hello")


def comparison(**changes: object) -> Comparison:
    given = {"prompt": PROMPT, "completions": ["a", "b", "c"], "ranks": [1, 2, 2], "labeler_id": "l"}
    return Comparison(**given | changes)  # type: ignore[arg-type]


def item(**changes: object) -> BenchmarkItem:
    given = {"item_id": "i", "task": "t", "form": "choice", "context": "c", "choices": ["x", "y"], "answer": 1}
    return BenchmarkItem(**given | changes)  # type: ignore[arg-type]


def test_completions_ended_unless_told_otherwise() -> None:
    assert comparison().ended == [True, True, True]
    assert comparison(finished=[True, False, True]).ended == [True, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks": [1, 2]}, r"'ranks' has 2 entries for 3 completions; rank every completion \(ties allowed\)"),
        ({"ranks": [0, 1, 2]}, "'ranks' holds 0; the best completion has rank 1"),
        ({"source_policy": ["sft"]}, "'source_policy' has 1 entries for 3 completions"),
        ({"finished": [True]}, "'finished' has 1 entries for 3 completions"),
        ({"quality": [7, None]}, "'quality' has 2 entries for 3 completions"),
        ({"flags": [["opinion"]]}, "'flags' has 1 entries for 3 completions"),
        ({"completions": ["a"], "ranks": [1]}, "at least 2 items"),
        ({"likert": [1]}, "Extra inputs"),
    ],
)
def test_comparisons_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        comparison(**changes)


@pytest.mark.parametrize("answer", [None, -1, 2])
def test_a_choice_needs_the_index_of_one(answer: int | None) -> None:
    with pytest.raises(ValidationError, match=f"'answer' is {answer} for 2 choices"):
        item(answer=answer)


def test_an_exact_item_needs_references() -> None:
    with pytest.raises(ValidationError, match="'references' is empty"):
        item(form="exact", choices=[], answer=None)
    assert item(form="exact", choices=[], answer=None, references=["x"]).references == ["x"]


def test_records_are_frozen_and_not_empty() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PROMPT.text = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="at least 1 character"):
        Demonstration(prompt=PROMPT, response="", labeler_id="l")
    with pytest.raises(ValidationError, match="at least 1 character"):
        Prompt(prompt_id="p", owner_id="", text="x")
