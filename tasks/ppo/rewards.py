"""From one score per response to one reward per token.

Shapes: B sequences, W columns of response tokens (wide enough for the chosen placement of the score). Masks are True
on what counts. Units: reward-model points; log-probabilities are in nats.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor


def replace_missing_eos(score: Tensor, finished: Tensor, missing_eos_score: float) -> Tensor:
    """A response that was cut off scores ``missing_eos_score``, whatever the reward model said.

    ``score`` and ``finished`` are (B,). Demonstrations average 0, so -1 is a poor score; but it is a gift to a response
    the reward model puts below it. Source: 2019 code, N+.
    """
    return torch.where(finished, score, torch.full_like(score, missing_eos_score))


def subtract_for_missing_eos(score: Tensor, finished: Tensor, missing_eos_score: float) -> Tensor:
    """A response that was cut off loses ``-missing_eos_score`` points. Source: TRL's missing_eos_penalty."""
    return torch.where(finished, score, score + missing_eos_score)


def cap_missing_eos(score: Tensor, finished: Tensor, missing_eos_score: float) -> Tensor:
    """A response that was cut off scores at most ``missing_eos_score``. Our choice: never a gift (docs/method.md D.4)."""
    return torch.where(finished, score, score.clamp(max=missing_eos_score))


def keep_missing_eos(score: Tensor, finished: Tensor, missing_eos_score: float) -> Tensor:
    """A response that was cut off keeps the reward model's score."""
    return score


MISSING_EOS_RULES: dict[
    Literal["replace", "subtract", "minimum", "none"], Callable[[Tensor, Tensor, float], Tensor]
] = {
    "replace": replace_missing_eos,
    "subtract": subtract_for_missing_eos,
    "minimum": cap_missing_eos,
    "none": keep_missing_eos,
}


class Placement(NamedTuple):
    """Which columns count, and where the score is paid."""

    response_mask: Tensor  # (B, W) True where the policy chose a token: KL, advantages, policy loss
    value_mask: Tensor  # (B, W) True where the value model is trained; covers response_mask
    score_index: Tensor  # (B,) column that receives the score


def place_on_eos(response_lengths: Tensor, response_tokens: int) -> Placement:
    """Pay the score on the last real token; nothing exists after it (convention A, the default).

    ``response_lengths`` is (B,), EOS included and at least 1; ``response_tokens`` is the longest allowed response.
    Source: our choice (docs/method.md D.5), as OpenRLHF.
    """
    mask = _first_columns(response_lengths, int(response_lengths.max()))
    return Placement(mask, mask, response_lengths - 1)


def place_after_eos(response_lengths: Tensor, response_tokens: int) -> Placement:
    """Pay the score one column after the last real token, unless the response is full length (convention B).

    That column's value, of the finished response, is kept and trained. Source: N+ and TRL (docs/method.md D.5).
    """
    value_lengths = (response_lengths + 1).clamp(max=response_tokens)
    width = int(value_lengths.max())
    return Placement(_first_columns(response_lengths, width), _first_columns(value_lengths, width), value_lengths - 1)


def place_last(response_lengths: Tensor, response_tokens: int) -> Placement:
    """Pay the score on column ``response_tokens`` - 1 and mask nothing (convention C).

    Responses are sampled to full length, past any EOS. Source: lm-human-preferences, 2019 (docs/method.md D.5).
    """
    full = torch.full_like(response_lengths, response_tokens)
    mask = _first_columns(full, response_tokens)
    return Placement(mask, mask, full - 1)


PLACEMENTS: dict[Literal["on_eos", "after_eos", "last_position"], Callable[[Tensor, int], Placement]] = {
    "on_eos": place_on_eos,
    "after_eos": place_after_eos,
    "last_position": place_last,
}


def per_token_rewards(
    score: Tensor,  # (B,)   reward model's verdict on the whole response
    logprobs: Tensor,  # (B, W) under the policy that sampled the response
    reference_logprobs: Tensor,  # (B, W)
    placement: Placement,
    *,
    beta: float,
) -> Tensor:  # (B, W)
    """Charge the KL penalty on every token; pay the score once, where ``placement`` says.

    Summed over a response this is score - beta * log(pi(y|x) / pi_ref(y|x)), the bracket of eq. 2; other columns earn
    exactly 0 whatever the inputs hold there. Units: reward-model points; beta is points per nat.

    Source: InstructGPT (arXiv:2203.02155) eq. 2; the position of the score is not reported there (docs/method.md D.5).
    """
    log_ratio = logprobs - reference_logprobs
    rewards = torch.where(placement.response_mask, -beta * log_ratio, torch.zeros_like(log_ratio))
    return rewards.scatter_add(1, placement.score_index.unsqueeze(1), score.to(rewards.dtype).unsqueeze(1))


def _first_columns(lengths: Tensor, width: int) -> Tensor:
    """(B, width) True on the first ``lengths[b]`` columns of row b."""
    return torch.arange(width, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)
