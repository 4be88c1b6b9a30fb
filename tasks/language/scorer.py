"""The one way to score rows of tokens without gradients: in microbatches, at the precision that training has."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.engine.config import RuntimeConfig
from tasks.engine.ranks import here
from tasks.language.batches import TokenBatch, nothing_asked, pad_batch
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel
from tasks.language.precision import autocast
from tasks.language.room import Room, nothing
from tasks.language.share import my_microbatches

Rows = Sequence[Sequence[int]]
Found = TypeVar("Found")


@torch.no_grad()
def read_rows(
    prompts: Rows,
    responses: Rows,
    pad_id: int,
    runtime: RuntimeConfig,
    device: torch.device,
    read: Callable[[list[int], TokenBatch], Sequence[Found]],
    network: nn.Module | None = None,
) -> list[Found]:
    """What ``read`` finds for each row, given the row numbers and the batch of one microbatch after another.

    Where memory is short it is called again, for smaller ones. Ranks divide the rows; all of them get all findings. They may
    divide the ``network`` too.
    """
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]

    mine: dict[int, Found] = {}

    def each(groups: Sequence[list[int]]) -> None:
        for rows in groups:
            batch = pad_batch([prompts[row] for row in rows], [responses[row] for row in rows], pad_id)
            with autocast(runtime):
                mine.update(zip(rows, read(rows, batch.to(device)), strict=True))

    def idle() -> None:
        with autocast(runtime):
            read([], nothing_asked(device))

    Room(network, idle).fit(my_microbatches(lengths, runtime.tokens_per_microbatch), each, nothing)
    found = {row: value for part in here().gather(mine) for row, value in part.items()}
    return [found[row] for row in range(len(lengths))]


def score_rows(model: ScalarModel, prompts: Rows, responses: Rows, pad_id: int, runtime: RuntimeConfig) -> list[float]:
    """The model's number for each response, read at its last token."""
    return _one_per_row(model, model.scores, prompts, responses, pad_id, runtime, model.head.weight.device)


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

    return _one_per_row(model, total, prompts, responses, pad_id, runtime, model.device)


def _one_per_row(
    network: nn.Module,
    function: Callable[[TokenBatch], Tensor],
    prompts: Rows,
    responses: Rows,
    pad_id: int,
    runtime: RuntimeConfig,
    device: torch.device,
) -> list[float]:
    def read(_rows: list[int], batch: TokenBatch) -> list[float]:
        return function(batch).float().tolist()

    return read_rows(prompts, responses, pad_id, runtime, device, read, network)
