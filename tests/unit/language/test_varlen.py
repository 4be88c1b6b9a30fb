"""The kernel for packed sequences, which this machine may not have: a stand-in does what its documentation promises."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.language import attention, varlen
from tasks.language.attention import packed_attention

LENGTHS = [4, 1, 9, 2, 9]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    varlen.works.cache_clear()
    yield
    varlen.works.cache_clear()


def kernel(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, key_ends: Tensor, *longest: int, **how: Any
) -> Tensor:
    """As torch.nn.attention.varlen documents varlen_attn: (T, H, d), causal or in a window to the left."""
    assert torch.equal(ends, key_ends) and ends.dtype == torch.int32 and ends[-1] == len(query)
    assert longest == (int(ends.diff().max()),) * 2 and query.dtype in varlen.HALF
    left, right = how["window_size"]
    assert right == 0 and how["enable_gqa"] == (query.shape[1] != key.shape[1])
    outputs = []
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        q, k, v = (part[start:end].transpose(0, 1) for part in (query, key, value))
        back = torch.arange(end - start)[:, None] - torch.arange(end - start)
        seen = (back >= 0) & ((back <= left) if left >= 0 else True)
        out = F.scaled_dot_product_attention(q, k, v, seen, scale=how["scale"], enable_gqa=how["enable_gqa"])
        outputs.append(out.transpose(0, 1))
    return torch.cat(outputs)


def parts(key_heads: int, dtype: torch.dtype) -> list[Tensor]:
    draws = torch.Generator().manual_seed(1)
    shapes = [(1, heads, sum(LENGTHS), 8) for heads in (4, key_heads, key_heads)]
    return [torch.randn(shape, generator=draws).to(dtype).requires_grad_() for shape in shapes]


def results(given: list[Tensor], **how: Any) -> tuple[Tensor, ...]:
    output, _ = packed_attention(torch.nn.Identity(), *given, None, sequence_lengths=LENGTHS, **how)
    return output, *torch.autograd.grad(output.float().square().sum(), given)


@pytest.mark.parametrize("how", [{}, {"scaling": 0.7}, {"sliding_window": 3}, {"sliding_window": 3, "scaling": 0.2}])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("autocast", [True, False])
def test_the_kernel_is_given_what_the_grid_is(
    how: dict[str, Any], key_heads: int, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LOOPS_ON", frozenset())
    given = parts(key_heads, torch.float32 if autocast else torch.bfloat16)
    monkeypatch.setattr(attention, "_half_gradients", lambda *_: False)  # of CPUs
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        on_grid, calls = results(given, **how), []
        monkeypatch.setattr(varlen, "varlen_attn", lambda *a, **k: calls.append(1) or kernel(*a, **k))
        varlen.works.cache_clear()
        packed = results(given, **how)
    assert len(calls) == 2  # the trial, and this
    for found, expected in zip(packed, on_grid, strict=True):
        assert (found - expected).abs().max() <= 0.03 * expected.abs().max()
    assert packed[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda *a, **k: kernel(*a, **k | {"window_size": (-1, 0)}), "% off"),
        (lambda *a, **k: 2 * (found := kernel(*a, **k)) - found.detach(), "% off"),
        (lambda *a, **k: kernel(*a, **k) / (2 if k["enable_gqa"] else 1), "% off"),
        (varlen.varlen_attn, "cannot be used: "),
    ],
    ids=["no window", "twice the gradient", "wrong where heads share keys", "not there"],
)
def test_a_kernel_that_fails_its_trial_is_not_used(
    wrong: Any, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = parts(2, torch.bfloat16)
    expected = results(given, sliding_window=3)
    monkeypatch.setattr(attention, "LOOPS_ON", frozenset())
    monkeypatch.setattr(varlen, "varlen_attn", wrong)
    with caplog.at_level(logging.INFO, "plumbline"):
        for _ in range(2):
            found = results(given, sliding_window=3)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).abs().max() <= 0.03 * theirs.abs().max()
    (said,) = [record.getMessage() for record in caplog.records]
    assert words in said and "\n" not in said


@pytest.mark.parametrize("how", [{"softcap": 2.0}, {"dropout": 0.5}])
def test_what_the_kernel_does_not_do_is_not_asked_of_it(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LOOPS_ON", frozenset())
    monkeypatch.setattr(varlen, "varlen_attn", None)
    results(parts(2, torch.bfloat16), **how)
    results(parts(2, torch.float32))  # nor full precision
