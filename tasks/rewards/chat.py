"""A reward that a chat model gives: one number a response, found in its answer by a rule."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.chat.endpoint import Messages, messages_of
from tasks.chat.model import ChatModel, answer_cache
from tasks.engine.errors import JudgeError
from tasks.rewards.config import ChatPart

_PLACEHOLDER = re.compile(r"\{(prompt|response)\}")


class Asked(NamedTuple):
    """One response to be scored."""

    prompt: str
    response: str


class ChatReward:
    """Asks for a number; equal questions are asked once, in all runs below one home folder.

    Raises:
        ConfigError: the package or the API key is missing.
    """

    def __init__(self, part: ChatPart, home: Path) -> None:
        self.name, self._part = part.name, part
        self._pattern = re.compile(part.score_pattern, re.IGNORECASE)
        knob, without = f"ppo.rewards part {part.name}", "take this part out of the list"
        self.model: ChatModel[Asked] = ChatModel(part, answer_cache(home), knob, without)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """One number a response.

        Raises:
            JudgeError: a response is left without one.
        """
        asked = [Asked(*pair) for pair in zip(prompts, responses, strict=True)]
        answers = self.model.ask(
            {question: self.messages(question) for question in asked},
            lambda question, text: self.number(text) is not None,
            lambda lost: self._lost(),
        )
        found = []
        for question in asked:
            answer = answers[question]
            number = None if answer is None else self.number(answer.text)
            if number is None:
                raise self._lost()
            found.append(number)
        return found

    def number(self, text: str) -> float | None:
        """The last match of the configured pattern as a number; None without one."""
        matches = [match.group(1) for match in self._pattern.finditer(text)]
        try:
            value = float(matches[-1]) if matches else math.nan
        except (TypeError, ValueError):
            return None
        return value if math.isfinite(value) else None

    def messages(self, asked: Asked) -> Messages:
        """The question as it is sent; texts that look like placeholders stay as they are."""
        shown = asked._asdict()
        return messages_of(
            self._part.system, _PLACEHOLDER.sub(lambda match: shown[match.group(1)], self._part.template)
        )

    def _lost(self) -> JudgeError:
        reasons = ", ".join(f"{reason} {count} times" for reason, count in self.model.failures.most_common())
        return JudgeError(
            f"ppo.rewards: part {self.name}: a response is left without a score ({reasons}), expected a number for "
            f"each; look at the endpoint {self._part.base_url}, or at template and score_pattern. Scores that were given are "
            "kept on disk, and the same command goes on from the last checkpoint"
        )


def home() -> Path:
    """Where answers are kept; every command sets it."""
    return Path(os.environ.get("PLUMBLINE_HOME") or ".plumbline")
