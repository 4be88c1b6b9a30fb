"""Many questions to a chat model: several at a time, again where it may help, and none that was answered before."""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Generic, TypeVar

from tasks.endpoint.answers import Answer, AnswerCache
from tasks.endpoint.client import Endpoint, Messages, Patience, Refused, TryAgain
from tasks.endpoint.config import EndpointConfig
from tasks.engine.errors import JudgeError

Question = TypeVar("Question", bound=Hashable)


class Asker(Generic[Question]):
    """Asks, and counts what that took.

    Args:
        config: the endpoint.
        cache: keeps answers from one run to the next.
        messages: what is sent for a question.
        understood: whether an answer means something; one that does not is asked for again.
        nothing: how failures are counted whose answer means nothing.
        knob: where the endpoint was configured, and what to do without it.

    Raises:
        ConfigError: the package or the API key is missing.
    """

    def __init__(
        self,
        config: EndpointConfig,
        cache: AnswerCache,
        messages: Callable[[Question], Messages],
        understood: Callable[[str], bool],
        nothing: str,
        knob: tuple[str, str],
    ) -> None:
        self.endpoint = Endpoint(config, *knob)
        self._config, self._cache, self._nothing = config, cache, nothing
        self._messages, self._understood = messages, understood
        self._lock = threading.Lock()
        self.used: dict[Question, Answer] = {}
        self.malformed: Counter[Question] = Counter()
        self.requests = 0
        """Requests sent by this object, failed ones included."""
        self.failures: Counter[str] = Counter()
        """Why attempts came to nothing, and how often."""

    @property
    def reasons(self) -> str:
        """Why attempts came to nothing, in words."""
        return ", ".join(f"{reason} {count} times" for reason, count in self.failures.most_common())

    def ask(
        self, questions: Sequence[Question], too_many: Callable[[int], JudgeError | None]
    ) -> dict[Question, Answer | None]:
        """Answer every different question; None where there is no answer that means something.

        Raises:
            JudgeError: what ``too_many`` makes of the number of questions that are lost, as soon as it makes something of it;
                or the endpoint refuses key or model.
        """
        patience, answers = Patience(self._config.backoff_seconds), dict[Question, Answer | None]()
        pool = ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="judge")
        try:
            futures = {pool.submit(self._answer, question, patience): question for question in dict.fromkeys(questions)}
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

    def _answer(self, question: Question, patience: Patience) -> Answer | None:
        messages = self._messages(question)
        request = {"base_url": self._config.base_url, **self.endpoint.request(messages)}
        kept = self._cache.find(request)
        if kept is not None and self._understood(kept.text):
            return self._note(question, kept)
        malformed = 0  # counted in what is kept, so that a second run, which asks nothing, reports the same
        for attempt in range(self._config.retries + 1):
            if patience.called_off.is_set():
                return None
            retry_after: float | None = None
            with self._lock:
                self.requests += 1
            try:
                text, sent, received = self.endpoint.send(messages)
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
                if self._understood(text):
                    answer = Answer(text=text, prompt_tokens=sent, completion_tokens=received, malformed=malformed)
                    self._cache.keep(request, answer)
                    return self._note(question, answer)
                malformed += 1
                self._fail(self._nothing)
                self.malformed[question] = malformed
            if attempt < self._config.retries:
                patience.wait(attempt, retry_after)
        return None

    def _note(self, question: Question, answer: Answer) -> Answer:
        with self._lock:
            self.used[question] = answer
            self.malformed[question] = answer.malformed
        return answer

    def _fail(self, reason: str) -> None:
        with self._lock:
            self.failures[reason] += 1


def answer_cache(tracking_root: Path) -> AnswerCache:
    """Where a chat model's answers are kept, for all runs below one tracking root."""
    return AnswerCache(tracking_root / "judge_answers")
