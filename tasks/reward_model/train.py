"""Reward-model training, step by step (InstructGPT section 3.5, appendix C.2).

All completions of a prompt go through the model once and share one batch element, so no completion receives K-1
separate updates.
Deviations: the body starts from whatever model is given (the paper's final one was tuned on public NLP data).
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import DataError
from tasks.engine.ranks import here
from tasks.language.adapters import load_trained_state, trained_state
from tasks.language.batches import pad_batch
from tasks.language.descent import Descent, cosine
from tasks.language.models import ScalarModel
from tasks.language.precision import autocast
from tasks.language.scorer import score_rows
from tasks.language.shards import divide
from tasks.language.text import encode_prompt, encode_response
from tasks.language.token_table import TokenTable, of_lists
from tasks.records.rankings import (
    RankedPairs,
    RankedSequences,
    epoch_batches,
    my_prompts,
    rank_pairs,
    ranked_table,
    require_signal,
    tokens_of,
)
from tasks.records.records import Comparison, Demonstration
from tasks.reward_model.calibrate import unit_variance, zero_mean_bias
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.loss import summed_ranking_loss

STANDARDISATION_SAMPLES = 256
"""As in the 2019 code."""


def split_into_pairs(ranked: RankedSequences) -> list[RankedSequences]:
    """Every strictly ordered pair as a batch element of its own (``batch_element: pair``)."""
    pairs = rank_pairs([ranked.ranks], "all_pairs")
    return [
        RankedSequences(ranked.prompt, [ranked.completions[winner], ranked.completions[loser]], [1, 1 + places])
        for winner, loser, places in zip(
            pairs.winners.tolist(), pairs.losers.tolist(), pairs.distances.tolist(), strict=True
        )
    ]


def _prompts(elements: Sequence[RankedSequences]) -> TokenTable[list[int]]:
    """One for each completion."""
    return of_lists(element.prompt for element in elements for _ in element.completions)


def _completions(elements: Sequence[RankedSequences]) -> TokenTable[list[int]]:
    return of_lists(ids for element in elements for ids in element.completions)


class RewardLearner:
    """The state of one reward-model training: model, optimizer, place in the data.

    Args:
        model: trained in place.
        comparisons: training comparisons.
        tokenizer: the policy's tokenizer.
        config: see ``RewardModelConfig``.
        runtime: device limits; they change speed, not results.
    """

    def __init__(
        self,
        model: ScalarModel,
        comparisons: Sequence[Comparison],
        tokenizer: PreTrainedTokenizerBase,
        config: RewardModelConfig,
        runtime: RuntimeConfig,
    ) -> None:
        self.model, self.config, self.runtime, self.tokenizer = model, config, runtime, tokenizer
        self.pad_id = int(tokenizer.pad_token_id)
        divide(model, runtime)
        self.device = next(model.parameters()).device
        require_signal(comparisons, "reward model:")
        elements = (tokens_of(comparison, tokenizer, config) for comparison in comparisons)
        if config.batch_element == "pair":
            elements = (pair for element in elements for pair in split_into_pairs(element))
        self.elements = ranked_table(elements)
        self.batches = epoch_batches(
            len(self.elements), epochs=config.epochs, batch_size=config.batch_size, seed=config.seed
        )
        self.descent = Descent(
            model, config.adam.beside(config.adapter), cosine(len(self.batches), config.final_lr_fraction), self._idle
        )
        self.completed_steps = 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return len(self.batches)

    def step(self) -> dict[str, float]:
        """One optimizer step on ``batch_size`` batch elements."""
        started = time.perf_counter()
        # 1. Take the batch's elements.
        elements = [self.elements[index] for index in self.batches[self.completed_steps]]

        # 2. Score every completion once and add up the prompts' losses; a prompt is never cut in two.
        def add_up(groups: Sequence[list[int]]) -> tuple[Tensor, Tensor, int, int]:
            loss, right = (torch.zeros((), device=self.device) for _ in range(2))
            ordered = tokens = 0
            for together in groups:
                members = [elements[index] for index in together]
                prompts = [member.prompt for member in members for _ in member.completions]
                completions = [ids for member in members for ids in member.completions]
                scores = self._scores(prompts, completions)
                ranked = rank_pairs([member.ranks for member in members], self.config.tie_normaliser)
                pairs = RankedPairs(*(values.to(self.device) for values in ranked))
                share = summed_ranking_loss(scores, pairs, self.config.margin) / len(elements)
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.detach()
                right += (scores[pairs.winners] > scores[pairs.losers]).sum()
                ordered += len(pairs.winners)
                tokens += sum(map(len, prompts)) + sum(map(len, completions))
            return loss, right, ordered, tokens

        groups = my_prompts(elements, self.runtime.tokens_per_microbatch)
        loss, right, ordered, tokens = self.descent.add_up(groups, add_up)
        here().add(loss, right)
        ordered, tokens = here().total(ordered, tokens)
        # 3. Step.
        taken = self.descent.step(self.completed_steps)
        self.completed_steps += 1
        metrics = {
            "train/loss": float(loss),
            "train/learning_rate": taken.learning_rate,
            "train/grad_norm": taken.grad_norm,
            "train/tokens_per_second": tokens / (time.perf_counter() - started),
        }
        return metrics | {"train/accuracy": float(right) / ordered} if ordered else metrics

    def score(self, comparisons: Sequence[Comparison]) -> list[list[float]]:
        """Scores of the completions of other comparisons, for validation; one list per comparison."""
        elements = ranked_table(tokens_of(comparison, self.tokenizer, self.config) for comparison in comparisons)
        flat = iter(self._score_tokens(_prompts(elements), _completions(elements)))
        return [[next(flat) for _ in comparison.completions] for comparison in comparisons]

    def normalise(self, demonstrations: Sequence[Demonstration]) -> dict[str, float]:
        """Put the scores' zero, and perhaps their unit, where ``normalisation`` says; reports where they were."""
        if self.config.normalisation == "demonstrations":
            return self.centre(demonstrations)
        return self.standardise()

    @torch.no_grad()
    def standardise(self) -> dict[str, float]:
        """Scale and shift the scores so that completions of the first comparisons average 0 with variance 1.

        Gain and shift are stored in the head and in ``score_bias``. The 2019 code did this on 256 samples of the
        initial policy, which is what the completions are when the pipeline collects its own comparisons, and before
        training as well, where our head's initialisation already fixes the scale.
        """
        first = self.elements[:STANDARDISATION_SAMPLES]  # each has at least one completion
        prompts, completions = (rows[:STANDARDISATION_SAMPLES] for rows in (_prompts(first), _completions(first)))
        scores = torch.tensor(self._score_tokens(prompts, completions), dtype=torch.float64)
        gain, shift = unit_variance(scores)
        self.model.head.weight.mul_(gain)
        self.model.head.bias.mul_(gain)
        self.model.score_bias.copy_(gain * (self.model.score_bias + shift))
        return {"reward/completion_mean": shift, "reward/completion_std": 1.0 / gain}

    def centre(self, demonstrations: Sequence[Demonstration]) -> dict[str, float]:
        """Shift the scores so that demonstrations average 0, and report where they were.

        The shift is stored in the model's ``score_bias``, so the value model and evaluation share it. The spread of
        the scores is reported because beta only means something relative to it.

        Source: InstructGPT appendix C.2.
        """
        if not demonstrations:
            raise DataError(
                "reward model: found no demonstrations to centre the scores on, expected some in the train split; "
                "check data_prep"
            )
        prompts = of_lists(
            encode_prompt(self.tokenizer, item.prompt.text, self.config.prompt_tokens) for item in demonstrations
        )
        responses = of_lists(
            encode_response(self.tokenizer, item.response, item.prompt.text)[: self.config.response_tokens]
            for item in demonstrations
        )
        scores = torch.tensor(self._score_tokens(prompts, responses), dtype=torch.float64)
        bias = zero_mean_bias(scores)
        self.model.score_bias += bias
        return {"reward/demonstration_mean": bias, "reward/demonstration_std": float(scores.std(unbiased=False))}

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on bit for bit."""
        return {
            "model": trained_state(self.model),
            "optimizer": self.descent.state_dict(),
            "completed_steps": self.completed_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        load_trained_state(self.model, state["model"])
        self.descent.load_state_dict(state["optimizer"])
        self.completed_steps = int(state["completed_steps"])

    def _idle(self) -> Tensor:
        return 0.0 * self._scores([[0]], [[]]).sum()

    def _scores(self, prompts: list[list[int]], responses: list[list[int]]) -> Tensor:
        batch = pad_batch(prompts, responses, self.pad_id).to(self.device)
        with autocast(self.runtime):
            return self.model.scores(batch)

    def _score_tokens(self, prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> list[float]:
        return score_rows(self.model, prompts, responses, self.pad_id, self.runtime)
