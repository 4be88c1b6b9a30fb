"""The bf16 backward pass against double precision, and the forward pass left to the library."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.language import attention, half_gradients
from tasks.language.attention import packed_attention
from tasks.language.half_gradients import groups_of

LENGTHS = [5, 1, 9, 8, 5, 12, 2, 9]
DRAWS = torch.Generator().manual_seed(5)


def drawn(heads: int, dtype: torch.dtype = torch.float32) -> Tensor:  # (1, heads, N, 16)
    return torch.randn(1, sum(LENGTHS), heads, 16, generator=DRAWS).mul(1.5).to(dtype).transpose(1, 2)


def by_definition(parts: list[Tensor], weights: Tensor, scaling: float | None) -> list[Tensor]:
    """Gradients in double precision, sequence by sequence."""
    query, key, value = (part.detach().double().requires_grad_() for part in parts)
    start, total = 0, torch.zeros((), dtype=torch.float64)
    for length in LENGTHS:
        q, k, v = (part[0, :, start : start + length] for part in (query, key, value))
        k, v = (part.repeat_interleave(len(q) // len(part), dim=0) for part in (k, v))
        products = q @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        products = products + torch.full((length, length), -torch.inf).triu(1)
        total = total + ((products.softmax(-1) @ v).transpose(0, 1) * weights[0, start : start + length].double()).sum()
        start += length
    return list(torch.autograd.grad(total, (query, key, value)))


def attended(parts: list[Tensor], **how: float | None) -> Tensor:
    return packed_attention(torch.nn.Module(), *parts, None, sequence_lengths=LENGTHS, **how)[0]


@pytest.mark.parametrize("scaling", [None, 0.4])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (3, 1)])
def test_gradients_are_right_to_half_precision_and_the_forward_pass_is_untouched(
    heads: int, key_heads: int, scaling: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [drawn(count, torch.bfloat16).requires_grad_() for count in (heads, key_heads, key_heads)]
    weights = torch.randn(1, sum(LENGTHS), heads, 16, generator=DRAWS).bfloat16()
    found = attended(parts, scaling=scaling)
    gradients = torch.autograd.grad(found, parts, weights)
    for gradient, expected in zip(gradients, by_definition(parts, weights, scaling), strict=True):
        assert gradient.dtype == torch.bfloat16
        assert float((gradient.double() - expected).norm() / expected.norm()) < 5e-3
    with torch.no_grad():
        assert torch.equal(found, attended(parts, scaling=scaling))
    monkeypatch.setattr(attention, "LONGEST", 0)
    assert torch.equal(found, attended(parts, scaling=scaling))


def test_under_autocast_fp32_operands_get_fp32_gradients() -> None:
    parts = [drawn(count).requires_grad_() for count in (4, 2, 2)]
    weights = torch.randn(1, sum(LENGTHS), 4, 16, generator=DRAWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attended(parts)
    gradients = torch.autograd.grad(found, parts, weights.bfloat16())
    assert found.dtype == torch.bfloat16 and {part.dtype for part in gradients} == {torch.float32}
    for gradient, expected in zip(gradients, by_definition(parts, weights, None), strict=True):
        assert float((gradient.double() - expected).norm() / expected.norm()) < 1e-2


def test_only_short_plain_attention_in_bf16_with_gradients_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    usual = attention.with_short_gradients

    def counted(*given: Any) -> Tensor:
        calls.append(1)
        return usual(*given)

    monkeypatch.setattr(attention, "with_short_gradients", counted)
    for dtype, how in (
        (torch.float32, {}),
        (torch.bfloat16, {"softcap": 5.0}),
        (torch.bfloat16, {"sliding_window": 4}),
        (torch.bfloat16, {"dropout": 0.5}),
    ):
        attended([drawn(2, dtype).requires_grad_() for _ in range(3)], **how)
    attended([drawn(2, torch.bfloat16) for _ in range(3)])
    assert not calls
    attended([drawn(2, torch.bfloat16).requires_grad_() for _ in range(3)], sliding_window=12)
    assert calls == [1]
    monkeypatch.setattr(attention, "LONGEST", max(LENGTHS) - 1)
    attended([drawn(2, torch.bfloat16).requires_grad_() for _ in range(3)])
    assert calls == [1]


def test_groups_keep_to_the_share_of_padding_and_to_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = random.Random(1)
    lengths = [draws.randrange(20, 97) for _ in range(64)]
    monkeypatch.setattr(half_gradients, "WEIGHTS", 8 * 96**2 * 6)
    groups = groups_of(lengths, heads=8)
    assert sorted(number for group in groups for number in group) == list(range(64))
    for group in groups:
        longest, real = max(lengths[n] for n in group), sum(lengths[n] for n in group)
        assert len(group) * longest <= 1.15 * real
        assert len(group) * 8 * longest**2 <= 8 * 96**2 * 6
    assert groups_of([7] * 5, heads=1) == [[0, 1, 2, 3, 4]]
