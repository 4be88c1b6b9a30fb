"""Half precision: products in bf16 over weights that stay fp32."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tasks.engine.config import RuntimeConfig
from tasks.language.recompute import recomputing
from tasks.language.shards import is_divided


@contextmanager
def autocast(runtime: RuntimeConfig) -> Iterator[None]:
    """bf16 for matrix products when the runtime asks for it, over weights that stay fp32; layers computed again in the
    backward pass when it asks for that."""
    kind, half = torch.device(runtime.device).type, runtime.precision == "bf16"
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=half), recomputing(runtime.gradient_checkpointing):
        yield


@contextmanager
def rounded_once(model: PreTrainedModel) -> Iterator[None]:
    """Under autocast, have a model's frozen linear layers rounded once instead of in every product; no output changes.

    Autocast remembers only what it rounded of weights that are trained. One token's products with all others, as under an
    adapter, are then mostly the rounding. It costs half of those weights' memory for as long as it lasts.
    """
    kind = model.device.type
    with ExitStack() as stack:
        if torch.is_autocast_enabled(kind) and not is_divided(model):
            half = torch.get_autocast_dtype(kind)
            for layer in model.modules():
                if isinstance(layer, nn.Linear | Conv1D) and _is_rounded_anew(layer.weight):
                    stack.callback(setattr, layer, "weight", layer.weight)
                    layer.weight = nn.Parameter(layer.weight.to(half), requires_grad=False)
        yield


def _is_rounded_anew(weight: torch.Tensor) -> bool:
    return weight.dtype == torch.float32 and not weight.requires_grad
