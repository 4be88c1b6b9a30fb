"""Chat messages, as OpenAI ({role, content}) or ShareGPT ({from, value}) writes them, and transcripts in one text."""

import re
from ast import literal_eval
from collections.abc import Sequence
from typing import Any

from tasks.data_prep.sources.records import LeftOut
from tasks.data_prep.sources.values import kind_of, writable, wrong
from tasks.engine.errors import DataError
from tasks.language.chat_layout import Role, Turn
from tasks.records.json_lines import parse_json

ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
TOOLS = ("tool", "function", "tool_call", "tool_response", "function_call", "observation", "ipython")
"""Roles of messages that no policy of ours writes or reads."""
FIELDS = (("role", "content"), ("from", "value"))
"""Who and what, in each way of writing a message."""
PRINTED = re.compile(r"\s*\[\{'(role|content|from|value)': ")
SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def turns_in(messages: list[Any], where: str, name: str) -> list[Turn]:
    """The turns of a list of messages, at least one.

    Raises:
        DataError: no messages, or one without role or text.
        LeftOut: a conversation with tools, pictures or sound.
    """
    if not messages:
        raise wrong(where, f"'{name}' is empty", "a list of chat messages", "fill it in or remove the row")
    return [_turn(message, where, f"{name}[{place}]") for place, message in enumerate(messages)]


def spelled_messages(text: str) -> list[Any] | None:
    """The chat messages that a text spells as JSON; None for any other text, such as an answer that is JSON itself."""
    if text.lstrip()[:1] != "[" or not any(f'"{content}"' in text for _, content in FIELDS):
        return None
    try:
        spelled = parse_json(text.encode("utf-8", "surrogatepass"), "")
    except DataError:
        return None
    all_messages = isinstance(spelled, list) and all(
        isinstance(item, dict) and any(set(fields) <= item.keys() for fields in FIELDS) for item in spelled
    )
    return spelled if all_messages and spelled else None


def printed_messages(text: str) -> bool:
    """Whether a text is a list of chat messages as Python prints it, such as what pandas writes into a CSV file."""
    if not PRINTED.match(text):
        return False
    try:
        printed = literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(printed, list)


def said_in(messages: list[Any], where: str, name: str) -> str:
    """The answer in a list of one assistant message.

    Raises:
        DataError: other messages.
        LeftOut: as above.
    """
    turns = turns_in(messages, where, name)
    if len(turns) != 1 or turns[0].role != "assistant":
        roles = ", ".join(turn.role for turn in turns)
        raise wrong(where, f"'{name}' holds messages of {roles}", "one message of the assistant", "correct the row")
    return turns[0].content


def transcript(text: str) -> list[Turn] | None:
    """The turns of a text of the form ``\\n\\nHuman: ...\\n\\nAssistant: ...``; None for any other text."""
    start, *parts = SPEAKER.split(text)
    speakers, contents = parts[::2], parts[1::2]
    if start.strip() or len(speakers) < 2:
        return None
    return [
        Turn("user" if speaker == "Human" else "assistant", content.strip())
        for speaker, content in zip(speakers, contents, strict=True)
    ]


def answered(turns: Sequence[Turn]) -> tuple[list[Turn], str]:
    """What was asked and what the assistant answered last.

    Raises:
        LeftOut: there is no answer, or nothing before it.
    """
    last = max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=0)
    if not any(turn.role == "user" for turn in turns[:last]) or not turns[last].content.strip():
        raise LeftOut("no_answer")
    return list(turns[:last]), turns[last].content


def up_to_request(turns: Sequence[Turn]) -> list[Turn]:
    """The conversation up to its last request.

    Raises:
        LeftOut: nobody asks.
    """
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    if last < 0:
        raise LeftOut("no_request")
    return list(turns[: last + 1])


def shared_beginning(conversations: Sequence[Sequence[Turn]]) -> tuple[list[Turn], list[str]]:
    """What several conversations have in common, and how the assistant ends each.

    Raises:
        LeftOut: they differ in more than their last answers.
    """
    same = 0
    while all(same < len(turns) - 1 and turns[same] == conversations[0][same] for turns in conversations):
        same += 1
    if any(len(turns) != same + 1 or turns[-1].role != "assistant" for turns in conversations):
        raise LeftOut("several_turns_differ")
    return list(conversations[0][:same]), [turns[-1].content for turns in conversations]


def _turn(message: Any, where: str, name: str) -> Turn:
    if not isinstance(message, dict):
        found = f"'{name}' is {kind_of(message)}"
        raise wrong(where, found, "a message {role, content} or {from, value}", "correct the row")
    speaker, text = ("from", "value") if "from" in message else ("role", "content")
    said_by, content = message.get(speaker), message.get(text)
    if (isinstance(said_by, str) and said_by in TOOLS) or message.get("tool_calls"):
        raise LeftOut("tools")
    if not isinstance(said_by, str) or said_by not in ROLES:
        found = f"'{said_by}'" if isinstance(said_by, str) else kind_of(said_by)
        raise wrong(where, f"'{name}.{speaker}' is {found}", f"one of {', '.join(ROLES)}", "correct the row")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise LeftOut("not_text")
        content = "".join(str(part) for part in parts)
    if not isinstance(content, str):
        raise wrong(where, f"'{name}.{text}' is {kind_of(content)}", "a text", "fill it in or remove the row")
    return Turn(ROLES[said_by], writable(where, f"{name}.{text}", content))
