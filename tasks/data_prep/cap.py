"""At most so many prompts per owner.

Source: InstructGPT section 3.2 (about 200 prompts per user ID); the choice at random is ours.
"""

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tasks.data_prep.split import Keys


def within_cap(owners: Keys, texts: Keys, limit: int, seed: int, name: Callable[[int], str]) -> NDArray[np.bool_]:
    """Whether each prompt stays; equal texts of one owner stay or go together.

    A busy owner keeps ``limit`` prompts, drawn with a generator of its own: other owners' rows do not matter.

    Args:
        owners: key of each prompt's owner.
        texts: digest of each prompt's text.
        limit: texts that an owner keeps.
        seed: of the draws.
        name: the owner of the prompt at a place; asked for busy owners only.
    """
    stays = np.ones(len(owners), np.bool_)
    order = np.argsort(owners, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        if len(rows) <= limit:
            continue
        first, same = np.unique(texts[rows], return_index=True, return_inverse=True)[1:]
        if len(first) > limit:
            seen = np.argsort(np.argsort(first))  # of each distinct text: how many came before it
            draws = random.Random(f"cap {seed} {name(int(rows[0]))}")
            stays[rows] = np.isin(seen[same], draws.sample(range(len(first)), limit))
    return stays
