"""Residual dropout, whose masks come from a generator of the stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tasks.language.batches import TokenBatch
from tasks.language.families import residual_branches, tokens_per_branch, trunk_of
from tasks.language.recompute import drawing


@contextmanager
def residual_dropout(model: nn.Module, probability: float, generator: torch.Generator) -> Iterator[None]:
    """Inside this context, drop elements of what attention and MLP add to the residual stream; scale up the rest.

    Draws come from ``generator``, which lives on the model's device. It applies in train and eval mode alike.

    Source: InstructGPT appendix C.1 (residual dropout 0.2 in fine-tuning).

    Raises:
        ModelError: a family whose residual branches are not known.
    """

    def drop(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        kept = torch.empty_like(first).bernoulli_(1.0 - probability, generator=generator)
        dropped = first * kept.div_(1.0 - probability)
        return (dropped, *output[1:]) if isinstance(output, tuple) else dropped

    hooks = [branch.register_forward_hook(drop) for branch in residual_branches(model)] if probability else []
    try:
        with drawing(generator):
            yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def draw_residual_dropout(
    model: PreTrainedModel, batch: TokenBatch, probability: float, generator: torch.Generator
) -> None:
    """Draw, and throw away, what ``residual_dropout`` draws while ``response_logprobs`` reads a batch."""
    width, device = model.config.get_text_config().hidden_size, model.device
    kind = device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    for tokens in tokens_per_branch(trunk_of(model), batch):
        torch.empty(tokens, width, device=device, dtype=dtype).bernoulli_(1.0 - probability, generator=generator)
