"""Direct preference optimisation, step by step (Rafailov et al. 2023, arXiv:2305.18290).

Deviations: a prompt's completions go through the model once, whatever the number of pairs they form, and every prompt
weighs the same, as in InstructGPT's reward model; pairs are those of a ranking, so K completions make up to K(K-1)/2.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.dpo.config import DPOConfig
from tasks.dpo.loss import PreferenceLosses, preference_losses
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import DataError
from tasks.engine.ranks import here
from tasks.language.adapters import load_trained_state, trained_state
from tasks.language.batches import pad_batch
from tasks.language.descent import Descent, cosine
from tasks.language.logprobs import response_logprobs
from tasks.language.precision import autocast
from tasks.language.shards import divide, in_step
from tasks.records.rankings import (
    RankedSequences,
    epoch_batches,
    margins,
    my_prompts,
    ordered_pairs,
    rank_pairs,
    ranked_table,
    tokens_of,
)
from tasks.records.records import Comparison


class ImplicitRewards(NamedTuple):
    """How the policy's implicit reward orders pairs that the labeler ordered strictly."""

    pairs: int
    accuracy: float
    """Fraction with the chosen completion's reward above the other's; equal rewards count as wrong."""
    margin: float
    """Mean reward of the chosen minus that of the rejected."""


class DPOLearner:
    """The state of one DPO training: policy, optimizer, place in the data.

    Args:
        policy: trained in place, without dropout.
        reference: frozen; where the policy starts, sharing what the policy does not train.
        comparisons: training comparisons; those whose completions are all tied are left out.
        tokenizer: its EOS closes every finished completion.
        config: see ``DPOConfig``.
        runtime: device limits; they change speed, not results.

    Raises:
        DataError: no comparison orders two completions.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        comparisons: Sequence[Comparison],
        tokenizer: PreTrainedTokenizerBase,
        config: DPOConfig,
        runtime: RuntimeConfig,
    ) -> None:
        self.elements = ranked_table(
            tokens_of(item, tokenizer, config) for item in comparisons if ordered_pairs(item.ranks)
        )
        if not self.elements:
            raise DataError(
                f"dpo: found no strictly ordered pair in {len(comparisons)} training comparisons, expected at least one; "
                "check the comparisons stage"
            )
        self.policy, self.reference = policy.eval(), reference.eval().requires_grad_(False)
        for network in (self.policy, self.reference):
            divide(network, runtime)
        self.config, self.runtime, self.tokenizer = config, runtime, tokenizer
        self.pad_id = int(tokenizer.pad_token_id)
        self.device = next(policy.parameters()).device
        self.batches = epoch_batches(
            len(self.elements), epochs=config.epochs, batch_size=config.batch_size, seed=config.seed
        )
        self.descent = Descent(
            policy, config.adam.beside(config.adapter), cosine(len(self.batches), config.final_lr_fraction), self._idle
        )
        self.completed_steps = 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return len(self.batches)

    @property
    def counted_tokens(self) -> int:
        """Tokens of completions that the whole training learns from."""
        return sum(len(ids) for batch in self.batches for index in batch for ids in self.elements[index].completions)

    def step(self) -> dict[str, float]:
        """One optimizer step on ``batch_size`` prompts."""
        started = time.perf_counter()
        # 1. Take the batch's prompts.
        elements = [self.elements[index] for index in self.batches[self.completed_steps]]

        # 2. Read every completion once with both models and add up the prompts' losses.
        def add_up(groups: Sequence[list[int]]) -> tuple[Tensor, Tensor, Tensor, int, int]:
            loss, right, margin = (torch.zeros((), device=self.device) for _ in range(3))
            ordered = tokens = 0
            for together in groups:
                members = [elements[index] for index in together]
                found, weights = self._pairs(members)
                share = (found.losses * weights).sum() / len(elements)
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.detach()
                right += (found.chosen_rewards > found.rejected_rewards).sum()
                margin += (found.chosen_rewards - found.rejected_rewards).sum()
                ordered += len(weights)
                tokens += sum(len(member.prompt) + len(ids) for member in members for ids in member.completions)
            return loss, right, margin, ordered, tokens

        groups = my_prompts(elements, self.runtime.tokens_per_microbatch)
        loss, right, margin, ordered, tokens = self.descent.add_up(groups, add_up)
        here().add(loss, right, margin)
        ordered, tokens = here().total(ordered, tokens)
        # 3. Step.
        taken = self.descent.step(self.completed_steps)
        self.completed_steps += 1
        return {
            "train/loss": float(loss),
            "train/accuracy": float(right) / ordered,
            "train/margin": float(margin) / ordered,
            "train/learning_rate": taken.learning_rate,
            "train/grad_norm": taken.grad_norm,
            "train/tokens_per_second": tokens / (time.perf_counter() - started),
        }

    @torch.no_grad()
    def measure(self, comparisons: Sequence[Comparison]) -> ImplicitRewards | None:
        """Implicit rewards on other comparisons, every pair weighing the same; None when nothing is ordered."""
        elements = [tokens_of(item, self.tokenizer, self.config) for item in comparisons if ordered_pairs(item.ranks)]
        right, margin, pairs = 0, 0.0, 0
        groups = my_prompts(elements, self.runtime.tokens_per_microbatch)
        with in_step(self.policy, len(groups), self._idle):
            for together in groups:
                found, _ = self._pairs([elements[index] for index in together])
                gaps = found.chosen_rewards - found.rejected_rewards
                right, margin, pairs = right + int((gaps > 0).sum()), margin + float(gaps.sum()), pairs + len(gaps)
        right, pairs = here().total(right, pairs)
        (margin,) = here().total(margin)
        return ImplicitRewards(pairs, right / pairs, margin / pairs) if pairs else None

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on bit for bit; the reference never changes."""
        return {
            "policy": trained_state(self.policy),
            "optimizer": self.descent.state_dict(),
            "completed_steps": self.completed_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        load_trained_state(self.policy, state["policy"])
        self.descent.load_state_dict(state["optimizer"])
        self.completed_steps = int(state["completed_steps"])

    def _idle(self) -> Tensor:
        found, _ = self._pairs([RankedSequences([0], [[]], [1])])
        return found.losses.sum()

    def _pairs(self, members: Sequence[RankedSequences]) -> tuple[PreferenceLosses, Tensor]:
        """Losses of all pairs of some prompts, and their weights: 1 / pairs of the prompt."""
        prompts = [member.prompt for member in members for _ in member.completions]
        completions = [ids for member in members for ids in member.completions]
        batch = pad_batch(prompts, completions, self.pad_id).to(self.device)
        with autocast(self.runtime):
            policy = response_logprobs(self.policy, batch, 1.0).sum(dim=1)  # (N,)
            with torch.no_grad():
                reference = response_logprobs(self.reference, batch, 1.0).sum(dim=1)
        # Ties are dropped, and a prompt with ties weighs as much as one without.
        winners, losers, weights, distances = (
            part.to(self.device) for part in rank_pairs([member.ranks for member in members], "surviving_pairs")
        )
        found = preference_losses(
            policy[winners],
            policy[losers],
            reference[winners],
            reference[losers],
            beta=self.config.beta,
            kind=self.config.loss,
            label_smoothing=self.config.label_smoothing,
            margins=margins(distances, self.config.margin).to(policy.dtype),
        )
        return found, weights.to(policy.dtype)
