"""Our rotation and norm against the families' own."""

import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.language import fused as module
from tasks.language.families import trunk_of
from tasks.language.fused import NORM, ROTATION, fused, normalise, rotate
from tests.unit.families import PACKED, build

DRAWS = torch.Generator().manual_seed(1)
IN_HALVES = sorted(set(PACKED) - {"cohere", "cohere2", "gpt2"})  # pairs side by side; no rotation at all
NORMED = [
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=DRAWS, dtype=dtype)


def rotation_of(family: str) -> Any:
    """What the family's attention calls at this moment."""
    return getattr(sys.modules[type(trunk_of(build(family))).__module__], ROTATION)


def norm_of(family: str) -> nn.Module:
    norm = next(part for part in build(family).modules() if type(part).__name__.endswith(NORM))
    nn.init.normal_(norm.weight, generator=DRAWS)
    return norm


def counted(name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    usual = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: (calls.append(1), usual(*given))[1])
    return calls


@pytest.mark.parametrize("family", IN_HALVES)
def test_the_rotation_and_its_gradients_are_the_family_s(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cos, sin = drawn(2, 5, 8), drawn(2, 5, 8)
    weights = [drawn(2, heads, 5, 8) for heads in (4, 2)]
    inputs = [drawn(2, heads, 5, 8) for heads in (4, 2)]
    trunk = trunk_of(build(family))
    with fused(trunk):
        switch = rotation_of(family)
    calls = counted("rotate", monkeypatch)

    def differentiated() -> list[Any]:
        parts = [part.clone().requires_grad_() for part in inputs]
        rotated = switch(*parts, cos, sin)
        torch.autograd.backward(rotated, weights)
        return [*(out.detach() for out in rotated), *(part.grad for part in parts)]

    expected = differentiated()
    assert not calls
    with fused(trunk):
        found = differentiated()
    assert len(calls) == 2
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_under_autocast_half_states_are_turned_in_full_precision_and_rounded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cos, sin = drawn(2, 5, 8), drawn(2, 5, 8)
    inputs = [drawn(2, heads, 5, 8, dtype=torch.bfloat16) for heads in (4, 2)]
    weights = [drawn(2, heads, 5, 8, dtype=torch.bfloat16) for heads in (4, 2)]
    trunk = trunk_of(build("llama"))
    with fused(trunk):
        switch = rotation_of("llama")
    calls = counted("rotate", monkeypatch)

    def differentiated() -> list[Any]:
        parts = [part.clone().requires_grad_() for part in inputs]
        rotated = [part.bfloat16() for part in switch(*parts, cos, sin)]
        torch.autograd.backward(rotated, weights)
        return [*(out.detach() for out in rotated), *(part.grad for part in parts)]

    expected = differentiated()
    with fused(trunk):
        without = differentiated()
        assert not calls, "nothing says that the result will be rounded"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = differentiated()
    assert len(calls) == 2
    torch.testing.assert_close(without, expected, atol=0, rtol=0)
    torch.testing.assert_close(found[:2], expected[:2], atol=0, rtol=0)
    inputs = [part.float() for part in inputs]
    in_full = [part.bfloat16() for part in differentiated()[2:]]  # the family's own rounds each half of a sum
    torch.testing.assert_close(found[2:], in_full, atol=1e-6, rtol=2**-8)
    assert any(not torch.equal(a, b) for a, b in zip(expected[2:], in_full, strict=True))


@pytest.mark.parametrize("family", NORMED)
@pytest.mark.parametrize("shape", [(1, 7), (2, 3, 5)])
def test_the_norm_and_its_gradients_are_the_family_s(
    family: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    norm, trunk = norm_of(family), trunk_of(build(family))
    width = len(norm.weight)
    inputs, weights = drawn(*shape, width), drawn(*shape, width)
    calls = counted("normalise", monkeypatch)

    def differentiated() -> list[Any]:
        states = inputs.clone().requires_grad_()
        norm.weight.grad = None
        out = norm(states)
        out.backward(weights)
        return [out.detach(), states.grad, norm.weight.grad]

    expected = differentiated()
    with fused(trunk):
        calls.clear()  # of the trial
        found = differentiated()
    assert len(calls) == 1
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_gradients_equal_finite_differences() -> None:
    states = drawn(1, 2, 3, 6, dtype=torch.float64).requires_grad_()
    cos, sin = (drawn(1, 1, 3, 6, dtype=torch.float64) for _ in range(2))
    gain = drawn(6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), (states,))
    assert torch.autograd.gradcheck(lambda x, w: normalise(x, w, 1e-3), (states, gain))


def test_a_backward_pass_inside_autocast_keeps_full_precision() -> None:
    inputs, weights, found = drawn(5, 6), drawn(5, 6), []
    for enabled in (False, True):
        states, gain = inputs.clone().requires_grad_(), torch.ones(6, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            normalise(states, gain, 1e-6).backward(weights)
        found.append([states.grad, gain.grad])
    torch.testing.assert_close(found[1], found[0], atol=0, rtol=0)


def test_a_row_of_zeros_has_finite_gradients() -> None:
    states = torch.zeros(2, 4, requires_grad=True)
    normalise(states, torch.ones(4), 1e-6).sum().backward()
    assert states.grad is not None and states.grad.isfinite().all()


@pytest.mark.parametrize("family", ["cohere", "cohere2"])
def test_a_family_that_rotates_otherwise_keeps_its_function(family: str) -> None:
    with fused(trunk_of(build(family))):
        assert not hasattr(rotation_of(family), "__wrapped__")
    with fused(trunk_of(build("llama"))):
        assert hasattr(rotation_of("llama"), "__wrapped__")


class EpsilonBehindTheRootRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(16)), 1e-3

    def forward(self, states: Tensor) -> Tensor:
        return self.weight * states / (states.square().mean(-1, keepdim=True).sqrt() + self.eps)


class OddRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(16)), 1e-6

    def forward(self, states: Tensor) -> Tensor:
        return states * self.weight


@pytest.mark.parametrize("odd", [OddRMSNorm, EpsilonBehindTheRootRMSNorm])
def test_a_class_that_normalises_otherwise_keeps_its_function(odd: type[nn.Module]) -> None:
    class Family(type(trunk_of(build("llama")))):  # type: ignore[misc]
        """Not seen before."""

    trunk = trunk_of(build("llama"))
    trunk.norm, trunk.__class__ = odd(), Family
    usual = odd.forward
    with fused(trunk):
        assert odd.forward is usual


def test_the_class_is_tried_not_the_weights_of_the_first_model() -> None:
    """A model that diverged must not change what the next one computes."""

    class Family(type(trunk_of(build("llama")))):  # type: ignore[misc]
        """Not seen before."""

    class FreshRMSNorm(type(norm_of("llama"))):  # type: ignore[misc]
        """Not seen before."""

    trunk = trunk_of(build("llama"))
    trunk.norm = FreshRMSNorm(16)
    nn.init.constant_(trunk.norm.weight, float("nan"))
    trunk.__class__ = Family
    with fused(trunk):
        assert FreshRMSNorm.forward.__wrapped__
    assert trunk.norm.weight.isnan().all()


def test_other_widths_precisions_and_threads_get_the_family_s_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, norm = trunk_of(build("llama")), norm_of("llama")
    with fused(trunk):
        switch = rotation_of("llama")
    normalised, asked = counted("normalise", monkeypatch), []
    (own,) = (cell for cell in switch.__closure__ if cell.cell_contents is switch.__wrapped__)
    monkeypatch.setattr(own, "cell_contents", lambda q, k, *_: (asked.append(tuple(q.shape)), (q, k))[1])
    q, k, cos, sin, states = drawn(1, 4, 5, 8), drawn(1, 2, 5, 8), drawn(1, 5, 8), drawn(1, 5, 8), drawn(3, 16)

    def both() -> None:
        switch(q, k, cos, sin)
        norm(states)

    other = threading.Thread(target=both)
    with fused(trunk):
        both()
        assert (len(asked), len(normalised)) == (0, 1)
        switch(q.bfloat16(), k.bfloat16(), cos, sin)
        switch(q[..., :6], k[..., :6], cos, sin)
        switch(q, k, cos.clone().requires_grad_(), sin)
        norm(states.bfloat16())
        other.start()
        other.join()
        assert (len(asked), len(normalised)) == (4, 1)
    both()
    with pytest.raises(RuntimeError), fused(trunk):
        raise RuntimeError
    both()
    assert (len(asked), len(normalised)) == (6, 1), "a failed forward pass leaves the family's functions in place"
