"""Attention over packed sequences by torch's kernel for sequences of different lengths, which pads nothing.

Some accelerators have it, in half precision. Whether there is one here, and whether it is right, a trial on random numbers tells
when a kind is first asked for; where there is none, ``attention`` lays the sequences on a grid.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

logger = logging.getLogger("plumbline")

HALF = (torch.bfloat16, torch.float16)
TRIAL = (5, 1, 12, 3)
"""Tokens of the sequences of a trial."""
TRIAL_WINDOW = 4
NEAR = 0.03
"""Largest difference from fp32 in a trial, as a share of the largest number: some roundings to bf16."""


class Attending(NamedTuple):
    """What decides which kernel runs."""

    device: torch.device
    dtype: torch.dtype
    heads: int
    key_heads: int
    width: int
    windowed: bool


def by_kernel(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scaling: float | None, window: int | None
) -> Tensor | None:
    """Each token attends to the tokens of its own sequence up to itself, by the kernel.

    Args:
        query: (1, H, N, d) of all sequences, one behind another.
        key: (1, G, N, d), G divides H.
        value: likewise.
        lengths: tokens of each sequence; they add up to N.
        scaling: of the products, 1 / sqrt(d) by default.
        window: tokens that are seen, the own one included; None sees all.

    Returns:
        (N, H, d) in autocast's precision; None where there is no such kernel.
    """
    place, dtype = query.device.type, query.dtype
    if torch.amp.is_autocast_available(place) and torch.is_autocast_enabled(
        place
    ):  # which does not round for this kernel
        dtype = torch.get_autocast_dtype(place)
    kind = Attending(query.device, dtype, query.shape[1], key.shape[1], query.shape[3], window is not None)
    if dtype not in HALF or not works(kind):
        return None
    parts = [part.squeeze(0).transpose(0, 1).to(dtype) for part in (query, key, value)]
    return _attended(parts, tuple(lengths), scaling, window)


@lru_cache(maxsize=64)
def works(kind: Attending) -> bool:
    """Whether the kernel comes near fp32 in a trial, forward and backward; the log has the answer once."""
    draws, window = torch.Generator().manual_seed(0), TRIAL_WINDOW if kind.windowed else None
    *parts, gradient = (
        torch.randn(sum(TRIAL), heads, kind.width, generator=draws).to(kind.dtype)
        for heads in (kind.heads, kind.key_heads, kind.key_heads, kind.heads)
    )
    try:
        with torch.autocast(kind.device.type, enabled=False):
            expected = _results(parts, gradient, lambda given: _by_definition(given, window))
            there = [part.to(kind.device) for part in parts]
            found = _results(there, gradient.to(kind.device), lambda given: _attended(given, TRIAL, None, window))
        off = max(
            float((a.float().cpu() - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)
        )
        why = "" if off <= NEAR else f"it is {off:.0%} off"
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().partition("\n")[0][:120] or type(error).__name__
    how = f"padded, for the kernel of packed sequences cannot be used: {why}" if why else "packed, by torch's kernel"
    logger.info("%s heads of %s on %s: sequences are %s", kind.heads, kind.width, kind.device, how)
    return not why


def _attended(parts: Sequence[Tensor], lengths: tuple[int, ...], scaling: float | None, window: int | None) -> Tensor:
    query, key, value = parts  # (N, H, d), (N, G, d), (N, G, d)
    ends, longest = _ends(lengths, query.device), max(lengths)
    seen = (-1 if window is None else window - 1, 0)
    shared = query.shape[1] != key.shape[1]
    found = varlen_attn(
        query, key, value, ends, ends, longest, longest, scale=scaling, window_size=seen, enable_gqa=shared
    )
    assert isinstance(found, Tensor)
    return found


@lru_cache(maxsize=4)  # all layers of a forward ask the same
def _ends(lengths: tuple[int, ...], device: torch.device) -> Tensor:  # (S + 1,) of S sequences, from 0
    return torch.tensor([0, *lengths]).cumsum(0).int().to(device)


def _results(
    parts: Sequence[Tensor], gradient: Tensor, attend: Callable[[Sequence[Tensor]], Tensor]
) -> tuple[Tensor, ...]:
    """What attention returns, and the gradients of query, key and value."""
    with torch.enable_grad():
        given = [part.detach().requires_grad_() for part in parts]
        output = attend(given)
        return output.detach(), *torch.autograd.grad(output, given, gradient.to(output.dtype))


def _by_definition(parts: Sequence[Tensor], window: int | None) -> Tensor:
    """A trial's sequences one by one, in fp32."""
    query, key, value = (part.float().transpose(0, 1) for part in parts)
    key, value = (part.repeat_interleave(len(query) // len(part), dim=0) for part in (key, value))
    outputs = []
    for q, k, v in zip(*(torch.split(part, list(TRIAL), dim=1) for part in (query, key, value)), strict=True):
        back = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])
        seen = (back >= 0) & (back < (window or len(back)))
        outputs.append(F.scaled_dot_product_attention(q, k, v, seen).transpose(0, 1))
    return torch.cat(outputs)
