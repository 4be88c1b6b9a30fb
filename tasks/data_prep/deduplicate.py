"""Drop prompts that repeat another one, or its long beginning.

Two prompts are duplicates when they share at least min(``words``, ``fraction`` of the shorter one) leading words;
case and white space do not count. The first seen is kept.

Source: InstructGPT appendix A.2 ("long common prefix"); both thresholds are our choice, and words stand
for tokens because the tokenizer may be trained on what is left.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

_END = "\x1f"  # closes every word, so that a prefix of the text is a sequence of whole words


def normalise(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())


class PrefixIndex:
    """Kept prompts, searchable for duplicates in logarithmic time.

    A kept prompt is stored twice: its first ``words`` words, and its *key*, the part that another prompt must begin
    with to be its duplicate. No key is a prefix of another, because the later of the two would have been a
    duplicate; so the only key that can be a prefix of a text is its predecessor in sorted order.
    """

    def __init__(self, words: int, fraction: float) -> None:
        self._words, self._fraction = words, fraction
        self._heads: list[str] = []
        self._keys: list[str] = []

    def add(self, text: str) -> bool:
        """Keep ``text`` and return True, or return False: it duplicates a kept one."""
        head, key = self._parts(text)
        if self._matches(head, key):
            return False
        insort(self._heads, head)
        insort(self._keys, key)
        return True

    def __contains__(self, text: str) -> bool:
        return self._matches(*self._parts(text))

    def _parts(self, text: str) -> tuple[str, str]:
        words = text.lower().split()
        key_length = min(self._words, max(1, math.ceil(self._fraction * len(words) - 1e-9)))
        return _closed(words[: self._words]), _closed(words[:key_length])

    def _matches(self, head: str, key: str) -> bool:
        after = bisect_left(self._heads, key)
        if after < len(self._heads) and self._heads[after].startswith(key):
            return True
        before = bisect_right(self._keys, head) - 1
        return before >= 0 and head.startswith(self._keys[before])


def _closed(words: Iterable[str]) -> str:
    return "".join(word + _END for word in words)
