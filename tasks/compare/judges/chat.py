"""A chat model as judge: both orders, a verdict found by a rule, answers kept on disk, tokens and money counted."""

import logging
import re
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from tasks.compare.judges.answers import Answer, AnswerCache
from tasks.compare.judges.config import ChatJudgeConfig
from tasks.compare.judges.endpoint import Endpoint, Messages, Patience, Refused, TryAgain, messages_of
from tasks.engine.errors import JudgeError
from tasks.results.judge import (
    FIRST,
    SECOND,
    TIE,
    ChatUsage,
    Pair,
    PairVerdicts,
    Question,
    Verdict,
    judge_both_orders,
)
from tasks.results.win_rate import Resampling

logger = logging.getLogger("plumbline")
NO_VERDICT = "no verdict in the answer"
_MEANING = {"first": FIRST, "tie": TIE, "second": SECOND}
_PLACEHOLDER = re.compile(r"\{(prompt|first|second)\}")


class ChatJudge:
    """Asks a chat model which of two responses is better.

    Raises:
        ConfigError: the package or the API key is missing.
    """

    def __init__(self, name: str, config: ChatJudgeConfig, cache: AnswerCache) -> None:
        self.name = name
        self._config, self._cache = config, cache
        self._endpoint = Endpoint(config)
        self._pattern = re.compile(config.verdict_pattern, re.IGNORECASE)
        self._meaning = {text.casefold(): _MEANING[meaning] for text, meaning in config.verdicts.items()}
        self._lock = threading.Lock()
        self._used: dict[Question, Answer] = {}
        self._malformed: Counter[Question] = Counter()
        self.requests = 0
        """Requests sent by this object, failed ones included."""
        self.failures: Counter[str] = Counter()
        """Why attempts came to nothing, and how often."""

    @property
    def usage(self) -> ChatUsage:
        """Tokens and money behind all verdicts so far."""
        sent = sum(answer.prompt_tokens for answer in self._used.values())
        received = sum(answer.completion_tokens for answer in self._used.values())
        prices = (self._config.price_per_million_prompt_tokens, self._config.price_per_million_completion_tokens)
        cost = None if prices[0] is None or prices[1] is None else (sent * prices[0] + received * prices[1]) / 1e6
        return ChatUsage(
            model=self._config.model,
            questions=len(self._used),
            prompt_tokens=sent,
            completion_tokens=received,
            cost=cost,
        )

    def check(self) -> None:
        """What can be known to fail before any training.

        Raises:
            ConfigError: the package or the API key is missing.
            JudgeError: nobody answers at the address, or the key is refused.
        """
        self._endpoint.check()

    def notes(self, how: Resampling) -> list[str]:
        """None: the order effects tell."""
        return []

    def spent(self) -> dict[str, float]:
        """Requests, tokens and money; requests depend on what was asked before."""
        usage, failures = self.usage, dict(self.failures)
        logger.info(
            "chat judge %s: %d verdicts from %d requests, the others were on disk; failed attempts: %s",
            *(usage.model, usage.questions, self.requests, failures or "none"),
        )
        spent: dict[str, float] = {
            "judge/chat_requests": self.requests,
            "judge/chat_failures": sum(failures.values()),
            "judge/chat_questions": usage.questions,
            "judge/chat_prompt_tokens": usage.prompt_tokens,
            "judge/chat_completion_tokens": usage.completion_tokens,
        }
        return spent if usage.cost is None else {**spent, "judge/chat_cost": usage.cost}

    def judge(self, pairs: Sequence[Pair]) -> PairVerdicts:
        """Decide the first ``pairs_per_row`` pairs in both orders; the others stay without a verdict.

        Raises:
            JudgeError: the endpoint refuses key or model, or too many pairs are left without a verdict.
        """
        asked: list[Question] = []
        some = pairs[: self._config.pairs_per_row]
        allowed = self._config.max_unjudged_share * len(some)

        def ask(questions: Sequence[Question]) -> list[Verdict]:
            asked.extend(questions)
            answers = self._ask(questions, allowed, len(some))
            return [
                None if (found := answers[question]) is None else self.verdict(found.text) for question in questions
            ]

        judged, orders = judge_both_orders(self.name, ask, some)
        if orders.unjudged > allowed:
            raise self._too_many(orders.unjudged, len(some))
        outcomes = np.concatenate([judged, np.full(len(pairs) - len(some), np.nan)])
        malformed = sum(self._malformed[question] for question in set(asked))
        return PairVerdicts(outcomes, orders.model_copy(update={"malformed": malformed}))

    def verdict(self, text: str) -> Verdict:
        """The last match of the configured pattern, by its meaning; None without a match that means anything."""
        found = [match.group(1) for match in self._pattern.finditer(text)]
        return self._meaning.get(found[-1].casefold()) if found and found[-1] else None

    def messages(self, question: Question) -> Messages:
        """The question as it is sent; texts that look like placeholders stay as they are."""
        shown = question._asdict()
        return messages_of(
            self._config.system, _PLACEHOLDER.sub(lambda match: shown[match.group(1)], self._config.template)
        )

    def _ask(self, questions: Sequence[Question], allowed: float, pairs: int) -> dict[Question, Answer | None]:
        """Answer every different question; stops early when more than ``allowed`` pairs can no longer be judged."""
        patience, answers = Patience(self._config.backoff_seconds), dict[Question, Answer | None]()
        pool = ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="judge")
        try:
            futures = {pool.submit(self._answer, question, patience): question for question in dict.fromkeys(questions)}
            lost = 0
            for future in as_completed(futures):
                answers[futures[future]] = found = future.result()
                lost += found is None
                if (lost + 1) // 2 > allowed:  # even if every two lost questions were of one pair
                    raise self._too_many((lost + 1) // 2, pairs)
        finally:
            patience.called_off.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return answers

    def _answer(self, question: Question, patience: Patience) -> Answer | None:
        messages = self.messages(question)
        request = {"base_url": self._config.base_url, **self._endpoint.request(messages)}
        kept = self._cache.find(request)
        if kept is not None and self.verdict(kept.text) is not None:
            return self._note(question, kept)
        malformed = 0  # counted in what is kept, so that a second run, which asks nothing, reports the same
        for attempt in range(self._config.retries + 1):
            if patience.called_off.is_set():
                return None
            retry_after: float | None = None
            with self._lock:
                self.requests += 1
            try:
                text, sent, received = self._endpoint.send(messages)
            except JudgeError:
                patience.called_off.set()  # a wrong key or model is wrong for every question
                raise
            except Refused as refusal:
                self._fail(str(refusal))
                return None
            except TryAgain as failure:
                self._fail(failure.reason)
                retry_after = failure.retry_after
            else:
                if self.verdict(text) is not None:
                    answer = Answer(text=text, prompt_tokens=sent, completion_tokens=received, malformed=malformed)
                    self._cache.keep(request, answer)
                    return self._note(question, answer)
                malformed += 1
                self._fail(NO_VERDICT)
                self._malformed[question] = malformed
            if attempt < self._config.retries:
                patience.wait(attempt, retry_after)
        return None

    def _note(self, question: Question, answer: Answer) -> Answer:
        with self._lock:
            self._used[question] = answer
            self._malformed[question] = answer.malformed
        return answer

    def _fail(self, reason: str) -> None:
        with self._lock:
            self.failures[reason] += 1

    def _too_many(self, unjudged: int, pairs: int) -> JudgeError:
        reasons = ", ".join(f"{reason} {count} times" for reason, count in self.failures.most_common())
        return JudgeError(
            f"judge {self.name}: at least {unjudged} of {pairs} pairs are without a verdict ({reasons}), more than "
            f"evaluation.judges.chat.max_unjudged_share ({self._config.max_unjudged_share:g}) allows; look at the endpoint "
            f"{self._config.base_url}, or at template and verdict_pattern. Verdicts that were given are kept on disk, so "
            "the next run asks only for the others"
        )


def answer_cache(tracking_root: Path) -> AnswerCache:
    """Where a chat model's answers are kept, for all runs below one tracking root."""
    return AnswerCache(tracking_root / "judge_answers")
