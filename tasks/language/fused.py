"""Rotary embedding and root-mean-square norms in about half the passes over memory that the families' own code takes.

Most families define ``apply_rotary_pos_emb`` and a class ``...RMSNorm`` in their modeling file, written in steps that each
read and write a whole tensor, and once more in the backward pass; on small models that costs as much as a projection.
``fused`` puts functions of equal results in their places: only for forward passes inside the context, only in that thread,
and only where a trial on random numbers found the results equal. Everybody else gets the library's own. Under autocast half
queries and keys meet fp32 angles: they are turned in fp32 and rounded at once, as the products that follow would have it.
"""

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

ROTATION = "apply_rotary_pos_emb"
NORM = "RMSNorm"
Rotation = Callable[..., tuple[Tensor, Tensor]]
_thread = threading.local()
_lock = threading.Lock()
_prepared: set[Any] = set()  # modeling files, norm classes, trunk classes


@contextmanager
def fused(trunk: PreTrainedModel) -> Iterator[None]:
    """Inside this context, in this thread, the trunk's family rotates and normalises by the functions below."""
    _prepare(trunk)
    before = _inside()
    _thread.fused = True
    try:
        yield
    finally:
        _thread.fused = before


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x * cos + half(x) * sin, where half((a, b)) = (-b, a) on the two halves of the last dimension.

    Args:
        states: (..., d) queries or keys, d even; in half precision beside fp32 angles they are rounded once, at the end.
        cos: broadcasts with them; gets no gradient.
        sin: likewise.
    """
    if torch.is_grad_enabled() and states.requires_grad:
        rotated: Tensor = _Rotate.apply(states, cos, sin)  # type: ignore[no-untyped-call]
        return rotated
    return _rotated(states, cos, sin)


def normalise(states: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """gain * x / sqrt(mean(x^2) + epsilon) over the last dimension. (..., D), (D,) -> (..., D)."""
    if torch.is_grad_enabled() and (states.requires_grad or gain.requires_grad):
        normalised: Tensor = _Normalise.apply(states, gain, epsilon)  # type: ignore[no-untyped-call]
        return normalised
    return (states * _inverse_root(states, epsilon)).mul_(gain)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(states, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        half, whole = gradient.shape[-1] // 2, gradient.to(cos.dtype)
        result = whole * cos
        result[..., :half].addcmul_(whole[..., half:], sin[..., half:])
        result[..., half:].addcmul_(whole[..., :half], sin[..., :half], value=-1)
        return result.to(gradient.dtype), None, None


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half, whole = states.shape[-1] // 2, states.to(cos.dtype)
    result = whole * cos
    result[..., :half].addcmul_(whole[..., half:], sin[..., :half], value=-1)
    result[..., half:].addcmul_(whole[..., :half], sin[..., half:])
    return result.to(states.dtype)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        scale = _inverse_root(states, epsilon)
        ctx.save_for_backward(states, gain, scale)
        return (states * scale).mul_(gain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        states, gain, scale = ctx.saved_tensors  # (..., D), (D,), (..., 1)
        width = len(gain)
        products = (gradient * states).reshape(-1, width)
        with torch.autocast(gradient.device.type, enabled=False):  # whoever calls backward inside one
            for_gain = (scale.reshape(1, -1) @ products).view(width)
            along = (products @ gain).view(scale.shape)
        along.mul_(scale.pow(3)).mul_(-1 / width)
        return (gradient * gain).mul_(scale).addcmul_(states, along), for_gain, None


def _inverse_root(states: Tensor, epsilon: float) -> Tensor:  # (..., D) -> (..., 1)
    squares: Tensor = torch.linalg.vector_norm(states, dim=-1, keepdim=True).square_()
    return squares.mul_(1 / states.shape[-1]).add_(epsilon).rsqrt_()


def _rotation_switch(own: Rotation) -> Rotation:
    """Stands in a modeling file: the family's function for everybody but the threads inside ``fused``."""

    @wraps(own)
    def switch(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        whole = q.shape[-1] == k.shape[-1] == cos.shape[-1]  # some families rotate a part of the width
        alike = q.dtype == k.dtype and cos.dtype == sin.dtype and (q.dtype == cos.dtype or _rounded_next(q, cos))
        if not (_inside() and whole and alike) or cos.requires_grad:
            return own(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return rotate(q, cos, sin), rotate(k, cos, sin)

    return switch


def _rounded_next(states: Tensor, angles: Tensor) -> bool:
    """Whether autocast rounds the fp32 product of these to the precision of the states before anything reads it."""
    kind = states.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == states.dtype
    return autocast and angles.dtype == torch.float32


def _norm_switch(own: Callable[..., Tensor], added: float) -> Callable[..., Tensor]:
    """The ``forward`` of a norm class whose gain is its weight plus ``added``."""

    @wraps(own)
    def forward(self: nn.Module, hidden_states: Tensor) -> Tensor:
        gain: Any = self.weight
        if not (_inside() and hidden_states.dtype == gain.dtype == torch.float32):
            return own(self, hidden_states)
        return normalise(hidden_states, gain + added if added else gain, _epsilon(self))

    return forward


def _inside() -> bool:
    return getattr(_thread, "fused", False)


def _prepare(trunk: PreTrainedModel) -> None:
    """Once for a family; cheap afterwards."""
    if type(trunk) in _prepared:
        return
    with _lock:
        module = sys.modules[type(trunk).__module__]
        if module not in _prepared:
            own = getattr(module, ROTATION, None)
            if own is not None and _rotates_alike(own):
                setattr(module, ROTATION, _rotation_switch(own))
            _prepared.add(module)
        for kind in {type(part) for part in trunk.modules() if type(part).__name__.endswith(NORM)} - _prepared:
            example = next(part for part in trunk.modules() if type(part) is kind)
            added = _added_to_weight(example)
            if added is not None:
                kind.forward = _norm_switch(kind.forward, added)
            _prepared.add(kind)
        _prepared.add(type(trunk))


def _rotates_alike(own: Rotation) -> bool:
    """Families whose pairs lie side by side instead of in halves do not."""
    draws = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, heads, 5, 8, generator=draws) for heads in (4, 2))
    cos, sin = (torch.randn(2, 5, 8, generator=draws) for _ in range(2))
    try:
        expected = own(q, k, cos, sin)
    except (TypeError, RuntimeError):  # another signature
        return False
    found = [rotate(part, cos.unsqueeze(1), sin.unsqueeze(1)) for part in (q, k)]
    return all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(found, expected, strict=True))


def _added_to_weight(norm: nn.Module) -> float | None:
    """0 or 1, whichever makes ``normalise`` compute what the norm does; None if neither does.

    A trial of the class: the weights of this one are replaced, and small states show what epsilon is added to.
    """
    weight: Any = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 1 or _epsilon(norm) is None:
        return None
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        trial: Any = copy.deepcopy(norm).cpu().float()
        trial.weight = nn.Parameter(torch.randn(len(weight), generator=draws))  # ranks may divide its own
        states = torch.randn(4, len(weight), generator=draws) * torch.tensor([[1.0], [1.0], [1e-3], [30.0]])
        expected = trial(states)
        for added in (0.0, 1.0):
            if torch.allclose(normalise(states, trial.weight + added, _epsilon(norm)), expected, rtol=1e-5, atol=1e-6):
                return added
    return None


def _epsilon(norm: nn.Module) -> Any:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
