"""A reward model as labeler: a teacher, for distillation and for measuring over-optimisation."""

from collections.abc import Sequence
from pathlib import Path

from tasks.comparisons.labelers.config import TeacherConfig
from tasks.comparisons.labelers.labeler import Labeler, Rankings, Unranked
from tasks.engine.config import RuntimeConfig
from tasks.language.reward_folder import check_reward_model, load_reward_model
from tasks.language.types import PreTrainedTokenizerBase
from tasks.records.rankings import SequenceLimits

KNOB = "comparisons.reward_model.folder"


class Teacher(Labeler):
    """Ranks by the scores of a reward model in a folder."""

    def __init__(
        self,
        config: TeacherConfig,
        tokenizer: PreTrainedTokenizerBase | None,
        limits: SequenceLimits,
        runtime: RuntimeConfig,
    ) -> None:
        self._config, self._tokenizer, self._limits, self._runtime = config, tokenizer, limits, runtime
        self._folder = Path(config.folder or "")

    def check(self) -> None:
        """The folder must hold a reward model.

        Raises:
            ModelError: it does not.
        """
        check_reward_model(self._folder, KNOB)

    def label(self, items: Sequence[Unranked]) -> Rankings:
        """Neighbouring scores within the margin tie.

        Raises:
            ModelError: the model does not know the policy's tokens.
        """
        from tasks.comparisons.disputed import scores_of  # torch

        assert self._tokenizer is not None
        model = load_reward_model(self._folder, self._runtime.device, self._tokenizer, KNOB)
        found = scores_of(model, [item.candidates for item in items], self._tokenizer, self._limits, self._runtime)
        return {
            item.item_id: [item.ranked(ranks_within(scores, self._config.tie_margin), "reward_model")]
            for item, scores in zip(items, found, strict=True)
        }


def ranks_within(scores: Sequence[float], margin: float) -> list[int]:
    """Ranks of scores, highest first; a score within ``margin`` of the next higher one shares its rank."""
    ranks = [0] * len(scores)
    rank = 0
    last = float("inf")
    for place, index in enumerate(sorted(range(len(scores)), key=lambda index: -scores[index]), start=1):
        if last - scores[index] > margin:
            rank = place
        ranks[index], last = rank, scores[index]
    return ranks
