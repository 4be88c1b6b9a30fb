"""Labelers who do not want the same: two groups with a taste of their own, and prompts that tell which of them asks.

Where no prompt belongs to a group, the groups want nothing, and the panel is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tasks.records.records import Prompt

Naming = Literal["none", "unnamed", "named"]
GROUP = "group"
"""Key of a prompt's metadata: whose taste counts."""

TASTES = {"teacher": 1.5, "sailor": -0.9}
"""Group -> points for a response with a polite opener. Gold takes 0.3 for it, so teachers want one by 1.2 and sailors mind it as
much. The names are words that the corpus has."""
GROUPS = tuple(TASTES)


def group_of(prompt: Prompt) -> str | None:
    """Whose taste counts in a response to this prompt; None where there are no groups."""
    return prompt.metadata.get(GROUP)


def taste(group: str | None, filler: int) -> float:
    """What a group adds to the gold utility of a response with so many polite openers; more than one are worth no more."""
    return TASTES[group] * min(filler, 1) if group is not None else 0.0


def asked_by_groups(prompts: Sequence[Prompt], naming: Naming) -> list[Prompt]:
    """The prompts, every second one for the same group; ``named`` puts its name before the request."""
    if naming == "none":
        return list(prompts)
    found = []
    for place, prompt in enumerate(prompts):
        group = GROUPS[place % len(GROUPS)]
        text = f"{_prefix(group)}{prompt.text}" if naming == "named" else prompt.text
        found.append(prompt.model_copy(update={"text": text, "metadata": {**prompt.metadata, GROUP: group}}))
    return found


def asked_as_the_other(prompt: Prompt) -> Prompt | None:
    """The same request with the other group's name before it, while its own group's taste counts; None where none is named."""
    group = group_of(prompt)
    if group is None or not prompt.text.startswith(_prefix(group)):
        return None
    (other,) = (name for name in GROUPS if name != group)
    return prompt.model_copy(update={"text": _prefix(other) + prompt.text.removeprefix(_prefix(group))})


def _prefix(group: str) -> str:
    return f"{group} : "
