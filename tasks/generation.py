"""Sampling: the only place where tokens are drawn from a policy.

Rows are sampled side by side, prompts padded on the left, keys and values kept in preallocated memory; rows that have
ended are taken out. Each row draws from its own uniform numbers, fixed before the first token: what a prompt gets does
not depend on how many rows are sampled side by side, up to rounding in the logits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from tasks.errors import DataError, ModelError
from tasks.families import logits_of, trunk_of

COMPACT_BELOW = 0.8
"""Ended rows are taken out when at most this fraction of the rows is still running."""


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
    eos_id: int,
    pad_id: int,
    batch_size: int,
) -> list[list[int]]:
    """Sample one response to each prompt from softmax(logits / temperature): no top-k, no top-p.

    Args:
        model: causal language model.
        prompts: token ids, at least one each.
        max_new_tokens: longest response; one that has not ended by then is cut.
        temperature: 0 takes the most likely token.
        generator: source of all randomness, on any device.
        eos_id: ends a response; an id that is never drawn, such as -1, samples exactly ``max_new_tokens``.
        pad_id: fills the space before shorter prompts; any id will do.
        batch_size: rows sampled side by side.

    Returns:
        Responses in the order of the prompts, EOS kept, nothing behind it.

    Raises:
        DataError: a prompt is empty.
        ModelError: prompt and response do not fit the model's context.
    """
    _check_lengths(model, prompts, max_new_tokens)
    if not prompts or max_new_tokens == 0:
        return [[] for _ in prompts]
    uniform = None
    if temperature > 0:
        uniform = torch.rand(
            len(prompts), max_new_tokens, generator=generator, device=generator.device, dtype=torch.float64
        ).to(model.device)
    responses: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = _Decoding(model, [prompts[row] for row in rows], max_new_tokens, pad_id)
            drawn = batch.run(temperature, None if uniform is None else uniform[rows], eos_id)
            for row, response in zip(rows, drawn, strict=True):
                responses[row] = response
    finally:
        model.train(was_training)
    return responses


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
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    cumulative = torch.cumsum(probabilities, dim=-1, dtype=torch.float64)
    threshold = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1)


def truncate_after_eos(response: Sequence[int], eos_id: int) -> list[int]:
    """Everything up to and including the first EOS (spec D.4)."""
    ids = list(response)
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


class _Decoding:
    """The running rows of one batch: their cache, what they may attend to, and what they have said."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, pad_id: int
    ) -> None:
        self.model, self.trunk, self.steps = model, trunk_of(model), max_new_tokens
        device = model.device
        self.width = max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        fill = prompts[0][0]  # a valid id, whatever pad_id is
        self.ids = torch.tensor([[fill] * (self.width - len(p)) + list(p) for p in prompts], device=device)
        self.said = torch.full((len(prompts), max_new_tokens), pad_id, device=device)
        self.rows = torch.arange(len(prompts), device=device)  # of ``said``, one for each running row
        self.positions = lengths - 1  # of the last token each running row has read
        self.mask: Tensor | None = None
        columns = torch.arange(self.width + max_new_tokens, device=device)
        if int(lengths.min()) < self.width:
            self.mask = (columns >= (self.width - lengths)[:, None]).long()
        self.cache = _new_cache(model, self.width + max_new_tokens)

    def run(self, temperature: float, uniform: Tensor | None, eos_id: int) -> list[list[int]]:
        """Sample until every row has ended or is full."""
        logits = self._prefill()
        for step in range(self.steps):
            tokens = draw(logits, temperature, None if uniform is None else uniform[self.rows, step])
            self.said[self.rows, step] = tokens
            running = tokens != eos_id
            count = int(running.sum())
            if count == 0 or step + 1 == self.steps:
                break
            if count <= COMPACT_BELOW * len(tokens):
                tokens = self._compact(running, tokens)
            logits = self._advance(tokens, self.width + step + 1)
        return [truncate_after_eos(response, eos_id) for response in self.said.tolist()]

    def _prefill(self) -> Tensor:
        mask = positions = None
        if self.mask is not None:
            mask = self.mask[:, : self.width]
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return self._forward(self.ids, mask, positions)

    def _advance(self, tokens: Tensor, width: int) -> Tensor:
        self.positions = self.positions + 1
        mask = None if self.mask is None else self.mask[:, :width]
        return self._forward(tokens[:, None], mask, self.positions[:, None])

    def _forward(self, ids: Tensor, mask: Tensor | None, positions: Tensor | None) -> Tensor:
        output = self.trunk(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True
        )
        return logits_of(self.model, output.last_hidden_state[:, -1])

    def _compact(self, running: Tensor, tokens: Tensor) -> Tensor:
        keep = running.nonzero().squeeze(1)
        self.rows, self.positions = self.rows[keep], self.positions[keep]
        if self.mask is not None:
            self.mask = self.mask[keep]
        self.cache.batch_select_indices(keep)
        return tokens[keep]


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]  # the library is not typed
    """Keys and values of one layer, written in place instead of copied to a longer tensor at every token."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, H, t, d) keys and values; returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_store, self.value_store = (
                new.new_empty(*new.shape[:2], self.capacity, new.shape[-1]) for new in (key_states, value_states)
            )
        end = self.length + key_states.shape[-2]
        self.key_store[:, :, self.length : end] = key_states
        self.value_store[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self.key_store[:, :, :end], self.value_store[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        kept = self.key_store.new_empty(len(indices), *self.key_store.shape[1:])
        kept_values = self.value_store.new_empty(len(indices), *self.value_store.shape[1:])
        kept[:, :, : self.length] = self.keys[indices]
        kept_values[:, :, : self.length] = self.values[indices]
        self.key_store, self.value_store = kept, kept_values
        self.keys, self.values = kept[:, :, : self.length], kept_values[:, :, : self.length]


def _new_cache(model: PreTrainedModel, capacity: int) -> Cache:
    """Preallocated where every layer attends to everything; the library's own for sliding windows and the like."""
    cache = DynamicCache(config=model.config)
    if cache.layers and all(type(layer) is DynamicLayer for layer in cache.layers):
        return Cache(layers=[_GrowingLayer(capacity) for _ in cache.layers])
    return cache


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
