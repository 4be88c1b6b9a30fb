"""Many questions to one chat model: side by side, again where that may help, and never twice about the same thing."""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Generic, TypeVar

from tasks.chat.answers import Answer, AnswerCache
from tasks.chat.config import ChatModelConfig
from tasks.chat.endpoint import Endpoint, Messages, Patience, Refused, TryAgain
from tasks.engine.errors import JudgeError

NO_VERDICT = "no verdict in the answer"
Question = TypeVar("Question", bound=Hashable)


class ChatModel(Generic[Question]):
    """A chat model and what it has answered; a question is whatever tells two of them apart.

    Args:
        config: which model, and how patiently it is asked.
        cache: answers of earlier runs.
        knob: where it is configured, for messages.
        without: how to do without it, for messages.

    Raises:
        ConfigError: the package or the API key is missing.
    """

    def __init__(self, config: ChatModelConfig, cache: AnswerCache, knob: str, without: str) -> None:
        self._config, self._cache = config, cache
        self._endpoint = Endpoint(config, knob, without)
        self._lock = threading.Lock()
        self._used: dict[Question, Answer] = {}
        self.malformed: Counter[Question] = Counter()
        """Answers that could not be used, by question."""
        self.requests = 0
        """Requests sent by this object, failed ones included."""
        self.failures: Counter[str] = Counter()
        """Why attempts came to nothing, and how often."""

    @property
    def answered(self) -> int:
        """Different questions with an answer, whether it was asked for now or found on disk."""
        return len(self._used)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens sent and received for these answers."""
        used = list(self._used.values())
        return sum(answer.prompt_tokens for answer in used), sum(answer.completion_tokens for answer in used)

    def check(self) -> None:
        """What can be known to fail before any training.

        Raises:
            JudgeError: nobody answers at the address, or the key is refused.
        """
        self._endpoint.check()

    def ask(
        self,
        questions: Mapping[Question, Messages],
        usable: Callable[[Question, str], bool],
        too_many: Callable[[int], JudgeError | None],
    ) -> dict[Question, Answer | None]:
        """Answer every question; None where no attempt brought an answer that can be used.

        Args:
            questions: with what is sent for each.
            usable: whether an answer can be used.
            too_many: the error to end with once so many questions are lost, or None to go on.

        Raises:
            JudgeError: the endpoint refuses key or model, or too many questions are lost.
        """
        patience, answers = Patience(self._config.backoff_seconds), dict[Question, Answer | None]()
        pool = ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="chat")
        try:
            futures = {
                pool.submit(self._answer, question, messages, usable, patience): question
                for question, messages in questions.items()
            }
            lost = 0
            for future in as_completed(futures):
                answers[futures[future]] = found = future.result()
                lost += found is None
                if found is None and (error := too_many(lost)) is not None:
                    raise error
        finally:
            patience.called_off.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return answers

    def _answer(
        self, question: Question, messages: Messages, usable: Callable[[Question, str], bool], patience: Patience
    ) -> Answer | None:
        request = {"base_url": self._config.base_url, **self._endpoint.request(messages)}
        kept = self._cache.find(request)
        if kept is not None and usable(question, kept.text):
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
                if usable(question, text):
                    answer = Answer(text=text, prompt_tokens=sent, completion_tokens=received, malformed=malformed)
                    self._cache.keep(request, answer)
                    return self._note(question, answer)
                malformed += 1
                self._fail(NO_VERDICT)
                self.malformed[question] = malformed
            if attempt < self._config.retries:
                patience.wait(attempt, retry_after)
        return None

    def _note(self, question: Question, answer: Answer) -> Answer:
        with self._lock:
            self._used[question] = answer
            self.malformed[question] = answer.malformed
        return answer

    def _fail(self, reason: str) -> None:
        with self._lock:
            self.failures[reason] += 1


def answer_cache(tracking_root: Path) -> AnswerCache:
    """Where a chat model's answers are kept, for all runs below one tracking root."""
    return AnswerCache(tracking_root / "judge_answers")
