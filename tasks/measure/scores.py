"""Judges that give every response a number."""

from collections.abc import Sequence

from tasks.engine.config import RuntimeConfig
from tasks.language.models import ScalarModel
from tasks.language.scorer import score_rows
from tasks.records.records import Prompt
from tasks.results.judge import Answers
from tasks.rewards.rewards import Answered, Rewards
from tasks.sandbox.gold import gold_score
from tasks.sandbox.world import World


class GoldLabeler:
    """The embedded world's gold labeler, who knows the truth."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self._world = world

    def score(self, prompts: Sequence[Prompt], answers: Answers) -> list[float]:
        """See :func:`tasks.sandbox.gold.gold_score`."""
        return [
            gold_score(self._world, prompt, text, finished).total
            for prompt, text, finished in zip(prompts, answers.texts, answers.finished, strict=True)
        ]


class RewardModelJudge:
    """A reward model: the one that was optimised, or a second one that nobody optimised."""

    def __init__(self, name: str, model: ScalarModel, pad_id: int, runtime: RuntimeConfig) -> None:
        self.name = name
        self._model, self._pad, self._runtime = model, pad_id, runtime

    def score(self, prompts: Sequence[Prompt], answers: Answers) -> list[float]:
        """The scalar at the end of each response, in reward-model points."""
        return score_rows(self._model, answers.prompts, answers.tokens, self._pad, self._runtime)


class RewardsJudge:
    """All parts of the reward that was optimised, combined as PPO combined them."""

    def __init__(self, name: str, rewards: Rewards) -> None:
        self.name, self._rewards = name, rewards

    def score(self, prompts: Sequence[Prompt], answers: Answers) -> list[float]:
        """The combined score of each response, before any rule about missing EOS."""
        if not prompts:
            return []
        answered = Answered(prompts, answers.texts, answers.finished, answers.prompts, answers.tokens)
        found: list[float] = self._rewards(answered).total.tolist()
        return found
