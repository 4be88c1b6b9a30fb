"""What an iteration reports (docs/method.md D.10), each number defined once. Nothing here is trained on.

Shapes: B sequences, W columns of response tokens. Keys are ``topic/what``, as MLflow shows them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tasks.language.logprobs import kl_k1, kl_k2, kl_k3
from tasks.language.masked import masked_mean, masked_var
from tasks.ppo.loss import policy_branches, value_branches


class GradientPair(NamedTuple):
    """How the policy gradient and gamma times the pretraining gradient compare, before clipping."""

    policy_norm: float
    ptx_norm: float
    cosine: float


def objective_statistics(
    score: Tensor,  # (B,) after the missing-EOS rule
    logprobs: Tensor,  # (B, W) under the policy that sampled
    reference_logprobs: Tensor,  # (B, W)
    response_mask: Tensor,  # (B, W)
    *,
    beta: float,
) -> dict[str, float]:
    """What the run maximises: score minus beta times KL, and the KL by three estimators."""
    zero = torch.zeros_like(logprobs)
    response_kl = torch.where(response_mask, kl_k1(logprobs, reference_logprobs), zero).sum(dim=1)
    surprise = torch.where(response_mask, -logprobs, zero).sum(dim=1)
    return {
        "objective/kl": response_kl.mean().item(),
        "objective/kl_per_token": masked_mean(kl_k1(logprobs, reference_logprobs), response_mask).item(),
        "objective/kl_k2_per_token": masked_mean(kl_k2(logprobs, reference_logprobs), response_mask).item(),
        "objective/kl_k3_per_token": masked_mean(kl_k3(logprobs, reference_logprobs), response_mask).item(),
        "objective/entropy": surprise.mean().item(),
        "objective/score": score.mean().item(),
        "objective/score_std": score.std(correction=0).item(),
        "objective/reward": (score - beta * response_kl).mean().item(),
    }


def response_statistics(lengths: Tensor, finished: Tensor, raw_score: Tensor) -> dict[str, float]:
    """Lengths in tokens, EOS included; ``raw_score`` is the reward model's own, before the missing-EOS rule.

    All are (B,). ``response/score_without_eos`` is absent while every response ends by itself.
    """
    numbers = {"response/length": lengths.float().mean().item(), "response/eos_rate": finished.float().mean().item()}
    if not bool(finished.all()):
        numbers["response/score_without_eos"] = raw_score[~finished].mean().item()
    return numbers


def policy_statistics(
    logprobs: Tensor,  # (B, W) as each minibatch's training forward found them
    old_logprobs: Tensor,  # (B, W)
    advantages: Tensor,  # (B, W)
    response_mask: Tensor,  # (B, W)
    *,
    clip: float,
) -> dict[str, float]:
    """How far the minibatches moved the policy. All are means over tokens.

    ``policy/clip_fraction`` counts tokens whose clipped branch is strictly larger, not those with a ratio outside the
    band: a ratio may leave it harmlessly on the pessimistic side.
    """
    log_ratio = torch.where(response_mask, logprobs - old_logprobs, torch.zeros_like(logprobs))
    ratio = torch.exp(log_ratio)
    unclipped, clipped = policy_branches(log_ratio, advantages, clip=clip)
    return {
        "policy/loss": masked_mean(torch.maximum(unclipped, clipped), response_mask).item(),
        "policy/clip_fraction": masked_mean((clipped > unclipped).to(ratio.dtype), response_mask).item(),
        "policy/approx_kl": masked_mean(0.5 * log_ratio.square(), response_mask).item(),
        "policy/approx_kl_k3": masked_mean(ratio - 1.0 - log_ratio, response_mask).item(),
        "ratio/mean": masked_mean(ratio, response_mask).item(),
        "ratio/max": ratio.masked_fill(~response_mask, -torch.inf).max().item(),
        "ratio/var": masked_var(ratio, response_mask).item(),
    }


def value_statistics(
    values: Tensor,  # (B, W) as each minibatch's training forward found them
    old_values: Tensor,  # (B, W)
    returns: Tensor,  # (B, W)
    value_mask: Tensor,  # (B, W)
    *,
    clip: float,
) -> dict[str, float]:
    """How well the value model predicts the returns; ``value/explained_variance`` is 1 - error / var(returns)."""
    unclipped, clipped = value_branches(values, old_values, returns, clip=clip)
    error = masked_mean(unclipped, value_mask).item()
    variance = masked_var(returns, value_mask).item()
    return {
        "value/loss": 0.5 * masked_mean(torch.maximum(unclipped, clipped), value_mask).item(),
        "value/clip_fraction": masked_mean((clipped > unclipped).to(values.dtype), value_mask).item(),
        "value/error": error,
        # constant returns leave nothing to explain
        "value/explained_variance": 1.0 - error / variance if variance > 0.0 else 0.0,
    }


def ptx_statistics(losses: list[float], pairs: list[GradientPair]) -> dict[str, float]:
    """Mean over optimizer steps of the pretraining loss (nats per token) and of its gradient against the policy's.

    ``ptx/grad_ratio`` above about 10 for many steps means that gamma is too large for this model (docs/method.md D.8).
    """
    if not pairs:
        return {}
    count = len(pairs)
    return {
        "ptx/loss": sum(losses) / count,
        "ptx/grad_norm": sum(pair.ptx_norm for pair in pairs) / count,
        "ptx/grad_ratio": sum(pair.ptx_norm / max(pair.policy_norm, 1e-12) for pair in pairs) / count,
        "ptx/grad_cosine": sum(pair.cosine for pair in pairs) / count,
    }
