import pytest
from transformers import AddedToken

from tasks.data_prep.lengths import Limits, Measured, Ruler
from tasks.data_prep.tokenizer import train_tokenizer
from tasks.records.records import Comparison, Demonstration, Prompt
from tests.unit.data_prep.samples import model

TOKENIZER = train_tokenizer(model(), ["one two three four five"])


def prompt(text: str) -> Prompt:
    return Prompt(prompt_id="p", owner_id="o", text=text)


def objection(
    record: Prompt | Demonstration | Comparison, prompt_limit: int = 3, response_limit: int = 3
) -> str | None:
    ruler = Ruler(TOKENIZER, Limits(prompt_limit, response_limit))
    return ruler.objection(record, ruler.measure([record])[0])


@pytest.mark.point(5)
def test_prompts_up_to_the_limit_stay() -> None:
    assert objection(prompt("one two three")) is None
    assert objection(prompt("one two three four")) == "long_prompt"


def test_the_eos_of_a_response_counts() -> None:
    assert objection(Demonstration(prompt=prompt("one"), response="one two", labeler_id="l")) is None
    assert objection(Demonstration(prompt=prompt("one"), response="one two three", labeler_id="l")) == "long_response"


def test_the_longest_completion_decides() -> None:
    ranking = Comparison(prompt=prompt("one"), completions=["one", "one two three"], ranks=[1, 2], labeler_id="l")
    assert objection(ranking) == "long_response"


def test_special_tokens_spelled_out() -> None:
    assert objection(prompt("one <eos> two")) == "special_token"
    assert objection(Demonstration(prompt=prompt("one"), response="<pad> x", labeler_id="l")) == "special_token"


def test_measures_and_unknown_tokens() -> None:
    ruler = Ruler(TOKENIZER, Limits(9, 9))
    ranking = Comparison(prompt=prompt("one two"), completions=["six", ""], ranks=[1, 1], labeler_id="l")
    strange = Demonstration(prompt=prompt("one six"), response="seven", labeler_id="l")
    assert ruler.measure([ranking, prompt("one"), strange]) == [
        Measured(2, [2, 1], 0, 1),
        Measured(1, [], 0, 0),
        Measured(2, [2], 1, 1),
    ]


def test_special_tokens_without_a_name_count_as_spelled() -> None:
    tokenizer = train_tokenizer(model(), ["one two"])
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True), AddedToken("<plain>", special=False)])
    ruler = Ruler(tokenizer, Limits(9, 9))
    assert ruler.spells_special_token("one <|turn|> two")
    assert not ruler.spells_special_token("one <plain> two")
