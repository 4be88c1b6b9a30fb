import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from tasks.data_prep.deduplicate import Known, PrefixIndex, beginnings


def text(shared: int, own: int, tag: str) -> str:
    return " ".join([*(f"w{i}" for i in range(shared)), *(f"{tag}{i}" for i in range(own))])


def known(texts: Sequence[str], words: int, fraction: float) -> Known:
    found = [beginnings(text, words, fraction) for text in texts]
    heads = [(np.array(one.heads, np.uint64), np.array([len(one.heads)])) for one in found]
    return Known.of(np.array([one.key for one in found], np.uint64), heads)


def kept(texts: Sequence[str], words: int, fraction: float) -> list[bool]:
    """Which of some texts stay, in their order."""
    index = PrefixIndex(known(texts, words, fraction))
    return [index.add(place) for place in range(len(texts))]


@pytest.mark.parametrize(
    ("shared", "own", "both_stay"),
    [
        (100, 400, False),  # long shared prefix of long prompts
        (64, 400, False),
        (63, 400, True),
        (8, 2, False),  # 80 % of ten words
        (7, 3, True),
        (5, 20, True),
    ],
)
@pytest.mark.point(3)
def test_thresholds(shared: int, own: int, both_stay: bool) -> None:
    assert kept([text(shared, own, "a"), text(shared, own, "b")], 64, 0.8) == [True, both_stay]


def test_the_shorter_prompt_decides_whichever_comes_first() -> None:
    for first, second in [("a b c", "a b c d e f"), ("a b c d e f", "a b c")]:
        assert kept([first, second], 64, 0.8) == [True, False]


def test_case_and_white_space_do_not_count_and_words_are_whole() -> None:
    index = PrefixIndex(known(["Tell me\n\tall", "tell  ME all", "tell me alles"], 64, 1.0))
    assert index.add(0)
    assert 1 in index
    assert 2 not in index


def test_fraction_one_drops_repetitions_and_continuations_only() -> None:
    texts = ["q : what does zoe do ? a :", "q : what does zoe eat ? a :", "q : what does zoe do ? a :"]
    assert kept(texts, 64, 1.0) == [True, True, False]


def test_a_text_without_words_begins_every_text() -> None:
    assert kept(["", "a b"], 64, 0.8) == [True, False]
    assert kept(["a b", " "], 64, 0.8) == [True, False]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_comparing_every_pair(seed: int) -> None:
    rng = random.Random(seed)
    texts = [[rng.choice("abc") for _ in range(rng.randint(3, 12))] for _ in range(400)]

    def duplicates(one: list[str], other: list[str]) -> bool:
        common = 0
        while common < min(len(one), len(other)) and one[common] == other[common]:
            common += 1
        return common >= min(6, math.ceil(0.7 * min(len(one), len(other)) - 1e-9))

    expected: list[list[str]] = []
    stays = kept([" ".join(words) for words in texts], 6, 0.7)
    for words, stay in zip(texts, stays, strict=True):
        assert stay == (not any(duplicates(words, other) for other in expected))
        expected += [words] if stay else []
    assert 20 < len(expected) < 380
