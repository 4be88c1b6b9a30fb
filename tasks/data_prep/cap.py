"""At most so many prompts per owner.

Source: InstructGPT section 3.2 (about 200 prompts per user ID); the choice at random is ours.
"""

import random
from collections.abc import Sequence

from tasks.records.records import Prompt


def within_cap(prompts: Sequence[Prompt], limit: int, seed: int) -> list[bool]:
    """Whether each prompt stays; equal texts of one owner stay or go together.

    A busy owner keeps ``limit`` prompts, drawn with a generator of its own: other owners' rows do not matter.
    """
    texts: dict[str, dict[str, None]] = {}
    for prompt in prompts:
        texts.setdefault(prompt.owner_id, {})[prompt.text] = None
    dropped = set()
    for owner, own in texts.items():
        if len(own) > limit:
            kept = set(random.Random(f"cap {seed} {owner}").sample(list(own), limit))
            dropped |= {(owner, text) for text in own if text not in kept}
    return [(prompt.owner_id, prompt.text) not in dropped for prompt in prompts]
