import pytest

from tasks.engine.errors import ModelError
from tasks.language.chat_layout import ChatLayout, Turn, has_template
from tests.unit.language.chat_templates import CHATML, FAMILIES, chat_tokenizer

ASKED = [Turn("user", "Hi")]
TALK = [*ASKED, Turn("assistant", "Yes?"), Turn("user", "Bye")]


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_are_those_of_the_family(name: str) -> None:
    family = FAMILIES[name]
    layout = ChatLayout(chat_tokenizer(family))
    assert layout.prompt(ASKED) == family.one_turn
    assert layout.prompt(TALK) == family.three_turns
    assert layout.end_of_turn == family.end


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_message_opens_the_conversation_or_is_refused(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = chat_tokenizer(family)
    if family.with_system is None:
        with pytest.raises(ModelError, match="leave the system message out"):
            ChatLayout(tokenizer, "Be kind.")
    else:
        assert ChatLayout(tokenizer, "Be kind.").prompt(ASKED) == family.with_system
        own = [Turn("system", "Be kind."), *ASKED]
        assert ChatLayout(tokenizer, "Be brief.").prompt(own) == family.with_system


@pytest.mark.parametrize(
    ("template", "why"),
    [
        # earlier text changes when an answer is appended, as some reasoning templates do
        (CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>' }}"), "something else"),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}", "something else"),
        ("{% for m in messages %}{{ m['content'] }} -- end{% endfor %}", "ends an answer with ' -- end'"),
        ("{{ raise_exception('only tools') }}", "only tools"),
        ("{% for m in messages %}{{ m['content'] }", "fails"),
        ("{% for i in range(1000000000) %}x{% endfor %}", "fails (OverflowError: Range too big"),
        ("{{ messages | length // 0 }}", "fails (ZeroDivisionError"),
    ],
)
def test_templates_that_cannot_be_trained_on_are_refused(template: str, why: str) -> None:
    with pytest.raises(ModelError, match="chat template of") as refused:
        ChatLayout(chat_tokenizer(FAMILIES["chatml"], template))
    assert why in str(refused.value)
    assert "data_prep.prompt_layout" in str(refused.value)


def test_a_template_that_leaves_the_end_to_eos() -> None:
    layout = ChatLayout(chat_tokenizer(FAMILIES["chatml"], "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"))
    assert layout.end_of_turn == "<|endoftext|>"


def test_no_template() -> None:
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    assert has_template(tokenizer)
    tokenizer.chat_template = None
    assert not has_template(tokenizer)
