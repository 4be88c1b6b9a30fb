"""Log-probabilities of given tokens, entropies, and estimates of the KL divergence. All logarithms are natural."""

from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tasks.language.batches import TokenBatch
from tasks.language.families import hidden_states, logits_of, trunk_of
from tasks.language.shards import reading
from tasks.language.sizes import LOGITS_PER_CHUNK


class TokenStatistics(NamedTuple):
    """What the policy thought of each response token."""

    logprobs: Tensor  # (B, R) fp32
    entropy: Tensor  # (B, R) fp32, nats, of the distribution the token was drawn from


def log_probs_of(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each label under softmax(logits / temperature).

    Args:
        logits: (..., V); half precision is computed in fp32.
        labels: (...) int64.
        temperature: the one the tokens were sampled at; the same for policy, old policy and reference.

    Returns:
        (...) in fp32, or in fp64 for fp64 logits.
    """
    by_temperature = scaled(logits, temperature)
    losses = F.cross_entropy(by_temperature.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="none")
    return -losses.view(labels.shape)


def entropy_of(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits / temperature). (..., V) -> (...)."""
    logprobs = torch.log_softmax(scaled(logits, temperature), dim=-1)
    return -torch.sum(logprobs.exp() * logprobs, dim=-1)


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The log-ratio: unbiased for KL(policy || reference) on tokens drawn from the policy, may be negative."""
    return logprobs - reference_logprobs


def kl_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio: biased, low variance."""
    return 0.5 * (logprobs - reference_logprobs).square()


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """exp(-log-ratio) - 1 + log-ratio: unbiased and never negative."""
    log_ratio = logprobs - reference_logprobs
    return torch.expm1(-log_ratio) + log_ratio


@overload
def response_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float, *, with_entropy: Literal[True]
) -> TokenStatistics: ...


@overload
def response_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float, *, with_entropy: Literal[False] = False
) -> Tensor: ...


def response_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float, *, with_entropy: bool = False
) -> Tensor | TokenStatistics:
    """Log-probability of each response token; differentiable.

    The trunk runs once; the output head only on the states before response tokens, never on prompts or padding.

    Args:
        model: causal language model.
        batch: on the model's device.
        temperature: divides the logits; the sampling temperature.
        with_entropy: also return the entropies.

    Returns:
        (B, R) fp32, column t for response token t, exactly 0 on padding; with entropies a ``TokenStatistics``.
    """
    return reading(model, _response_logprobs, model, batch, temperature, with_entropy)


def _response_logprobs(
    model: PreTrainedModel, batch: TokenBatch, temperature: float, with_entropy: bool
) -> Tensor | TokenStatistics:
    states, mask = states_before_response(trunk_of(model), batch)
    rows, columns = batch.response_places
    labels = batch.input_ids[rows, batch.prompt_lengths[rows] + columns]
    chunks = _chunks(len(labels), model.get_output_embeddings().weight.shape[0])
    recompute = len(chunks) > 1 and torch.is_grad_enabled()
    parts = [_head(model, states[c], labels[c], temperature, with_entropy, recompute) for c in chunks]
    logprobs = on_grid(torch.cat([logprobs for logprobs, _ in parts]), mask)
    if not with_entropy:
        return logprobs
    entropies = [entropy for _, entropy in parts if entropy is not None]
    return TokenStatistics(logprobs, on_grid(torch.cat(entropies), mask))


def states_before_response(trunk: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Hidden states that predict the response tokens, without padding.

    Returns:
        (N, D) states at positions prompt_length - 1 + t, row by row; (B, R) mask of the N response tokens.
    """
    # The last token of a row predicts nothing that is asked for, so the trunk does not read it.
    read = (batch.lengths - 1).clamp(min=1)
    rows, columns = batch.response_places
    return hidden_states(trunk, batch, read, rows, batch.prompt_lengths[rows] - 1 + columns), batch.response_mask


def _head(
    model: PreTrainedModel, states: Tensor, labels: Tensor, temperature: float, with_entropy: bool, recompute: bool
) -> tuple[Tensor, Tensor | None]:
    def run(states: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = logits_of(model, states)
        with torch.no_grad():
            entropy = entropy_of(logits, temperature) if with_entropy else None
        return log_probs_of(logits, labels, temperature), entropy

    if not recompute:
        return run(states)
    result: tuple[Tensor, Tensor | None] = checkpoint(run, states, use_reentrant=False, preserve_rng_state=False)
    return result


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    step = max(1, LOGITS_PER_CHUNK // vocabulary)  # no token is a chunk too, so that every pass uses the head
    return [slice(start, start + step) for start in range(0, max(tokens, 1), step)]


def on_grid(values: Tensor, mask: Tensor) -> Tensor:  # (N,) -> (B, R)
    """Values of the True entries, row by row, put back in their places; 0 elsewhere."""
    grid = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    return grid.masked_scatter(mask, values)


def scaled(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature, half precision in fp32."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits if temperature == 1.0 else logits / temperature
