"""Requests: who asks what, in every layout that may carry a prompt.

::

    {"prompt": "..."}                                   a text
    {"prompt": [{"role": "user", "content": "..."}]}    chat messages: read up to the last request
    {"messages": [{"role": ..., "content": ...}, ...]}  OpenAI
    {"conversations": [{"from": "human", "value": ...}, ...]}   ShareGPT, with an optional "system"
    {"messages": "\\n\\nHuman: ...\\n\\nAssistant: ..."}   a transcript of HH
    {"instruction": "...", "input": "..."}              Alpaca; Dolly calls the second field "context"; it may be empty
    {"question": "..."}
"""

from tasks.data_prep.sources.messages import transcript, up_to_request
from tasks.data_prep.sources.rows import Row
from tasks.data_prep.sources.values import kind_of
from tasks.language.chat_layout import Turn
from tasks.records.records import Prompt

CHATS = ("messages", "conversations", "conversation")


def prompts_of(row: Row) -> list[Prompt]:
    """One prompt."""
    return [row.prompt(request_of(row))]


def request_of(row: Row) -> list[Turn]:
    """The turns that end in the request.

    Raises:
        DataError: no field of the row holds a request.
        LeftOut: a conversation in which nobody asks.
    """
    if row.has("prompt"):
        return up_to_request(row.asked("prompt"))
    if (turns := chat_of(row)) is not None:
        return up_to_request(turns)
    if row.has("instruction"):
        return [Turn("user", instruction_of(row))]
    return [Turn("user", row.text("question" if row.has("question") else "prompt"))]


def chat_of(row: Row) -> list[Turn] | None:
    """The whole conversation of a row; None when it holds none."""
    name = next((name for name in CHATS if row.has(name)), None)
    if name is None:
        return None
    value = row.value(name)
    if not isinstance(value, str | list):
        raise row.error(f"'{name}' is {kind_of(value)}", "a list of chat messages", "write it in brackets")
    turns = (transcript(value) if isinstance(value, str) else None) or row.asked(name)
    system = row.label("system")
    return [Turn("system", system), *turns] if system and turns[0].role != "system" else turns


def instruction_of(row: Row) -> str:
    """An instruction, and what it is about as a paragraph of its own."""
    about = next((row.text(name) for name in ("input", "context") if row.fields.get(name) not in (None, "")), None)
    return row.text("instruction") + (f"\n\n{about}" if about else "")
