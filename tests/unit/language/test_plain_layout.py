import pytest

from tasks.language.chat_layout import Turn
from tasks.language.plain_layout import PlainLayout

TURNS = [Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three")]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{prompt}", "one\n\ntwo\n\nthree"),
        ("Human: {prompt}\n\nAssistant:", "Human: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"),
        ("\n\nHuman: {prompt}\n\nAssistant:", "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"),
        ("Q: {prompt}\nA: ", "Q: one\nA: two\n\nQ: three\nA: "),
    ],
)
def test_turns_in_a_layout_of_ones_own(template: str, text: str) -> None:
    assert PlainLayout(template).prompt(TURNS) == text
    assert PlainLayout(template).prompt(TURNS[:1]) == template.replace("{prompt}", "one")


def test_a_system_message_is_a_paragraph_of_its_own() -> None:
    turns = [Turn("system", "be kind"), *TURNS[:1]]
    assert PlainLayout("Q: {prompt}").prompt(turns) == "be kind\n\nQ: one"


def test_braces_in_a_request_stay() -> None:
    assert PlainLayout("Q: {prompt}").prompt([Turn("user", "{prompt} {x}")]) == "Q: {prompt} {x}"
