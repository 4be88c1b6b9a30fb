"""The layout of prompts: whether it can be used, and what it adds or hides."""

import re
from collections.abc import Iterator

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from tasks.data_prep.layouts import notice_of_template
from tasks.engine.findings import Finding
from tasks.language.chat_layout import ChatLayout, Turn
from tasks.language.text import encode_prompt

KEY = "chat template"
MARKUP = re.compile(r"<\|[\w ]+\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>")
ASKED = "plumbline"
SHOWN = 60


def usable(patient: Patient) -> Iterator[Finding]:
    """The layout must work, and a chat model should see the one it knows.

    Raises:
        PlumblineError: the layout cannot be used.
    """
    layout = patient.layout
    assert layout
    for notice in notice_of_template(patient.config.data_prep.prompt_layout, patient.tokenizer):
        yield Finding("warning", "data_prep.prompt_layout", notice)


def start_tokens(patient: Patient) -> Iterator[Finding]:
    """One start token opens a prompt; a template that writes it twice shows the model what it never saw."""
    tokenizer, layout = patient.tokenizer, patient.layout
    if tokenizer is None or tokenizer.bos_token_id is None:
        return
    start = encode_prompt(tokenizer, layout.prompt([Turn("user", ASKED)]), 10_000)[:2]
    if start == [tokenizer.bos_token_id] * 2:
        yield found(
            "warning",
            KEY,
            f"two start tokens ({tokenizer.bos_token}) at the start of every prompt",
            "one",
            "take one of them out of the template or of data_prep.prompt_layout",
        )


def markup(patient: Patient) -> Iterator[Finding]:
    """Chat markup is one token each; a tokenizer that spells it letter by letter belongs to another model."""
    tokenizer, layout = patient.tokenizer, patient.layout
    if tokenizer is None:
        return
    for text in sorted(set(MARKUP.findall(layout.prompt([Turn("user", ASKED)])))):
        pieces = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if pieces > 1:
            yield found(
                "warning",
                KEY,
                f"{text} in every prompt, which the tokenizer reads as {pieces} tokens",
                "one token of its own",
                "take the template and tokenizer that the model was trained with, or a layout in plain words",
            )


def additions(patient: Patient) -> Iterator[Finding]:
    """What a template writes that nobody typed: today's date, a system message."""
    layout, template = patient.layout, str(getattr(patient.tokenizer, "chat_template", ""))
    if not isinstance(layout, ChatLayout):
        return
    if "strftime_now" in template and re.search(r"\b20\d\d\b", layout.prompt([Turn("user", ASKED)])):
        yield found(
            "warning",
            KEY,
            "today's date in every prompt",
            "the same prompts on every day",
            "set date_string in the template to a fixed day before you train",
        )
    before = MARKUP.sub(" ", layout.prompt([Turn("user", ASKED)]).partition(ASKED)[0])
    words = " ".join(before.split()).removesuffix("user").strip()
    if len(words.split()) > 3:
        shown = words if len(words) <= SHOWN else words[:SHOWN] + "..."
        yield Finding("notice", KEY, f"opens every conversation with words of its own: {shown!r}")
