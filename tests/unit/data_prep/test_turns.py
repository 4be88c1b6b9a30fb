"""Whoever reads a prompt with a layout of their own finds its turns as they were before the policy's layout."""

from tasks.data_prep.sources.rows import Row
from tasks.language.chat_layout import Turn
from tasks.language.plain_layout import PlainLayout
from tasks.records.records import turns_of

ASKED = [Turn("user", "Why is the sky blue?")]


def test_a_layout_leaves_the_turns_beside_the_text() -> None:
    prompt = Row({}, "row 1", PlainLayout("Human: {prompt}\n\nAssistant:")).prompt(ASKED)
    assert prompt.text == "Human: Why is the sky blue?\n\nAssistant:" and turns_of(prompt) == ASKED


def test_a_bare_prompt_is_its_own_turn_and_needs_no_note() -> None:
    prompt = Row({}, "row 1", PlainLayout("{prompt}")).prompt(ASKED)
    assert prompt.metadata == {} and turns_of(prompt) == ASKED


def test_several_turns_are_kept_even_where_the_layout_is_bare() -> None:
    turns = [*ASKED, Turn("assistant", "Rayleigh."), Turn("user", "Who?")]
    assert turns_of(Row({}, "row 1", PlainLayout("{prompt}")).prompt(turns)) == turns
