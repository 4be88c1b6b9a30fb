"""One iteration's experience: responses sampled by the policy, and all that is known about them before training.

Shapes: B sequences, W columns of response tokens (see ``rewards.Placement``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.engine.errors import ModelError
from tasks.engine.ranks import here
from tasks.language.batches import TokenBatch, nothing_asked, pad_batch
from tasks.language.generation import truncate_after_eos
from tasks.language.logprobs import TokenStatistics, response_logprobs
from tasks.language.models import ScalarModel
from tasks.language.precision import rounded_once
from tasks.language.room import Room, nothing
from tasks.language.share import my_microbatches
from tasks.ppo.config import PPOConfig
from tasks.ppo.rewards import MISSING_EOS_RULES, PLACEMENTS, Placement

REWARD_SUM_TOLERANCE = 1e-4


class Networks(NamedTuple):
    """The networks of PPO; only the first and the last are trained."""

    policy: PreTrainedModel
    reference: PreTrainedModel
    reward_model: ScalarModel | None
    """None where no part of the reward is the run's own reward model."""
    value_model: ScalarModel | None
    """None where advantages compare responses to one prompt."""

    @property
    def present(self) -> list[nn.Module]:
        """Those that there are."""
        return [network for network in self if network is not None]


@dataclass(frozen=True)
class Episodes:
    """Prompts and the responses sampled to them, as token ids."""

    prompts: list[list[int]]
    responses: list[list[int]]  # what the policy chose and is trained on
    scored: list[list[int]]  # what the reward model reads: up to the first EOS
    valued: list[list[int]]  # what the value model reads: one more column when the score is paid after EOS
    finished: list[bool]  # ended with EOS

    @classmethod
    def of(
        cls, prompts: list[list[int]], responses: list[list[int]], config: PPOConfig, ids: "SpecialIds"
    ) -> "Episodes":
        """Lay out sampled responses for the placement of the score that ``config`` asks for."""
        scored = [truncate_after_eos(response, ids.eos) for response in responses]
        valued = responses
        if config.score_position == "after_eos":
            # the id in the extra column is never read: its value is that of the state before it
            valued = [[*r, ids.pad] if len(r) < config.response_tokens else r for r in responses]
        finished = [response[-1] == ids.eos for response in scored]
        return cls(prompts, responses, scored, valued, finished)


class SpecialIds(NamedTuple):
    """Token ids with a meaning; they differ."""

    eos: int
    pad: int


class Microbatch(NamedTuple):
    """Rows that go through the networks together."""

    rows: Tensor  # (b,) their place among the episodes
    batch: TokenBatch
    valued: TokenBatch

    def halves(self) -> "list[Microbatch]":
        """The same rows in two; one where there is one row."""
        middle = len(self.rows) // 2
        parts = (slice(0, middle), slice(middle, None)) if middle else (slice(None),)
        cut = []
        for part in parts:
            batch, valued = (TokenBatch(*(tensor[part] for tensor in whole)) for whole in (self.batch, self.valued))
            cut.append(Microbatch(self.rows[part], batch, valued))
        return cut


class Minibatch(NamedTuple):
    """The episodes of one optimizer step."""

    cuts: list[Microbatch]  # of the rows that are this rank's
    response_tokens: int  # in all rows, whichever rank has them
    value_tokens: int


@dataclass(frozen=True)
class Rollout:
    """What stays fixed while the iteration trains."""

    placement: Placement
    lengths: Tensor  # (B,) tokens trained on
    finished: Tensor  # (B,) bool
    raw_score: Tensor  # (B,) reward model, or all parts of the reward
    score: Tensor  # (B,) after the missing-EOS rule
    logprobs: Tensor  # (B, W) fp32
    reference_logprobs: Tensor  # (B, W) fp32
    entropy: Tensor  # (B, W) nats, of the distribution each token was drawn from
    values: Tensor | None  # (B, W) of the state before each token; None without a value model


def cut_into_microbatches(
    episodes: Episodes, rows: Sequence[int], tokens_per_microbatch: int, pad_id: int, device: torch.device
) -> Minibatch:
    """Groups of rows of like length that fit the token budget, padded and on ``device``."""
    lengths = [len(episodes.prompts[row]) + len(episodes.valued[row]) for row in rows]
    cuts = []
    for group in my_microbatches(lengths, tokens_per_microbatch):
        members = [rows[i] for i in group]
        prompts = [episodes.prompts[row] for row in members]
        responses, values = [episodes.responses[row] for row in members], [episodes.valued[row] for row in members]
        batch = pad_batch(prompts, responses, pad_id).to(device)
        valued = batch if values == responses else pad_batch(prompts, values, pad_id).to(device)
        cuts.append(Microbatch(torch.tensor(members, device=device), batch, valued))
    counts = (sum(len(parts[row]) for row in rows) for parts in (episodes.responses, episodes.valued))
    return Minibatch(cuts, *counts)


@torch.no_grad()
def evaluate_episodes(
    networks: Networks,
    episodes: Episodes,
    cuts: Sequence[Microbatch],
    config: PPOConfig,
    pad_id: int,
    device: torch.device,
    sampled: TokenStatistics | None = None,
) -> Rollout:
    """Run the networks over the very microbatches that training will use.

    Without ``sampled``, what the sampling policy thought of its tokens is recomputed: with the same kernels and the same
    batches as the training forward, the first minibatch's ratios are exactly 1 (docs/method.md D.4). With it, one forward pass of
    the four is saved, and those ratios are 1 up to rounding. Ranks divide the microbatches; all get the whole tables.

    Args:
        networks: all in evaluation mode.
        episodes: B of them.
        cuts: microbatches of this rank; those of all ranks hold every episode once.
        config: see ``PPOConfig``.
        pad_id: fills rows of a microbatch.
        device: of the networks.
        sampled: (B, response_tokens) as noted while sampling.
    """
    lengths = torch.tensor([len(response) for response in episodes.responses], device=device)
    finished = torch.tensor(episodes.finished, device=device)
    placement = PLACEMENTS[config.score_position](lengths, config.response_tokens)
    logprobs, reference, entropy, values = (torch.zeros(placement.value_mask.shape, device=device) for _ in range(4))
    critic = networks.value_model
    raw_score = torch.zeros(len(lengths), device=device)
    divided = [reference, values, raw_score]
    if sampled is None:
        divided += [logprobs, entropy]
    else:
        for table, noted in ((logprobs, sampled.logprobs), (entropy, sampled.entropy)):
            width = min(table.shape[1], noted.shape[1])  # nothing but 0 behind it
            table[:, :width] = noted[:, :width]

    def read(cuts: Sequence[Microbatch]) -> None:
        for cut in cuts:
            if sampled is None:
                old, spread = response_logprobs(networks.policy, cut.batch, config.temperature, with_entropy=True)
                write_rows(logprobs, cut.rows, old)
                write_rows(entropy, cut.rows, spread)
            write_rows(reference, cut.rows, response_logprobs(networks.reference, cut.batch, config.temperature))
            if critic is not None:
                write_rows(values, cut.rows, critic.values(cut.valued))
            if networks.reward_model is not None:
                raw_score[cut.rows] = networks.reward_model.scores(_scored_batch(episodes, cut, pad_id)).float()

    def idle() -> None:
        batch = nothing_asked(device)
        read([Microbatch(torch.zeros(0, dtype=torch.long, device=device), batch, batch)])

    with rounded_once(*networks.present):
        Room(networks.policy, idle).fit(cuts, read, nothing)
    here().add(*divided)
    score = MISSING_EOS_RULES[config.missing_eos](raw_score, finished, config.missing_eos_score)
    known = None if critic is None else values
    return Rollout(placement, lengths, finished, raw_score, score, logprobs, reference, entropy, known)


def write_rows(table: Tensor, rows: Tensor, block: Tensor) -> None:
    """Put a microbatch's (b, R) into its rows of a (B, W) table, R <= W."""
    table[rows, : block.shape[1]] = block.detach().float()


def _scored_batch(episodes: Episodes, cut: Microbatch, pad_id: int) -> TokenBatch:
    rows = cut.rows.tolist()
    if all(len(episodes.scored[row]) == len(episodes.responses[row]) for row in rows):
        return cut.batch
    prompts = [episodes.prompts[row] for row in rows]
    return pad_batch(prompts, [episodes.scored[row] for row in rows], pad_id).to(cut.rows.device)


def check_networks(networks: Networks, config: PPOConfig) -> None:
    """What is trained must not be in a frozen network too, and prompt plus response must fit the policy."""
    for trained, frozen in (("policy", "reference"), ("value_model", "reward_model")):
        network, other = getattr(networks, trained), getattr(networks, frozen)
        own = [] if network is None else [part for part in network.parameters() if part.requires_grad]
        if other is not None and _addresses(own) & _addresses(other.parameters()):
            raise ModelError(
                f"ppo: {trained} shares parameters with {frozen}, expected a separate copy; pass a deep copy"
            )
    context = getattr(networks.policy.config, "max_position_embeddings", None)
    longest = config.prompt_tokens + config.response_tokens
    if context is not None and longest > context:
        raise ModelError(
            f"ppo: prompt_tokens ({config.prompt_tokens}) + response_tokens ({config.response_tokens}) = {longest} "
            f"exceed the policy's context of {context} tokens; lower one of them"
        )


def _addresses(parameters: Iterable[Tensor]) -> set[int]:
    return {parameter.data_ptr() for parameter in parameters}


def check_reward_sums(rewards: Tensor, rollout: Rollout, beta: float) -> None:
    """Token rewards (B, W) must add up to the bracket of eq. 2, response by response."""
    mask = rollout.placement.response_mask
    log_ratio = ((rollout.logprobs - rollout.reference_logprobs) * mask).sum(dim=1)
    expected = rollout.score - beta * log_ratio
    worst = (rewards.sum(dim=1) - expected).abs().max().item()
    assert worst <= REWARD_SUM_TOLERANCE, f"rewards of a response miss score - beta * log-ratio by {worst:.2e} points"
