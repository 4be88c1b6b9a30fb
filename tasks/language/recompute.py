"""Gradient checkpointing: decoder layers keep only their input for the backward pass, which computes the rest again.

It costs one more forward pass and changes no gradient. What a layer reads from its surroundings (how it attends, hooks, draws
of dropout) is the same the second time, although the backward pass runs when the forward pass has left them.

Source: Chen et al. 2016 (arXiv:1604.06174).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_thread = threading.local()
Surroundings = Callable[[], AbstractContextManager[Any]]


@contextmanager
def recomputing(wanted: bool) -> Iterator[None]:
    """Inside this context, in this thread, forward passes with gradients are computed again in the backward pass, or not."""
    before = getattr(_thread, "wanted", False)
    _thread.wanted = wanted
    try:
        yield
    finally:
        _thread.wanted = before


@contextmanager
def drawing(generator: torch.Generator) -> Iterator[None]:
    """Inside this context, layers draw from ``generator``: computed again, they get the same numbers again."""
    before = _generators()
    _thread.generators = (*before, generator)
    try:
        yield
    finally:
        _thread.generators = before


@contextmanager
def recomputed(layers: Iterable[nn.Module], surroundings: Surroundings = nullcontext) -> Iterator[None]:
    """Inside this context the layers keep only their input, if that is wanted in this thread and gradients are.

    Args:
        layers: called at most once inside.
        surroundings: makes the context that the layers are called in; entered again for the second time.
    """
    chosen = list(layers) if wanted() else []
    for layer in chosen:
        layer.forward = _kept_small(layer.forward, surroundings)
    try:
        yield
    finally:
        for layer in chosen:
            del layer.forward  # the instance's, so that the class's is back


def _kept_small(own: Callable[..., Any], surroundings: Surroundings) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        states = [(generator, generator.get_state()) for generator in _generators()]
        return nullcontext(), _again(surroundings, states)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(own, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **kwargs)

    return forward


@contextmanager
def _again(surroundings: Surroundings, states: Sequence[tuple[torch.Generator, Tensor]]) -> Iterator[None]:
    now = [generator.get_state() for generator, _ in states]
    for generator, state in states:
        generator.set_state(state)
    try:
        with surroundings():
            yield
    finally:
        for (generator, _), state in zip(states, now, strict=True):
            generator.set_state(state)


def wanted() -> bool:
    """Whether forward passes in this thread are to be computed again in their backward pass, now that they have one."""
    return getattr(_thread, "wanted", False) and torch.is_grad_enabled()


def _generators() -> tuple[torch.Generator, ...]:
    return getattr(_thread, "generators", ())
