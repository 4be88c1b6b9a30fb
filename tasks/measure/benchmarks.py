"""Automatic benchmarks, item by item, so that two policies can be compared on the same items.

Source: InstructGPT appendix D: multiple choice by the highest average per-token log-probability; generated answers at
temperature 0, cut at the first newline. (The paper's text says "lowest" log-probability, an evident slip.)
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.config import RuntimeConfig
from tasks.language.scorer import summed_logprobs
from tasks.language.speaker import Speaker
from tasks.language.text import decode_response, encode_prompt, encode_response
from tasks.measure.config import MeasureConfig
from tasks.records.records import BenchmarkItem, Document
from tasks.results.sheet import DocumentLoss, TaskResult

_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


class Subject(NamedTuple):
    """The model under evaluation and what is needed to run it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    runtime: RuntimeConfig


def run_benchmarks(subject: Subject, items: Sequence[BenchmarkItem], config: MeasureConfig) -> dict[str, TaskResult]:
    """Answer every item; results by task, tasks in the order of their first item."""
    correct: dict[str, int] = {}
    choices = [item for item in items if item.form == "choice"]
    exact = [item for item in items if item.form == "exact"]
    correct.update(zip([item.item_id for item in choices], _answer_choices(subject, choices, config), strict=True))
    correct.update(zip([item.item_id for item in exact], _answer_exact(subject, exact, config), strict=True))
    by_task: dict[str, list[str]] = {}
    for item in items:
        by_task.setdefault(item.task, []).append(item.item_id)
    return {
        task: TaskResult(item_ids=ids, correct=[correct[item_id] for item_id in ids]) for task, ids in by_task.items()
    }


def choose(logprobs: Sequence[float], tokens: Sequence[int], normalisation: str) -> int:
    """Index of the best choice, from the summed log-probability and the token count of each; the first of
    equals.
    """
    divisors = [max(count, 1) if normalisation == "per_token" else 1 for count in tokens]
    scores = [total / divisor for total, divisor in zip(logprobs, divisors, strict=True)]
    return max(range(len(scores)), key=scores.__getitem__)


def matches(answer: str, references: Sequence[str]) -> bool:
    """Whether ``answer``, up to its first newline, begins with a reference; case, spacing and glued marks
    are ignored.
    """
    words = _words(answer.split("\n", 1)[0])
    return any(words[: len(reference)] == reference for reference in map(_words, references) if reference)


def document_losses(subject: Subject, documents: Sequence[Document], config: MeasureConfig) -> DocumentLoss:
    """Negative log-likelihood of each document, EOS before it (as in packed pretraining) and after it."""
    eos = int(subject.tokenizer.eos_token_id)
    longest = config.context_tokens - 1
    rows = [encode_response(subject.tokenizer, document.text, "")[:longest] for document in documents]
    totals = sequence_logprobs(subject, [[eos]] * len(rows), rows)
    return DocumentLoss(nll=[-total for total in totals], tokens=[len(row) for row in rows])


def sequence_logprobs(
    subject: Subject, prompts: list[list[int]], responses: list[list[int]], temperature: float = 1.0
) -> list[float]:
    """Summed log-probability of each response given its prompt, nats."""
    pad = int(subject.tokenizer.pad_token_id)
    return summed_logprobs(subject.model, prompts, responses, pad, subject.runtime, temperature)


def _answer_choices(subject: Subject, items: Sequence[BenchmarkItem], config: MeasureConfig) -> list[int]:
    prompts, responses = [], []
    for item in items:
        context = encode_prompt(subject.tokenizer, item.context, config.context_tokens)
        for choice in item.choices:
            prompts.append(context)
            responses.append(
                encode_response(subject.tokenizer, choice, item.context)[:-1]
            )  # the choice itself, without EOS
    totals = sequence_logprobs(subject, prompts, responses)
    correct, start = [], 0
    for item in items:
        stop = start + len(item.choices)
        counts = [len(response) for response in responses[start:stop]]
        correct.append(int(choose(totals[start:stop], counts, config.benchmark_normalisation) == item.answer))
        start = stop
    return correct


def _answer_exact(subject: Subject, items: Sequence[BenchmarkItem], config: MeasureConfig) -> list[int]:
    answers = Speaker(*subject).answer(
        [encode_prompt(subject.tokenizer, item.context, config.context_tokens) for item in items],
        max_new_tokens=config.benchmark_answer_tokens,
        temperature=0.0,
    )
    return [
        int(matches(decode_response(subject.tokenizer, answer, item.context), item.references))
        for answer, item in zip(answers, items, strict=True)
    ]


def _words(text: str) -> list[str]:
    return _WORD_OR_MARK.findall(text.lower())
