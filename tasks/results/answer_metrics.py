"""How an answer is scored: pure functions, each in [0, 1] unless it says otherwise.

Corpus metrics (BLEU) come with their sufficient statistics per item, so that a paired bootstrap can draw items and
compute the corpus figure anew. The libraries rouge-score and sacrebleu belong to the extra ``eval``.
"""

import importlib
import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tasks.engine.errors import ConfigError, DataError

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
NGRAMS = 4
"""Longest n-gram of BLEU."""
BLEU_COUNTS = 2 + 2 * NGRAMS
"""Numbers behind one BLEU item: answer length, reference length, matched and possible n-grams of each order."""


class ExactAndF1(NamedTuple):
    """Both figures of a question-answering benchmark."""

    exact: float
    f1: float


def squad_scores(answer: str, references: Sequence[str]) -> ExactAndF1:
    """SQuAD 2.0: the best match with any reference, on words in lower case without punctuation and articles.

    Args:
        answer: empty when the policy abstains.
        references: accepted answers; none when the question has no answer, and then only abstaining is right.

    Source: Rajpurkar et al. 2018 and its official evaluation script.
    """
    given = squad_words(answer)
    accepted = [words for words in map(squad_words, references) if words] or [[]]
    return ExactAndF1(
        exact=max(float(given == words) for words in accepted), f1=max(_bag_f1(given, words) for words in accepted)
    )


def squad_words(text: str) -> list[str]:
    """Words as SQuAD compares them."""
    bare = "".join(letter for letter in text.lower() if letter not in _PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()


def without_abstention(answer: str, phrase: str) -> str:
    """The answer, or nothing when it says ``phrase``, which is how the policy was told to abstain."""
    return "" if squad_words(answer) == squad_words(phrase) else answer


def drop_scores(answer: str | Sequence[str], references: Sequence[str | Sequence[str]]) -> ExactAndF1:
    """DROP: the best match with any reference; spans are paired one to one, a wrong number makes a span worthless.

    Args:
        answer: one span, or several.
        references: accepted answers, each one span or several.

    Source: Dua et al. 2019 and its official evaluation script, with the rounding of F1 to two places.
    """
    given = _drop_bags(answer)
    best = ExactAndF1(0.0, 0.0)
    for reference in references:
        first = reference if isinstance(reference, str) else (reference[0] if reference else "")
        if first.strip():
            found = _drop_match(given, _drop_bags(reference))
            best = ExactAndF1(max(best.exact, found.exact), max(best.f1, found.f1))
    return best


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, without stemming.

    Source: Lin 2004, computed by Google's rouge-score.
    """
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def sentence_bleu(answer: str, reference: str) -> float:
    """BLEU of one sentence, over the n-gram orders that it has; for looking at single items only."""
    return float(_bleu().sentence_score(answer, [reference]).score) / 100


def bleu_counts(answer: str, reference: str) -> list[int]:
    """What an item adds to the corpus BLEU: the ``BLEU_COUNTS`` numbers, which sum over items."""
    found = _bleu().sentence_score(answer, [reference])
    return [int(found.sys_len), int(found.ref_len), *map(int, found.counts), *map(int, found.totals)]


def corpus_bleu(counts: Sequence[Sequence[int]]) -> float:
    """BLEU of a corpus from the counts of its items, as a share of 1.

    Source: Papineni et al. 2002 as sacrebleu computes it (13a tokens, exponential smoothing, case kept).
    """
    if not len(counts):
        raise DataError("BLEU: no items; at least one is needed")
    return bleu_of_sums(np.asarray(counts, dtype=np.int64).sum(axis=0).tolist())


def bleu_of_sums(sums: Sequence[int]) -> float:
    """BLEU from counts that were already summed, as a share of 1."""
    found = _sacrebleu().BLEU.compute_bleu(
        correct=list(sums[2 : 2 + NGRAMS]),
        total=list(sums[2 + NGRAMS :]),
        sys_len=int(sums[0]),
        ref_len=int(sums[1]),
        smooth_method="exp",
        effective_order=False,
        max_ngram_order=NGRAMS,
    )
    return float(found.score) / 100


def mc1(logprobs: Sequence[float], labels: Sequence[int]) -> float:
    """TruthfulQA MC1: 1 when the likeliest choice is the true one; the first of equals counts.

    Args:
        logprobs: summed log-probability of each choice.
        labels: 1 for the true choice, 0 for the others.
    """
    return float(labels[max(range(len(logprobs)), key=logprobs.__getitem__)])


def mc2(logprobs: Sequence[float], labels: Sequence[int]) -> float:
    """TruthfulQA MC2: the true choices' share of the probability of all choices."""
    weights = np.exp(np.asarray(logprobs, dtype=np.float64) - max(logprobs))
    return float(weights[np.asarray(labels, dtype=bool)].sum() / weights.sum())


def nearer_to(answer: str, right: Sequence[str], wrong: Sequence[str]) -> bool:
    """Whether an answer is more like its best right reference than like its best wrong one, by ROUGE-L.

    A stand-in, without a network, for the paper's trained truth judge; figures of the two are not comparable.
    """
    return max(rouge_l(answer, text) for text in right) > max((rouge_l(answer, text) for text in wrong), default=0.0)


def _bag_f1(given: Sequence[str], expected: Sequence[str]) -> float:
    if not given or not expected:
        return float(not given and not expected)
    shared = (Counter(given) & Counter(expected)).total()
    return 2 * shared / (len(given) + len(expected))


def _drop_bags(answer: str | Sequence[str]) -> list[list[str]]:
    return [_drop_words(span) for span in ([answer] if isinstance(answer, str) else answer)]


def _drop_words(span: str) -> list[str]:
    words = []
    for token in re.split("[ -]", span.lower()):
        word = token if _is_number(token) else "".join(letter for letter in token if letter not in _PUNCTUATION)
        word = str(float(word)) if _is_number(word) else word
        words += _ARTICLES.sub(" ", word).split()
    return words


def _drop_match(given: list[list[str]], expected: list[list[str]]) -> ExactAndF1:
    from scipy.optimize import linear_sum_assignment

    shares = np.array([[_span_f1(set(answer), set(span)) for answer in given] for span in expected])
    rows, columns = linear_sum_assignment(-shares)
    f1 = float(shares[rows, columns].sum() / max(len(given), len(expected)))
    same = len(given) == len(expected) and set(map(tuple, given)) == set(map(tuple, expected))
    return ExactAndF1(exact=float(same), f1=round(f1, 2))


def _span_f1(given: set[str], expected: set[str]) -> float:
    numbers = {word for word in expected if _is_number(word)}
    if numbers and not numbers & given:
        return 0.0
    if not given or not expected:
        return float(not given and not expected)
    return 2 * len(given & expected) / (len(given) + len(expected))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _rouge() -> Any:
    return _library("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)


@lru_cache(maxsize=1)
def _bleu() -> Any:
    return _sacrebleu().BLEU(effective_order=True)


def _sacrebleu() -> Any:
    return _library("sacrebleu")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"metrics: the package {name.partition('.')[0]} is not installed; "
            "run `pip install -c constraints.txt -e .[eval]`"
        ) from error
