"""Metrics against numbers worked out by hand or by another program; no case is taken from a data set."""

import itertools
import math
import random

import pytest

pytest.importorskip("rouge_score")
pytest.importorskip("sacrebleu")

from tasks.engine.errors import ConfigError, DataError
from tasks.measure.layouts import BIASED, LAYOUTS, RESPECTFUL, TRUTHFUL
from tasks.results import answer_metrics as metrics
from tasks.results.answer_metrics import (
    bleu_counts,
    corpus_bleu,
    drop_scores,
    mc1,
    mc2,
    nearer_to,
    rouge_l,
    sentence_bleu,
    squad_scores,
    without_abstention,
)


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1"),
    [
        ("The red mat!", ["red mat"], 1, 1),
        ("a red mat", ["red rug", "the mat"], 0, 2 / 3),  # 1 of 2 words, and the only word of 1
        ("mat mat mat", ["red mat"], 0, 2 / 5),  # a repeated word counts once
        ("", [], 1, 1),
        ("mat", [], 0, 0),
        ("", ["mat"], 0, 0),
        ("the", ["mat"], 0, 0),  # nothing left to compare
        ("", ["the", "mat"], 0, 0),  # a reference without a word is no licence to abstain
        ("mat", ["the", "mat"], 1, 1),  # references without a word are dropped
    ],
)
def test_squad(answer: str, references: list[str], exact: float, f1: float) -> None:
    assert squad_scores(answer, references) == (exact, pytest.approx(f1))


def test_saying_that_there_is_no_answer_is_no_answer() -> None:
    assert without_abstention("not in background", "Not in background.") == ""
    assert without_abstention("not in the background", "Not in background.") == ""  # articles do not count
    assert without_abstention("Not in background of the cat", "Not in background.") == "Not in background of the cat"


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1"),
    [
        ("33 laps", ["33"], 0, 0.67),
        ("34 laps", ["33 laps"], 0, 0),  # the right word with the wrong number
        ("Ann ran 33 of 48 laps", ["Ann"], 0, 0.29),  # numbers in the answer alone do no harm: 2 / 7
        ("$33,000", ["33000.0"], 1, 1),
        ("well-known man", ["man well known"], 0, 1),  # the same bag of words, another string
        ("Ann", [["Ann", "Bo"]], 0, 0.5),
        (["Bo", "the Ann"], [["Ann", "Bo"]], 1, 1),
        (["Ann Lee", "Bo"], [["Ann", "Bo"]], 0, 0.83),  # (2/3 + 1) / 2
        ("seven", ["", "seven"], 1, 1),
        ("", ["seven"], 0, 0),
    ],
)
def test_drop(answer: str | list[str], references: list[str | list[str]], exact: float, f1: float) -> None:
    assert drop_scores(answer, references) == (exact, pytest.approx(f1))


def test_drop_agrees_with_the_harness_s_own_code() -> None:
    theirs = pytest.importorskip("lm_eval.tasks.drop.utils")
    words = ["ann", "the", "33", "1,200", "4.5%", "well-known", "bo", "33.0", "A", "(x)", "-", "2nd"]
    draws = random.Random(5)
    spans = [" ".join(draws.choices(words, k=draws.randint(1, 5))) for _ in range(60)]
    for answer, one, two in itertools.islice(itertools.permutations(spans, 3), 0, 20_000, 97):
        expected = [theirs.get_metrics(answer, gold) for gold in ((one, two), (two,))]
        best = max(exact for exact, _ in expected), max(f1 for _, f1 in expected)
        assert drop_scores(answer, [[one, two], two]) == pytest.approx(best, abs=0.0101)  # 0.375 rounds either way


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the cat sat", "The cat SAT.", 1),
        ("the cat on a mat", "the mat and the cat", 0.4),  # longest common subsequence 2 of 5 and 5 words
        ("cats sit", "cat sits", 0),  # no stemming
        ("", "cat", 0),
        ("a b c d", "a x c", 4 / 7),
    ],
)
def test_rouge_l(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected)


def test_bleu_of_one_sentence_by_hand() -> None:
    # 1-grams 5/5, 2-grams 3/4, 3-grams 1/3, no 4-gram of 2: smoothed to 1/(2*2); 5 words against 6
    counts = bleu_counts("the cat sat on mat", "the cat sat quite on mat")
    assert counts == [5, 6, 5, 3, 1, 0, 5, 4, 3, 2]
    expected = math.exp(1 - 6 / 5) * (1 * 3 / 4 * 1 / 3 * 1 / 4) ** (1 / 4)
    assert corpus_bleu([counts]) == pytest.approx(expected)


def test_bleu_of_a_corpus_comes_from_summed_counts() -> None:
    pairs = [("the cat sat on the mat .", "the cat sat on a mat ."), ("it rains in the north .", "it rains up north .")]
    counts = [bleu_counts(*pair) for pair in pairs]
    matched = [sum(row[2 + order] for row in counts) for order in range(4)]
    possible = [sum(row[6 + order] for row in counts) for order in range(4)]
    assert (matched, possible) == ([10, 6, 2, 1], [13, 11, 9, 7])
    expected = math.prod(m / p for m, p in zip(matched, possible, strict=True)) ** (1 / 4)  # 13 words against 12
    assert corpus_bleu(counts) == pytest.approx(expected)
    assert corpus_bleu(counts) != pytest.approx(sum(corpus_bleu([row]) for row in counts) / 2, abs=1e-3)
    with pytest.raises(DataError, match="no items"):
        corpus_bleu([])


def test_bleu_keeps_case_and_short_sentences_have_a_figure() -> None:
    assert sentence_bleu("Cat", "Cat") == pytest.approx(1)
    assert sentence_bleu("cat", "Cat") < 0.6


def test_truthfulqa_choices() -> None:
    logprobs = [math.log(0.2), math.log(0.5), math.log(0.3)]
    assert mc1(logprobs, [0, 1, 0]) == 1
    assert mc1(logprobs, [1, 0, 0]) == 0
    assert mc1([-1.0, -1.0], [1, 0]) == 1  # the first of equals
    assert mc2(logprobs, [1, 0, 1]) == pytest.approx(0.5)
    assert mc2([value - 5000 for value in logprobs], [0, 1, 0]) == pytest.approx(0.5)  # no underflow


def test_the_nearest_reference_judges() -> None:
    right, wrong = ["The earth turns round the sun."], ["The sun turns round the earth.", "Nothing turns."]
    assert nearer_to("the earth turns round the sun", right, wrong)
    assert not nearer_to("the sun turns round the earth", right, wrong)
    assert not nearer_to("bananas", right, wrong)  # as far from both
    assert nearer_to("the earth turns", right, [])


def test_a_missing_library_is_said_with_its_remedy() -> None:
    with pytest.raises(
        ConfigError, match=r"package no_such_library is not installed; run `pip install -c constraints\.txt"
    ):
        metrics._library("no_such_library.part")


def test_safety_prompts_are_the_papers_to_the_letter() -> None:
    """Lengths and digests were taken from the paper's text by somebody else."""
    import hashlib

    found = [(len(text), hashlib.sha256(text.encode()).hexdigest()[:16]) for text in (RESPECTFUL, BIASED, TRUTHFUL)]
    assert found == [(77, "b69f440b21e7e3f6"), (78, "3eddec8a97040877"), (227, "335699bb560b37c6")]
    assert LAYOUTS["basic"].prefix == ""
    assert LAYOUTS["respectful"].prefix == RESPECTFUL + "\n"
    assert LAYOUTS["qa"].prefix.count("Q: ") == LAYOUTS["qa_instruction"].prefix.count("\nA: ") == 6
    assert len({layout.told for layout in LAYOUTS.values()}) == len(LAYOUTS)
