"""A chat model as labeler: it ranks all responses to a prompt by written principles (RLAIF, Constitutional AI)."""

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from tasks.chat.answers import Answer
from tasks.chat.endpoint import Messages, messages_of
from tasks.chat.model import ChatModel, answer_cache
from tasks.comparisons.agreement import PairCount, count_agreement, ranks_of_scores
from tasks.comparisons.labelers.config import ChatLabelerConfig
from tasks.comparisons.labelers.labeler import Labeler, Rankings, Unranked
from tasks.engine.errors import JudgeError
from tasks.language.seeds import named_random

_RANKING = re.compile(r"\[\[([A-Z](?:\s*[>=]\s*[A-Z])*)\]\]")
_PLACEHOLDER = re.compile(r"\{(principles|prompt|responses)\}")
Place = tuple[str, int]
"""An item, and which of its orders."""


class ChatLabeler(Labeler):
    """Shows a prompt's responses in several orders and ranks them by their mean place.

    Args:
        config: which model, and by which principles.
        home: folder that keeps answers from one run to the next.
        seed: of the orders in which responses are shown.

    Raises:
        ConfigError: the package or the API key is missing.
    """

    def __init__(self, config: ChatLabelerConfig, home: Path, seed: int) -> None:
        self._config, self._seed = config, seed
        self._model: ChatModel[Place] = ChatModel(
            config, answer_cache(home), "comparisons.chat", "leave chat out of comparisons.labelers"
        )
        self.orders = PairCount(0, 0)
        """Pairs of responses that two orders rank strictly, and those they rank the same way."""

    def check(self) -> None:
        """Somebody must answer at the address.

        Raises:
            JudgeError: nobody does, or the key is refused.
        """
        self._model.check()

    def label(self, items: Sequence[Unranked]) -> Rankings:
        """Rank every item; one that is left without an answer in one of its orders has no ranking.

        Raises:
            JudgeError: the endpoint refuses key or model, or too many items are left.
        """
        shown = {(item.item_id, turn): self.order(item, turn) for item in items for turn in range(self._config.orders)}
        by_id = {item.item_id: item for item in items}
        allowed = self._config.max_unranked_share * len(items)

        def usable(place: Place, text: str) -> bool:
            return ranking_in(text, len(shown[place])) is not None

        def too_many(lost: int) -> JudgeError | None:
            least = -(-lost // self._config.orders)  # even if lost questions are of the same items
            return self._too_many(least, len(items)) if least > allowed else None

        questions = {place: self.messages(by_id[place[0]], order) for place, order in shown.items()}
        answers = self._model.ask(questions, usable, too_many)
        found = {item.item_id: self._ranked(item, shown, answers) for item in items}
        unranked = sum(ranking is None for ranking in found.values())
        if unranked > allowed:
            raise self._too_many(unranked, len(items))
        name = f"chat:{self._config.model}"
        return {item.item_id: [item.ranked(ranks, name)] if (ranks := found[item.item_id]) else [] for item in items}

    def measured(self) -> dict[str, float]:
        """How often two orders rank a pair the same way: what is missing to 1 is a taste for places, or chance."""
        return {"agreement/chat_orders": self.orders.agreeing / self.orders.counted} if self.orders.counted else {}

    def spent(self) -> dict[str, float]:
        """Requests and tokens."""
        sent, received = self._model.tokens
        return {
            "labelers/chat_requests": self._model.requests,
            "labelers/chat_failures": sum(self._model.failures.values()),
            "labelers/chat_prompt_tokens": sent,
            "labelers/chat_completion_tokens": received,
        }

    def order(self, item: Unranked, turn: int) -> list[int]:
        """Which response is shown at which letter; every second order is the one before it in reverse."""
        order = list(range(len(item.candidates.completions)))
        named_random(self._seed, f"shown/{item.item_id}/{turn // 2}").shuffle(order)
        return order[::-1] if turn % 2 else order

    def messages(self, item: Unranked, order: Sequence[int]) -> Messages:
        """What is sent; texts that look like placeholders stay as they are."""
        responses = [
            f"[Response {letter}]\n{item.candidates.completions[index]}\n[End of response {letter}]"
            for letter, index in zip(ascii_uppercase, order, strict=False)
        ]
        texts = {
            "principles": "\n".join(f"- {principle}" for principle in self._config.principles),
            "prompt": item.text,
            "responses": "\n\n".join(responses),
        }
        return messages_of(
            self._config.system, _PLACEHOLDER.sub(lambda match: texts[match.group(1)], self._config.template)
        )

    def _ranked(
        self, item: Unranked, shown: dict[Place, list[int]], answers: dict[Place, Answer | None]
    ) -> list[int] | None:
        rankings = []
        for turn in range(self._config.orders):
            order, answer = shown[item.item_id, turn], answers[item.item_id, turn]
            if answer is None:
                return None
            places = ranking_in(answer.text, len(order))
            assert places is not None
            ranks = [0] * len(order)
            for index, rank in zip(order, places, strict=True):
                ranks[index] = rank
            rankings.append(ranks)
        for first, second in zip(rankings[::2], rankings[1::2], strict=False):
            both = count_agreement(first, second)
            self.orders = PairCount(self.orders.agreeing + both.agreeing, self.orders.counted + both.counted)
        return ranks_of_scores([-sum(ranks) for ranks in zip(*rankings, strict=True)])

    def _too_many(self, unranked: int, items: int) -> JudgeError:
        reasons = ", ".join(f"{reason} {count} times" for reason, count in self._model.failures.most_common())
        return JudgeError(
            f"comparisons.chat: at least {unranked} of {items} prompts are without a ranking ({reasons}), more than "
            f"comparisons.chat.max_unranked_share ({self._config.max_unranked_share:g}) allows; look at the endpoint "
            f"{self._config.base_url}, or at the template. Rankings that were given are kept on disk, so the next run asks only "
            "for the others"
        )


def ranking_in(text: str, count: int) -> list[int] | None:
    """Ranks of the responses A, B, ... in the last ranking that a text holds; None unless it ranks each exactly once."""
    found = _RANKING.findall(text)
    if not found:
        return None
    ranks: dict[str, int] = {}
    for tier in found[-1].split(">"):
        letters = [letter.strip() for letter in tier.split("=")]
        ranks |= dict.fromkeys(letters, 1 + len(ranks))
    letters_shown = ascii_uppercase[:count]
    complete = sorted(re.findall("[A-Z]", found[-1])) == list(letters_shown)
    return [ranks[letter] for letter in letters_shown] if complete else None
