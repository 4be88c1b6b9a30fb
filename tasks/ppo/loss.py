"""The two clipped losses of PPO, and GRPO's term for the KL.

Each is a sum over the given tokens divided by ``token_count``, the tokens of the *whole minibatch*: then the gradients
of its microbatches add up to the minibatch's gradient, however it is cut (docs/method.md D.7, the reduction trap).
"""

import torch
from torch import Tensor

from tasks.language.logprobs import kl_k3


def clipped_policy_loss(
    logprobs: Tensor,  # (B, W) under the policy in training
    old_logprobs: Tensor,  # (B, W) under the policy that sampled
    advantages: Tensor,  # (B, W)
    response_mask: Tensor,  # (B, W) True on response tokens, EOS included
    *,
    clip: float,
    token_count: int,
) -> Tensor:  # ()
    """Minus the clipped surrogate: no token gains by pushing its ratio further than ``clip`` beyond 1.

    Pessimistic maximum of the two branches; a token whose clipped branch wins has zero gradient.
    Source: Schulman et al. (arXiv:1707.06347) eq. 7.
    """
    # masked before exp: junk in padding could overflow, and 0 * inf in the backward pass is not 0
    log_ratio = _zero_outside(response_mask, logprobs - old_logprobs)
    unclipped, clipped = policy_branches(log_ratio, _zero_outside(response_mask, advantages), clip=clip)
    return torch.maximum(unclipped, clipped).sum() / token_count


def policy_branches(log_ratio: Tensor, advantages: Tensor, *, clip: float) -> tuple[Tensor, Tensor]:
    """Per-token losses (B, W) without and with the clipped ratio."""
    ratio = torch.exp(log_ratio)
    return -advantages * ratio, -advantages * ratio.clamp(1.0 - clip, 1.0 + clip)


def reference_kl_loss(
    logprobs: Tensor,  # (B, W) under the policy in training
    reference_logprobs: Tensor,  # (B, W)
    response_mask: Tensor,  # (B, W)
    *,
    token_count: int,
) -> Tensor:  # ()
    """KL to the reference in nats per token, by the k3 estimate: never negative, with a gradient of its own.

    Source: GRPO (Shao et al., arXiv:2402.03300) eq. 4. The paper averages each response's tokens first; here every token
    of the minibatch weighs the same, as in the policy loss.
    """
    return (
        kl_k3(_zero_outside(response_mask, logprobs), _zero_outside(response_mask, reference_logprobs)).sum()
        / token_count
    )


def clipped_value_loss(
    values: Tensor,  # (B, W) of the value model in training
    old_values: Tensor,  # (B, W) at sampling time
    returns: Tensor,  # (B, W)
    value_mask: Tensor,  # (B, W)
    *,
    clip: float,
    token_count: int,
) -> Tensor:  # ()
    """Half the larger of two squared errors: of the value, and of the value kept within ``clip`` of the old one.

    Units: squared reward-model points. Source: lm-human-preferences, 2019 (docs/method.md D.7).
    """
    unclipped, clipped = value_branches(values, old_values, returns, clip=clip)
    return 0.5 * _zero_outside(value_mask, torch.maximum(unclipped, clipped)).sum() / token_count


def value_branches(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float) -> tuple[Tensor, Tensor]:
    """Per-token squared errors (B, W) without and with the clipped value."""
    kept_near = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    return (values - returns).square(), (kept_near - returns).square()


def _zero_outside(mask: Tensor, x: Tensor) -> Tensor:
    return torch.where(mask, x, torch.zeros_like(x))
