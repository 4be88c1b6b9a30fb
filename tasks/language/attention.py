"""Causal attention over sequences that lie one behind another in a single row, and of new tokens over a cache.

A family's own modules call it through the attention interface of ``transformers``: everything but attention works on
each token alone, so a trunk that reads one row of N tokens with positions that start afresh computes what it would
compute for every sequence by itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from tasks.language.fused import fused
from tasks.language.half_gradients import LONGEST, with_short_gradients
from tasks.language.varlen import by_kernel

LOOPS_ON = frozenset({"cpu"})
"""Devices where calls are cheap and padding is dear: sequences of equal length are attended together, others apart. On others all
are attended at once, by a kernel that pads nothing where there is one (``varlen``), else on a grid."""
PACKED = "plumbline_packed"
"""Name under which ``transformers`` knows ``packed_attention``. It has no mask function, so no mask is built."""


DECODING = "plumbline_decoding"
"""Name under which ``transformers`` knows ``decoding_attention``; it has no mask function either."""


@contextmanager
def attending(trunk: PreTrainedModel, how: str) -> Iterator[None]:
    """Inside this context the trunk attends by ``PACKED`` or ``DECODING`` and wants the arguments of that function."""
    usual = trunk.config._attn_implementation
    trunk.set_attn_implementation(how)
    # Some families look for padding at each token, which makes an accelerator wait; here is none.
    trunk.warn_if_padding_and_no_attention_mask = lambda *_: None
    try:
        with fused(trunk):
            yield
    finally:
        trunk.__dict__.pop("warn_if_padding_and_no_attention_mask", None)
        trunk.set_attn_implementation(usual)


def packed_attention(
    module: nn.Module,
    query: Tensor,  # (1, H, N, d)
    key: Tensor,  # (1, G, N, d), G divides H
    value: Tensor,  # (1, G, N, d)
    attention_mask: Tensor | None,
    *,
    sequence_lengths: Sequence[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,  # what families pass along for other implementations
) -> tuple[Tensor, None]:
    """Each token attends to the tokens of its own sequence up to itself.

    Args:
        module: the family's attention module; unused.
        query: of all sequences, one behind another.
        key: as many heads as the family has key heads.
        value: likewise.
        attention_mask: None; a packed row needs none.
        sequence_lengths: tokens of each sequence; they add up to N.
        scaling: of the products, 1 / sqrt(d) by default.
        dropout: share of attention weights dropped.
        sliding_window: tokens that are seen, the own one included; None sees all.
        softcap: bound s of s * tanh(product / s); None leaves products as they are.

    Returns:
        (1, N, H, d), and no attention weights.
    """
    assert attention_mask is None and query.shape[0] == 1 and sum(sequence_lengths) == query.shape[2]
    plain = softcap is None and not dropout and (sliding_window is None or max(sequence_lengths) <= sliding_window)
    if plain and max(sequence_lengths) <= LONGEST and _half_gradients(query, key, value):

        def forward(*tokens_first: Tensor) -> Tensor:  # (N, H, d)
            q, k, v = (part.transpose(0, 1)[None] for part in tokens_first)
            return _attended(q, k, v, sequence_lengths, scaling, 0.0, None, None)

        parts = [part.squeeze(0).transpose(0, 1) for part in (query, key, value)]
        together = with_short_gradients(forward, parts, sequence_lengths, scaling)
        return together.unsqueeze(0), None
    packed = None
    if query.device.type not in LOOPS_ON and softcap is None and not dropout:
        packed = by_kernel(query, key, value, sequence_lengths, scaling, sliding_window)
    if packed is None:
        packed = _attended(query, key, value, sequence_lengths, scaling, dropout, sliding_window, softcap)
    return packed.unsqueeze(0), None


def _half_gradients(*parts: Tensor) -> bool:
    """Whether the backward pass of these will compute in bf16 on a CPU."""
    if not (torch.is_grad_enabled() and any(part.requires_grad for part in parts) and parts[0].is_cpu):
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else parts[0].dtype
    return dtype == torch.bfloat16


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sequence_lengths: Sequence[int],
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:  # (N, H, d)
    key, value = (_repeat_heads(part, query.shape[1]) for part in (key, value))
    loops = query.device.type in LOOPS_ON
    if loops:
        layout = [(length, len(list(run))) for length, run in groupby(sequence_lengths)]
    else:
        query, key, value = (_on_grid(part, sequence_lengths) for part in (query, key, value))
        layout = [(max(sequence_lengths), len(sequence_lengths))]
    tokens = [length * count for length, count in layout]
    outputs = []
    for (length, count), *parts in zip(
        layout, *(torch.split(part, tokens, dim=2) for part in (query, key, value)), strict=True
    ):
        # (1, H, count * length, d) -> (count, H, length, d), a view
        q, k, v = (part.squeeze(0).unflatten(1, (count, length)).transpose(0, 1) for part in parts)
        masked = sliding_window is not None and length > sliding_window
        if softcap is not None:
            attended = _capped(q, k, v, scaling, dropout, sliding_window, softcap)
        elif masked:
            seen = _seen(length, sliding_window, q.device)
            attended = F.scaled_dot_product_attention(q, k, v, seen, dropout_p=dropout, scale=scaling)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling)
        outputs.append(attended.transpose(1, 2).flatten(0, 1))  # (count * length, H, d)
    together = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    if not loops:
        together = together[_real_places(sequence_lengths, together.device)]
    return together


def decoding_attention(
    module: nn.Module,
    query: Tensor,  # (B, H, 1, d)
    key: Tensor,  # (B, G, T, d), G divides H
    value: Tensor,  # (B, G, T, d)
    attention_mask: Tensor | None,
    *,
    hidden: Tensor | None,
    newest: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,  # what families pass along for other implementations
) -> tuple[Tensor, None]:
    """The newest token of each row attends to its row's cache. Without gradients.

    Args:
        module: the family's attention module; unused.
        query: of the newest tokens.
        key: the cache, the newest token last unless ``newest`` is given, nothing but padding before a row's first token.
        value: likewise.
        attention_mask: None; ``hidden`` says what is padding.
        hidden: (B or 1, 1, 1, at least T) -inf on what is not seen and 0 elsewhere; None if all is.
        newest: (1,) the newest token's column, where others are behind it, which ``hidden`` hides; None if it is the last.
        scaling: of the products, 1 / sqrt(d) by default.
        sliding_window: tokens that are seen, the own one included; None sees all.
        softcap: bound s of s * tanh(product / s); None leaves products as they are.

    Returns:
        (B, 1, H, d), and no attention weights.
    """
    assert attention_mask is None and query.shape[2] == 1
    rows, heads, _one, width = query.shape
    end, start = key.shape[2], 0
    if sliding_window is not None and newest is None:
        start = max(0, end - sliding_window)
    elif sliding_window is not None and newest is not None and hidden is not None:
        gone = torch.arange(hidden.shape[-1], device=key.device) <= newest - sliding_window
        hidden = hidden.masked_fill(gone, -torch.inf)
    # the heads that share a key head stand side by side, as if they were the tokens of one
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)
    key, value = key[:, :, start:], value[:, :, start:]
    if softcap is None and key.is_cpu and key.dtype == torch.bfloat16:
        # products of single rows by themselves take two to three times as long there; in fp32 they take as long as this
        seen = None if hidden is None else hidden[..., start:end].to(key.dtype)
        attended = F.scaled_dot_product_attention(grouped.to(key.dtype), key, value, seen, scale=scaling)
        return attended.reshape(rows, 1, heads, width), None
    products = (grouped * (width**-0.5 if scaling is None else scaling)) @ key.transpose(2, 3)  # (B, G, H / G, T)
    if softcap is not None:
        products = softcap * torch.tanh(products / softcap)
    if hidden is not None:
        products = products + hidden[..., start:end]
    weights = torch.softmax(products, dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).reshape(rows, 1, heads, width), None


def _repeat_heads(part: Tensor, heads: int) -> Tensor:  # (1, G, N, d) -> (1, H, N, d)
    return part if part.shape[1] == heads else part.repeat_interleave(heads // part.shape[1], dim=1)


def _seen(length: int, sliding_window: int | None, device: torch.device) -> Tensor:  # (T, T) bool
    places = torch.arange(length, device=device)
    back = places[:, None] - places
    return (back >= 0) if sliding_window is None else (back >= 0) & (back < sliding_window)


def _capped(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, dropout: float, sliding_window: int | None, softcap: float
) -> Tensor:  # (B, H, T, d)
    products = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    products = softcap * torch.tanh(products / softcap)
    products = products.masked_fill(~_seen(q.shape[-2], sliding_window, q.device), -torch.inf)
    weights = torch.softmax(products, dim=-1, dtype=torch.float32).to(q.dtype)
    return F.dropout(weights, dropout) @ v


def _real_places(lengths: Sequence[int], device: torch.device) -> Tensor:  # (N,) of B * T
    return _places(tuple(lengths), device)


@lru_cache(maxsize=4)  # all layers of a forward ask the same
def _places(lengths: tuple[int, ...], device: torch.device) -> Tensor:  # (N,)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return real.flatten().nonzero().squeeze(1).to(device)


def _on_grid(part: Tensor, lengths: Sequence[int]) -> Tensor:  # (1, H, N, d) -> (1, H, B * T, d)
    grid = part.new_zeros(part.shape[0], part.shape[1], len(lengths) * max(lengths), part.shape[3])
    return grid.index_copy(2, _real_places(lengths, part.device), part)


AttentionInterface.register(PACKED, packed_attention)
AttentionInterface.register(DECODING, decoding_attention)
