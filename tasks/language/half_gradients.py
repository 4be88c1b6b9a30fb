"""The backward pass of attention over short packed sequences in bf16 on a CPU.

There the library's own backward pass takes five to ten times as long as its forward pass. Here sequences of similar length
lie side by side, padded a little, and a group costs five batched products: weights are computed again in fp32 from queries
and keys, and rounded to bf16 only for the products that follow. Forward passes stay the library's, to the bit.

Heads that share a key head lie one behind another, as if they were more tokens of it, so that no key is repeated.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LONGEST = 192
"""Tokens of a sequence above which the library's backward pass is as fast."""
WASTE = 1.15
"""Tokens of a padded group are at most so many times its real ones."""
WEIGHTS = 2**18
"""Attention weights of a group, at most, unless one sequence has more: 1 MiB in fp32, which stays in a core's own cache."""


class Group(NamedTuple):
    """Sequences side by side: B of them, T tokens the longest, with G key heads of R query heads each."""

    rows: int  # B * G
    length: int  # T
    queries: Tensor  # (B * G * R * T,) places among tokens x query heads
    keys: Tensor  # (B * G * T,) places among tokens x key heads
    padding: Tensor  # (n,) places among the queries


class Places(NamedTuple):
    """Where everything lies in the groups, one behind another."""

    groups: list[Group]
    queries: Tensor  # (N * H,) place of each query
    keys: Tensor  # (N * G,) place of each key


def with_short_gradients(
    forward: Callable[[Tensor, Tensor, Tensor], Tensor],
    parts: Sequence[Tensor],
    lengths: Sequence[int],
    scaling: float | None,
) -> Tensor:
    """What ``forward`` computes, with the backward pass of plain causal attention.

    Args:
        forward: of queries, keys and values to (N, H, d).
        parts: queries (N, H, d), keys and values (N, G, d) of all sequences, one behind another; G divides H.
        lengths: tokens of each sequence; they add up to N.
        scaling: of the products, 1 / sqrt(d) by default.
    """
    attended: Tensor = _ShortAttention.apply(*parts, forward, lengths, scaling)  # type: ignore[no-untyped-call]
    return attended


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        forward: Callable[[Tensor, Tensor, Tensor], Tensor],
        lengths: Sequence[int],
        scaling: float | None,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.lengths, ctx.scale = tuple(lengths), query.shape[-1] ** -0.5 if scaling is None else scaling
        return forward(query, key, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):  # whoever calls backward inside one
            query, key, value, weight = (part.bfloat16() for part in (*given, gradient))
            found = _gradients(query, key, value, weight, ctx.lengths, ctx.scale)
        return *(part.to(like.dtype) for part, like in zip(found, given, strict=True)), None, None, None


def _gradients(
    query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, lengths: tuple[int, ...], scale: float
) -> list[Tensor]:
    layout = _layout(lengths, query.shape[1], key.shape[1])
    parts: tuple[list[Tensor], ...] = ([], [], [])
    for group in layout.groups:
        q, given = (_taken(part, group.queries, group.rows) for part in (query, gradient))
        k, v = (_taken(part, group.keys, group.rows) for part in (key, value))
        given.view(-1, given.shape[-1]).index_fill_(0, group.padding, 0)
        later = _later(group.length, q.shape[1] // group.length)
        weights = torch.baddbmm(later, q.float(), k.float().transpose(1, 2), alpha=scale).softmax(dim=-1)
        for_weights = torch.bmm(given, v.transpose(1, 2)).float()
        for_products = torch._softmax_backward_data(for_weights, weights, -1, torch.float32).mul_(scale).bfloat16()
        parts[0].append(torch.bmm(for_products, k).flatten(0, 1))
        parts[1].append(torch.bmm(for_products.transpose(1, 2), q).flatten(0, 1))
        parts[2].append(torch.bmm(weights.bfloat16().transpose(1, 2), given).flatten(0, 1))
    places = (layout.queries, layout.keys, layout.keys)
    return [
        torch.cat(part).index_select(0, place).view(like.shape)
        for part, place, like in zip(parts, places, (query, key, value), strict=True)
    ]


def _taken(part: Tensor, places: Tensor, rows: int) -> Tensor:  # (N, heads, d) -> (B * G, tokens, d)
    return part.reshape(-1, part.shape[-1]).index_select(0, places).view(rows, -1, part.shape[-1])


@lru_cache(maxsize=16)
def _later(length: int, shared: int) -> Tensor:  # (1, R * T, T) -inf on later tokens
    return torch.full((length, length), -torch.inf).triu_(1).repeat(shared, 1)[None]


def groups_of(lengths: Sequence[int], heads: int) -> list[list[int]]:
    """Numbers of the sequences in groups of similar length, short ones first, as ``WASTE`` and ``WEIGHTS`` allow."""
    groups: list[list[int]] = []
    real = 0
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        length, count = lengths[number], len(groups[-1]) + 1 if groups else 0
        if groups and count * length <= WASTE * (real + length) and count * heads * length**2 <= WEIGHTS:
            groups[-1].append(number)
            real += length
        else:
            groups.append([number])
            real = length
    return groups


@lru_cache(maxsize=32)  # all layers of a pass ask the same
def _layout(lengths: tuple[int, ...], heads: int, key_heads: int) -> Places:
    counts = torch.tensor(lengths)
    starts = counts.cumsum(0) - counts
    groups: list[Group] = []
    inverse = [torch.empty(count * int(counts.sum()), dtype=torch.long) for count in (heads, key_heads)]
    passed = [0, 0]
    for numbers in groups_of(lengths, heads):
        of = torch.tensor(numbers)
        columns = torch.arange(int(counts[of].max()))
        real = columns < counts[of, None]  # (B, T)
        tokens = starts[of, None] + torch.minimum(columns, counts[of, None] - 1)  # padding is the last token once more
        grids, shown = [], []
        for side, count in enumerate((heads, key_heads)):
            grids.append((tokens[:, None] * count + torch.arange(count)[:, None]).flatten())  # (B, count, T)
            shown.append(real[:, None].expand(-1, count, -1).flatten())
            inverse[side][grids[side][shown[side]]] = passed[side] + shown[side].nonzero().squeeze(1)
            passed[side] += len(grids[side])
        padding = (~shown[0]).nonzero().squeeze(1)
        groups.append(Group(len(numbers) * key_heads, len(columns), grids[0], grids[1], padding))
    return Places(groups, inverse[0], inverse[1])
