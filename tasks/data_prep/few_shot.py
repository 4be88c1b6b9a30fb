"""One instruction with K worked examples becomes K training examples.

Source: InstructGPT appendix A.1: a labeler gives an instruction and several query/response pairs; each pair in turn
is asked, and the others come before it as examples. The layout is our choice: paragraphs, each query on the line
above its response.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Shot(NamedTuple):
    """A query and its response."""

    query: str
    response: str


def expand_few_shot(instruction: str, shots: Sequence[Shot]) -> list[Shot]:
    """K pairs (prompt, response) from K shots: each prompt holds the other K - 1 and never its own answer."""
    examples = []
    for asked, shot in enumerate(shots):
        context = [f"{other.query}\n{other.response}" for place, other in enumerate(shots) if place != asked]
        examples.append(Shot("\n\n".join([instruction, *context, f"{shot.query}\n"]), shot.response))
    return examples
