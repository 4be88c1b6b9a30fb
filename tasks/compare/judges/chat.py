"""A chat model as judge: both orders, a verdict found by a rule, answers kept on disk, tokens and money counted."""

import logging
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tasks.chat.answers import Answer, AnswerCache
from tasks.chat.endpoint import Messages, messages_of
from tasks.chat.model import ChatModel
from tasks.compare.judges.config import ChatJudgeConfig
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
_MEANING = {"first": FIRST, "tie": TIE, "second": SECOND}
_PLACEHOLDER = re.compile(r"\{(prompt|first|second)\}")


class ChatJudge:
    """Asks a chat model which of two responses is better.

    Raises:
        ConfigError: the package or the API key is missing.
    """

    def __init__(self, name: str, config: ChatJudgeConfig, cache: AnswerCache) -> None:
        self.name = name
        self._config = config
        self._model: ChatModel[Question] = ChatModel(
            config, cache, "evaluation.judges.chat", "leave the chat judge out with evaluation/judges=scores"
        )
        self._pattern = re.compile(config.verdict_pattern, re.IGNORECASE)
        self._meaning = {text.casefold(): _MEANING[meaning] for text, meaning in config.verdicts.items()}

    @property
    def requests(self) -> int:
        """Requests sent by this object, failed ones included."""
        return self._model.requests

    @property
    def failures(self) -> Counter[str]:
        """Why attempts came to nothing, and how often."""
        return self._model.failures

    @property
    def usage(self) -> ChatUsage:
        """Tokens and money behind all verdicts so far."""
        sent, received = self._model.tokens
        prices = (self._config.price_per_million_prompt_tokens, self._config.price_per_million_completion_tokens)
        cost = None if prices[0] is None or prices[1] is None else (sent * prices[0] + received * prices[1]) / 1e6
        return ChatUsage(
            model=self._config.model,
            questions=self._model.answered,
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
        self._model.check()

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
        malformed = sum(self._model.malformed[question] for question in set(asked))
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

        def too_many(lost: int) -> JudgeError | None:
            pairs_lost = (lost + 1) // 2  # even if every two lost questions were of one pair
            return self._too_many(pairs_lost, pairs) if pairs_lost > allowed else None

        asked = {question: self.messages(question) for question in questions}
        return self._model.ask(asked, lambda _, text: self.verdict(text) is not None, too_many)

    def _too_many(self, unjudged: int, pairs: int) -> JudgeError:
        reasons = ", ".join(f"{reason} {count} times" for reason, count in self.failures.most_common())
        return JudgeError(
            f"judge {self.name}: at least {unjudged} of {pairs} pairs are without a verdict ({reasons}), more than "
            f"evaluation.judges.chat.max_unjudged_share ({self._config.max_unjudged_share:g}) allows; look at the endpoint "
            f"{self._config.base_url}, or at template and verdict_pattern. Verdicts that were given are kept on disk, so "
            "the next run asks only for the others"
        )
