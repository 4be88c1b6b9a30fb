"""A reward model as labeler: a teacher, for distillation and for measuring over-optimisation."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tasks.comparisons.labelers.config import TeacherConfig
from tasks.comparisons.labelers.labeler import Labeler, Rankings, Unranked
from tasks.engine.config import RuntimeConfig
from tasks.language.reward_folder import check_reward_model, load_reward_model
from tasks.language.scorer import score_rows
from tasks.records.rankings import SequenceLimits, tokens_of

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
        assert self._tokenizer is not None
        model = load_reward_model(self._folder, self._runtime.device, self._tokenizer, KNOB)
        places, prompts, responses = [], [], []
        for item in items:
            count = len(item.candidates.completions)
            tokens = tokens_of(item.ranked([1] * count, "none"), self._tokenizer, self._limits)
            places += [item.item_id] * count
            prompts += [tokens.prompt] * count
            responses += tokens.completions
        pad = int(self._tokenizer.pad_token_id)
        scores = score_rows(model, prompts, responses, pad, self._runtime)
        found: dict[str, list[float]] = {item.item_id: [] for item in items}
        for place, score in zip(places, scores, strict=True):
            found[place].append(score)
        margin = self._config.tie_margin
        return {
            item.item_id: [item.ranked(ranks_within(found[item.item_id], margin), "reward_model")] for item in items
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
