"""The pretraining half of PPO-ptx: a second backward pass into the same gradient buffers (InstructGPT appendix C.4)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.language.batches import TokenBatch
from tasks.language.logprobs import response_logprobs
from tasks.language.shards import together
from tasks.ppo.statistics import GradientPair


def loss_divisor(row_count: int, row_tokens: int, reduction: Literal["token_mean", "row_sum"]) -> int:
    """What the summed loss of a minibatch's rows is divided by: their targets, or the rows themselves.

    The paper does not say whether its 27.8 multiplies a mean over tokens or, as equation 2 reads to the letter, the
    log-likelihood of a whole text; only the first has a plausible scale on rows of 2,048 tokens (docs/method.md D.8).
    """
    return row_count * (row_tokens - 1) if reduction == "token_mean" else row_count


def pretraining_loss(policy: PreTrainedModel, rows: Tensor, *, divisor: int) -> Tensor:  # ()
    """Negative log-likelihood of packed rows (N, L): every token but a row's first is a target, none is masked.

    A sum divided by ``divisor``, which belongs to the whole minibatch, so that microbatches add up.
    """
    first = torch.ones(rows.shape[0], dtype=torch.long)
    # a row is a prompt of one token and a response of all others; the temperature of sampling has no say here
    batch = TokenBatch(rows, first, first * (rows.shape[1] - 1))
    return -response_logprobs(policy, batch, temperature=1.0).sum() / divisor


def copy_gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """What the buffers hold now; a parameter without gradient counts as zero."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def put_gradients(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Fill the buffers with what ``copy_gradients`` found."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()


def compare_gradients(policy_gradients: list[Tensor], parameters: Sequence[Tensor]) -> GradientPair:
    """Norms and cosine of the gradients copied before the pretraining backward pass and of what it added since."""
    total = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    added = torch._foreach_sub(total, policy_gradients)
    policy_norm, ptx_norm = _global_norm(policy_gradients), _global_norm(added)
    products = torch._foreach_mul(added, policy_gradients)
    dot = together(torch.stack([product.sum() for product in products]).sum())
    numbers = torch.stack([policy_norm, ptx_norm, dot / (policy_norm * ptx_norm).clamp(min=1e-30)]).tolist()
    return GradientPair(*numbers)


def _global_norm(tensors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:  # ()
    return together(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))))
