"""Which test prompts ask what a training prompt asks too, behind another opening ("hello , ..." for "be honest , ...").

Splits share no owner and no text, but two owners may ask the same thing. What a policy does there may be memory; the figures
on the other prompts are not.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

OPENING_WORDS = 3
"""Words that may differ at the beginning. Ours: the longest opening of the embedded world; with 4, requests that differ in
an entity ("i bought salt , what does it do ?") begin to count as equal."""
SHARED = 0.5
"""Share of the longer request's words that the common end must have, so that short requests do not match by accident."""


def repeated(prompts: Sequence[str], known: Iterable[str]) -> list[bool]:
    """For each of ``prompts``, whether one of ``known`` ends in the same request; case and white space do not count.

    The words that all ``prompts`` begin and end with are their layout; they are no part of the request.
    """
    asked = [text.lower().split() for text in prompts]
    head, tail = _shared(asked), _shared([words[::-1] for words in asked])
    asked = [_request(words, head, tail) for words in asked]
    endings: defaultdict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for text in set(known):
        words = _request(text.lower().split(), head, tail)
        for start in range(min(OPENING_WORDS + 1, len(words))):
            endings[tuple(words[start:])].append(words)
    return [any(_same(words, endings, start) for start in range(OPENING_WORDS + 1)) for words in asked]


def _same(words: list[str], endings: dict[tuple[str, ...], list[list[str]]], start: int) -> bool:
    end = tuple(words[start:])
    return any(len(end) >= SHARED * max(len(words), len(other)) for other in endings.get(end, ()) if end)


def _request(words: list[str], head: int, tail: int) -> list[str]:
    return words[head : len(words) - tail]


def _shared(rows: Sequence[Sequence[str]]) -> int:
    """Words that all rows begin with; none where one row says nothing about what is layout."""
    if len(rows) < 2:
        return 0
    shortest = min(map(len, rows))
    count = next((place for place in range(shortest) if len({row[place] for row in rows}) > 1), shortest)
    return min(count, max(0, shortest - 1))
