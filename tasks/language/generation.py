"""Sampling: the only place where tokens are drawn from a policy.

Rows are sampled side by side, with their keys and values in preallocated memory (``decoding``); rows that have ended are
taken out. Each row draws from its own uniform numbers, fixed before the first token: what a prompt gets does
not depend on how many rows are sampled side by side, up to rounding in the logits.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.engine.errors import DataError, ModelError
from tasks.engine.ranks import here
from tasks.language.decoding import columns_first
from tasks.language.families import logits_of, trunk_of
from tasks.language.logprobs import TokenStatistics, scaled
from tasks.language.precision import rounded_once
from tasks.language.replaying import reader_of
from tasks.language.room import Room, nothing, sampling_room

COMPACT_BELOW = 0.8
"""Ended rows are taken out when at most this fraction of the rows is still running."""
LOOK_EVERY = defaultdict(lambda: 16, cpu=1)
"""Tokens between two looks at which rows have ended: an accelerator has to be waited for."""


class Sampled(NamedTuple):
    """Responses in the order of the prompts, EOS kept, nothing behind it."""

    responses: list[list[int]]
    statistics: TokenStatistics | None
    """(B, max_new_tokens) on the model's device, 0 behind a response; None when not asked for."""


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
    eos_id: int,
    pad_id: int,
    batch_size: int,
    with_statistics: bool,
    room: Room | None = None,
) -> Sampled:
    """Sample one response to each prompt from softmax(logits / temperature): no top-k, no top-p.

    Ranks divide the rows; all of them get all responses.

    Args:
        model: causal language model.
        prompts: token ids, at least one each.
        max_new_tokens: longest response; one that has not ended by then is cut.
        temperature: 0 takes the most likely token.
        generator: source of all randomness, on any device.
        eos_id: ends a response; an id that is never drawn, such as -1, samples exactly ``max_new_tokens``.
        pad_id: stands where a row has said nothing yet; any id will do.
        batch_size: rows sampled side by side.
        with_statistics: also say how likely each token was, and the entropy it was drawn at; needs a temperature above 0.
        room: of earlier calls, where fewer rows than ``batch_size`` had to do.

    Raises:
        DataError: a prompt is empty.
        ModelError: prompt and response do not fit the model's context, or one row alone does not fit the memory.
    """
    _check_lengths(model, prompts, max_new_tokens)
    room, statistics = room or sampling_room(), None
    if with_statistics:
        empty = torch.zeros(len(prompts), max_new_tokens, device=model.device)
        statistics = TokenStatistics(empty, empty.clone())
    if not prompts or max_new_tokens == 0:
        return Sampled([[] for _ in prompts], statistics)
    uniform = None
    if temperature > 0:
        uniform = torch.rand(
            len(prompts), max_new_tokens, generator=generator, device=generator.device, dtype=torch.float64
        ).to(model.device)
    responses: list[list[int]] = [[] for _ in prompts]
    lengths = [len(prompt) for prompt in prompts]
    order = sorted(here().deal(lengths), key=lambda row: lengths[row])

    def write(groups: Sequence[list[int]]) -> None:
        for rows in groups:
            batch = _Decoding(model, [prompts[row] for row in rows], max_new_tokens, pad_id, with_statistics)
            drawn = batch.run(temperature, None if uniform is None else uniform[rows], eos_id)
            for row, response in zip(rows, drawn, strict=True):
                responses[row] = response
            if statistics is not None and batch.statistics is not None:
                ends = torch.tensor([len(response) for response in drawn], device=model.device)
                said = torch.arange(max_new_tokens, device=model.device) < ends[:, None]
                for table, part in zip(statistics, batch.statistics, strict=True):
                    table[rows] = part * said

    was_training = model.training
    model.eval()
    try:
        with rounded_once(model), columns_first(model):
            for start in range(0, len(order), batch_size):
                room.fit([order[start : start + batch_size]], write, nothing)
    finally:
        model.train(was_training)
    if statistics is not None:
        here().add(*statistics)
    for sampled in here().gather({row: responses[row] for row in order}):
        for row, response in sampled.items():
            responses[row] = response
    return Sampled(responses, statistics)


@torch.no_grad()
def stream(
    model: PreTrainedModel,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
    eos_ids: Collection[int],
) -> Iterator[int]:
    """The tokens of one response as they are drawn, EOS apart; those of ``sample`` for the same draws.

    Args:
        model: causal language model.
        prompt: token ids, at least one.
        max_new_tokens: longest response.
        temperature: 0 takes the most likely token.
        generator: source of all randomness, on any device.
        eos_ids: any of these ends the response.

    Raises:
        DataError: the prompt is empty.
        ModelError: prompt and response do not fit the model's context.
    """
    _check_lengths(model, [prompt], max_new_tokens)
    uniform = torch.rand(max_new_tokens, generator=generator, device=generator.device, dtype=torch.float64)
    trunk = trunk_of(model)
    reader = reader_of(trunk, [prompt], max_new_tokens)
    states = reader.read_prompts()
    for step in range(max_new_tokens):
        token = draw(
            logits_of(model, states), temperature, uniform[step : step + 1].to(model.device) if temperature else None
        )
        if int(token) in eos_ids:
            return
        yield int(token)
        if step + 1 < max_new_tokens:
            states = reader.read(token)


def draw(logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
    """One token per row by inverting the cumulative distribution.

    Args:
        logits: (B, V).
        temperature: 0 takes the most likely token, the first of equals.
        uniform: (B,) fp64 in [0, 1); None only at temperature 0.

    Returns:
        (B,) int64. A token of probability 0 is never drawn.
    """
    if uniform is None:
        return logits.argmax(dim=-1)
    return _drawn(torch.softmax(scaled(logits.float(), temperature), dim=-1), uniform)


def draw_with_statistics(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, TokenStatistics]:
    """The tokens that ``draw`` draws, and how likely each was, (B,), and the entropy it was drawn at, (B,)."""
    by_temperature = scaled(logits.float(), temperature)
    probabilities = torch.softmax(by_temperature, dim=-1)
    logprobs = torch.log_softmax(by_temperature, dim=-1)
    tokens = _drawn(probabilities, uniform)
    entropy = -torch.sum(probabilities * logprobs, dim=-1)
    return tokens, TokenStatistics(logprobs.gather(1, tokens[:, None]).squeeze(1), entropy)


def _drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:  # (B, V), (B,) -> (B,)
    cumulative = torch.cumsum(probabilities, dim=-1, dtype=torch.float64)
    threshold = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1)


def truncate_after_eos(response: Sequence[int], eos_id: int) -> list[int]:
    """Everything up to and including the first EOS (docs/method.md D.4)."""
    ids = list(response)
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


class _Decoding:
    """The running rows of one batch: what they have said, and where they stand."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        pad_id: int,
        with_statistics: bool,
    ) -> None:
        self.model, self.trunk, self.steps = model, trunk_of(model), max_new_tokens
        self.reader = reader_of(self.trunk, prompts, max_new_tokens)
        self.said = torch.full((len(prompts), max_new_tokens), pad_id, device=model.device)
        self.rows = torch.arange(len(prompts), device=model.device)  # of ``said``, one for each running row
        self.statistics: TokenStatistics | None = None
        if with_statistics:
            shape = self.said.shape
            self.statistics = TokenStatistics(*(torch.zeros(shape, device=model.device) for _ in range(2)))

    def run(self, temperature: float, uniform: Tensor | None, eos_id: int) -> list[list[int]]:
        """Sample until every row has ended or is full."""
        states = self.reader.read_prompts()
        running = torch.ones_like(self.rows, dtype=torch.bool)  # has not ended, at this token or at an earlier one
        looks = LOOK_EVERY[self.rows.device.type]
        for step in range(self.steps):
            logits = logits_of(self.model, states)
            row_uniform = None if uniform is None else uniform[self.rows, step]
            if self.statistics is None or row_uniform is None:
                tokens = draw(logits, temperature, row_uniform)
            else:
                tokens, found = draw_with_statistics(logits, temperature, row_uniform)
                for table, part in zip(self.statistics, found, strict=True):
                    table[self.rows, step] = part
            self.said[self.rows, step] = tokens
            running = running & (tokens != eos_id)
            if step + 1 == self.steps:
                break
            if (step + 1) % looks == 0:
                count = int(running.sum())
                if count == 0:
                    break
                if self.reader.compacts and count <= COMPACT_BELOW * len(tokens):
                    keep = running.nonzero().squeeze(1)
                    self.rows, tokens, running = self.rows[keep], tokens[keep], running[keep]
                    self.reader.keep(keep)
            states = self.reader.read(tokens)
        return [truncate_after_eos(response, eos_id) for response in self.said.tolist()]


def _check_lengths(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if not all(prompts):
        row = next(row for row, prompt in enumerate(prompts) if not prompt)
        raise DataError(f"prompt {row}: found 0 tokens, expected at least 1; remove the record or give it text")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0) + max_new_tokens
    if context is not None and longest > context:
        raise ModelError(
            f"generation: the longest prompt ({longest - max_new_tokens} tokens) and response ({max_new_tokens}) make "
            f"{longest}, expected at most the model's context of {context}; use shorter prompts or responses"
        )
