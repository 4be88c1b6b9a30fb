"""The one way to score rows of tokens without gradients: in microbatches, at the precision that training has."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.engine.config import RuntimeConfig
from tasks.language.batches import TokenBatch, microbatches, pad_batch
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel, autocast
from tasks.language.room import Room, nothing

Rows = Sequence[Sequence[int]]


@torch.no_grad()
def read_rows(
    prompts: Rows,
    responses: Rows,
    pad_id: int,
    runtime: RuntimeConfig,
    device: torch.device,
    read: Callable[[list[int], TokenBatch], None],
) -> None:
    """Call ``read`` with the row numbers and the batch of each microbatch; every row is in exactly one.

    Where memory is short it is called again, for smaller ones: what it writes, it writes for each row.
    """
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]

    def each(groups: Sequence[list[int]]) -> None:
        for rows in groups:
            batch = pad_batch([prompts[row] for row in rows], [responses[row] for row in rows], pad_id)
            with autocast(runtime):
                read(rows, batch.to(device))

    Room().fit(microbatches(lengths, runtime.tokens_per_microbatch), each, nothing)


def score_rows(model: ScalarModel, prompts: Rows, responses: Rows, pad_id: int, runtime: RuntimeConfig) -> list[float]:
    """The model's number for each response, read at its last token."""
    return _one_per_row(model.scores, prompts, responses, pad_id, runtime, model.head.weight.device)


def summed_logprobs(
    model: PreTrainedModel,
    prompts: Rows,
    responses: Rows,
    pad_id: int,
    runtime: RuntimeConfig,
    temperature: float = 1.0,
) -> list[float]:
    """Log-probability of each whole response given its prompt, nats."""

    def total(batch: TokenBatch) -> Tensor:  # (B,)
        return response_logprobs(model, batch, temperature).sum(dim=1)

    return _one_per_row(total, prompts, responses, pad_id, runtime, model.device)


def _one_per_row(
    function: Callable[[TokenBatch], Tensor],
    prompts: Rows,
    responses: Rows,
    pad_id: int,
    runtime: RuntimeConfig,
    device: torch.device,
) -> list[float]:
    found = [0.0] * len(prompts)

    def read(rows: list[int], batch: TokenBatch) -> None:
        for row, value in zip(rows, function(batch).float().tolist(), strict=True):
            found[row] = value

    read_rows(prompts, responses, pad_id, runtime, device, read)
    return found
