"""What cleaning must know of a row, in some 60 bytes: digests of 8 bytes in place of texts, and signs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data_prep.deduplicate import beginnings, digest, normalise
from tasks.data_prep.lengths import responses_of
from tasks.data_prep.pii import RULES, pii_rules
from tasks.data_prep.sources.rows import UNKNOWN_LABELER
from tasks.data_prep.split import owner_key, prompt_of
from tasks.records.rankings import compares_with_itself, dense_ranks, orders_something
from tasks.records.records import Comparison, Demonstration, Document, Prompt

FACTS = np.dtype(
    [
        ("owner", np.uint64),  # key of the owner; of a document, of its text
        ("text", np.uint64),  # digest of the prompt
        ("asked", np.uint64),  # digest of the request before the layout, normalised
        ("same", np.uint64),  # equal for rows that say the same
        ("ballot", np.uint64),  # the responses that are ranked, and their prompt; 0 for all else
        ("labeler", np.uint64),  # who ranked them; 0 if unnamed, and for all else
        ("order", np.uint64),  # of a ranking
        ("key", np.uint64),  # of the request's beginnings
        ("pii", np.uint8),  # one bit for each rule that finds personal data
        ("signs", np.uint8),
    ]
)
SAME_RESPONSE, ORDERS = 1, 2
"""Signs: a ranking that puts a text before itself; one that orders two different texts."""
Facts = NDArray[np.void]


class How(NamedTuple):
    """The knobs that facts depend on."""

    words: int
    """``duplicate_prefix_words``."""
    fraction: float
    """``duplicate_prefix_fraction``."""
    seed: int
    """Of the splits."""
    pii: bool
    """Whether personal data is looked for."""


def facts_of_document(document: Document, how: How) -> tuple[object, ...]:
    """Repetitions of a text stay together: they have one key."""
    return (owner_key(document.text, how.seed), 0, 0, 0, 0, 0, 0, 0, 0, 0)


def facts_of(
    record: Prompt | Demonstration | Comparison, asked: str, how: How
) -> tuple[tuple[object, ...], Sequence[int]]:
    """The facts of one row, and the digests of its request's beginnings.

    Args:
        record: a row with a prompt.
        asked: what the prompt is compared by: its turns before the layout, whose words all prompts share.
        how: the knobs.
    """
    prompt, request = prompt_of(record), normalise(asked)
    heads, key = beginnings(asked, how.words, how.fraction)
    wanted = digest(request)
    same, ballot, labeler, order, signs = wanted, 0, 0, 0, 0
    if isinstance(record, Comparison):
        ranking = _order(record)
        same, order = digest(repr((request, record.labeler_id, ranking))), digest(repr(ranking))
        ballot = digest(repr((normalise(prompt.text), *sorted(record.completions))))
        labeler = 0 if record.labeler_id == UNKNOWN_LABELER else digest(record.labeler_id)
        signs = SAME_RESPONSE * compares_with_itself(record) + ORDERS * orders_something(record)
    found = pii_rules([prompt.text, *responses_of(record)]) if how.pii else []
    bits = sum(1 << place for place, rule in enumerate(RULES) if rule in found)
    owner = owner_key(prompt.owner_id, how.seed)
    return (owner, digest(prompt.text), wanted, same, ballot, labeler, order, key, bits, signs), heads


def _order(comparison: Comparison) -> tuple[tuple[int, str], ...]:
    """What a ranking says, in whatever order it lists the responses."""
    return tuple(sorted(zip(dense_ranks(comparison.ranks), comparison.completions, strict=True)))
