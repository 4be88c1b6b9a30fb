"""What the model sees of a conversation where there is no chat template: a layout of one's own, such as ``{prompt}``."""

from collections.abc import Sequence
from typing import Protocol

from tasks.language.chat_layout import Turn


class Layout(Protocol):
    """What the model sees of a conversation."""

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Everything that stands before the answer to the last turn."""
        ...


class PlainLayout:
    """Every request through a template of ``{prompt}``, every answer behind its request, a blank line between the rest."""

    def __init__(self, template: str) -> None:
        self._template = template
        behind = template.rpartition("{prompt}")[2]
        self._before_answer = "\n\n" if not behind else "" if behind[-1].isspace() else " "
        self._before_request = "" if template[0].isspace() else "\n\n"

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Everything that stands before the answer to the last turn; a system message is a paragraph of its own."""
        text = ""
        for place, turn in enumerate(turns):
            if place:
                text += self._before_answer if turn.role == "assistant" else self._before_request
            text += self._template.replace("{prompt}", turn.content) if turn.role == "user" else turn.content
        return text


BARE = PlainLayout("{prompt}")
"""The request as it is."""
