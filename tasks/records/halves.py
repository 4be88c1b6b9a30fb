"""Two disjoint halves of the comparisons, so that a second reward model can judge what the first one's optimiser made."""

import hashlib
from collections.abc import Sequence
from typing import Literal

from tasks.records.records import Comparison


def take_part(comparisons: Sequence[Comparison], part: Literal["all", "first_half", "second_half"]) -> list[Comparison]:
    """All comparisons, or those of the prompts that fall into one half.

    The half is decided by a hash of the prompt's text, so all rankings of a prompt, by whichever labeler, lie in one half.
    """
    if part == "all":
        return list(comparisons)
    wanted = 0 if part == "first_half" else 1
    return [comparison for comparison in comparisons if _half(comparison.prompt.text) == wanted]


def _half(text: str) -> int:
    return hashlib.sha256(f"half of the comparisons {text}".encode()).digest()[0] % 2
