"""Judges that give every response a number."""

from collections.abc import Sequence

import torch

from tasks.language.batches import microbatches, pad_batch
from tasks.language.models import ScalarModel
from tasks.records.records import Prompt
from tasks.results.judge import Answers
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

    def __init__(self, name: str, model: ScalarModel, pad_id: int, tokens_per_microbatch: int) -> None:
        self.name = name
        self._model, self._pad, self._tokens = model, pad_id, tokens_per_microbatch

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], answers: Answers) -> list[float]:
        """The scalar at the end of each response, in reward-model points."""
        scores = [0.0] * len(answers.tokens)
        lengths = [len(p) + len(r) for p, r in zip(answers.prompts, answers.tokens, strict=True)]
        device = self._model.head.weight.device
        for rows in microbatches(lengths, self._tokens) if lengths else []:
            batch = pad_batch([answers.prompts[row] for row in rows], [answers.tokens[row] for row in rows], self._pad)
            found = self._model.scores(batch.to(device)).float().tolist()  # (B,)
            for row, score in zip(rows, found, strict=True):
                scores[row] = score
        return scores
