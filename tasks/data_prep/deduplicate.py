"""Drop prompts that repeat another one, or its long beginning.

Two prompts are duplicates when they share at least min(``words``, ``fraction`` of the shorter one) leading words;
case and white space do not count. The first seen is kept.

Source: InstructGPT appendix A.2 ("long common prefix"); both thresholds are our choice, and words stand
for tokens because the tokenizer may be trained on what is left.

Texts are known by digests of 8 bytes: among a million of them, two are taken for one with a probability of 3e-8.
"""

import math
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_END = b"\x1f"  # closes every word, so that a prefix of the text is a sequence of whole words


def normalise(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())


def digest(text: str) -> int:
    """8 bytes that stand for a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Beginnings(NamedTuple):
    """A text by the digests of its beginnings."""

    heads: list[int]
    """Of 0, 1, 2, ... leading words, as many as are compared."""
    key: int
    """Of the beginning that another text must share to be a duplicate of this one, if it is no shorter."""


def beginnings(text: str, words: int, fraction: float) -> Beginnings:
    """What duplicates of a text are found by."""
    parts = text.lower().split()
    so_far = blake2b(digest_size=8)
    heads = [int.from_bytes(so_far.digest(), "big")]
    for word in parts[:words]:
        so_far.update(word.encode() + _END)
        heads.append(int.from_bytes(so_far.digest(), "big"))
    key_length = min(words, max(1, math.ceil(fraction * len(parts) - 1e-9)))
    return Beginnings(heads, heads[min(key_length, len(parts))])


Heads = Iterable[tuple[NDArray[np.uint64], NDArray[np.int64]]]


class Known(NamedTuple):
    """All texts there are, by number, and which of their keys each begins with: whatever else one begins with is no key."""

    key: NDArray[np.int32]
    """Number of each text's key."""
    starts: NDArray[np.int64]
    """Where each text's share of ``within`` begins, and at last its end."""
    within: NDArray[np.int32]
    """Numbers of the keys that texts begin with, their own among them."""
    keys: int
    """Distinct ones."""

    @classmethod
    def of(cls, keys: NDArray[np.uint64], heads: Heads) -> "Known":
        """From digests.

        Args:
            keys: of every text.
            heads: of every text in the same order, a batch at a time: its digests, and how many of them each text has.
        """
        distinct, key = np.unique(keys, return_inverse=True)
        within, counts = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for digests, lengths in heads:
            places = np.minimum(np.searchsorted(distinct, digests), len(distinct) - 1)
            hits = distinct[places] == digests
            texts = np.repeat(np.arange(len(lengths)), lengths)
            within.append(places[hits].astype(np.int32))
            counts.append(np.bincount(texts[hits], minlength=len(lengths)))
        return cls(key.astype(np.int32), np.cumsum(np.concatenate(counts)), np.concatenate(within), len(distinct))


class PrefixIndex:
    """Kept texts, searchable for duplicates: of every key, whether a kept text has it, and whether one begins with it."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._keys, self._begun = np.zeros(known.keys, np.bool_), np.zeros(known.keys, np.bool_)

    def add(self, text: int) -> bool:
        """Keep a text and return True, or return False: it duplicates a kept one."""
        if text in self:
            return False
        self._keys[self._known.key[text]] = True
        self._begun[self._within(text)] = True
        return True

    def __contains__(self, text: int) -> bool:
        return bool(self._begun[self._known.key[text]] or self._keys[self._within(text)].any())

    def _within(self, text: int) -> NDArray[np.int32]:
        return self._known.within[self._known.starts[text] : self._known.starts[text + 1]]
