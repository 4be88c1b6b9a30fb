"""The pretraining half of PPO-ptx: a second backward pass into the same gradient buffers (InstructGPT appendix C.4)."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.batches import TokenBatch
from tasks.logprobs import response_logprobs
from tasks.ppo.statistics import GradientPair


def pretraining_loss(policy: PreTrainedModel, rows: Tensor, *, token_count: int) -> Tensor:  # ()
    """Nats per token on packed rows (N, L): every token but a row's first is a target, none is masked.

    A sum divided by ``token_count``, the targets of the whole minibatch, so that microbatches add up. The paper does
    not say whether its 27.8 multiplies a sum or a mean; a mean over tokens is the only plausible scale (spec D.8).
    """
    first = torch.ones(rows.shape[0], dtype=torch.long, device=rows.device)
    # a row is a prompt of one token and a response of all others; the temperature of sampling has no say here
    batch = TokenBatch(rows, first, first * (rows.shape[1] - 1))
    return -response_logprobs(policy, batch, temperature=1.0).sum() / token_count


def copy_gradients(parameters: list[Tensor]) -> list[Tensor]:
    """What the buffers hold now; a parameter without gradient counts as zero."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def compare_gradients(policy_gradients: list[Tensor], parameters: list[Tensor]) -> GradientPair:
    """Norms and cosine of the gradients copied before the pretraining backward pass and of what it added since."""
    total = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    added = torch._foreach_sub(total, policy_gradients)
    policy_norm, ptx_norm = _global_norm(policy_gradients), _global_norm(added)
    products = torch._foreach_mul(added, policy_gradients)
    dot = torch.stack([product.sum() for product in products]).sum()
    numbers = torch.stack([policy_norm, ptx_norm, dot / (policy_norm * ptx_norm).clamp(min=1e-30)]).tolist()
    return GradientPair(*numbers)


def _global_norm(tensors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:  # ()
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm
