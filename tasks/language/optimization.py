"""Optimizer, learning-rate schedules, gradient clipping, averaged weights."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tasks.engine.config import AdamConfig
from tasks.engine.errors import ModelError
from tasks.language.shards import part_of, saved, together


def make_adamw(params: Iterable[nn.Parameter], config: AdamConfig) -> torch.optim.AdamW:
    """AdamW on the parameters that require gradients.

    Weight decay applies to matrices only, as usual for language models: gains and biases have one dimension.

    Raises:
        ModelError: there is none, so that training would change nothing.
    """
    trained = [param for param in params if param.requires_grad]
    if not trained:
        raise ModelError(
            "optimizer: every parameter is frozen, expected some to train; attach an adapter, or unfreeze the model"
        )
    groups = [
        {"params": [param for param in trained if param.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [param for param in trained if param.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )
    if config.epsilon_placement == "before_correction":
        add_epsilon_before_correction(optimizer, config)
    return optimizer


def add_epsilon_before_correction(optimizer: torch.optim.Optimizer, config: AdamConfig) -> None:
    """Make an optimizer that adds epsilon after bias correction step like one that adds it before.

    m / (sqrt(v) / c + e / c) is c * m / (sqrt(v) + e), with c = sqrt(1 - beta2^t) the correction of step t; so the
    epsilon of step t is e / c. The count is kept in the parameter groups, hence in checkpoints.

    Source: Kingma and Ba (arXiv:1412.6980), end of section 2; TensorFlow 1's Adam.
    """

    def before_step(*_: object) -> None:
        for group in optimizer.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            group["eps"] = config.epsilon / math.sqrt(1.0 - config.beta2 ** group["steps"])

    optimizer.register_step_pre_hook(before_step)


def cosine_to_fraction(step: int, total: int, final: float = 0.1) -> float:
    """Multiplier of the peak learning rate: 1 at step 0, ``final`` at step ``total`` and after, a cosine between.

    Source: InstructGPT appendix C ("cosine learning rate schedule down to 10% of the original"), no warm-up.
    """
    progress = min(step / total, 1.0) if total > 0 else 1.0
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def linear_warmup(iteration: int, iterations: int = 10, start: float = 0.1) -> float:
    """Multiplier of the peak learning rate: ``start`` at iteration 0, 1 from ``iterations`` on, linear between.

    Source: InstructGPT appendix C.4 (10 iterations, from one tenth of the peak); the linear shape is our choice.
    """
    if iterations <= 0:
        return 1.0
    return min(1.0, start + (1.0 - start) * iteration / iterations)


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale gradients down to a global L2 norm of at most ``max_norm``; returns the norm before.

    A norm that is not finite is returned as it is and leaves the gradients alone: the caller's metrics stop the run.
    """
    given = [param for param in parameters if param.grad is not None]
    gradients = [param.grad for param in given]
    norm = together(torch.nn.utils.get_total_norm(gradients))  # type: ignore[arg-type]
    value = float(norm)
    if math.isfinite(value):
        torch.nn.utils.clip_grads_with_norm_(given, max_norm, norm)
    return value


class Ema:
    """Exponential moving average of the trained parameters, kept in fp32: average <- decay * average + (1 - decay) * weights.

    Starts at the model's weights, so no bias correction is needed. The live weights are only read.

    Source: InstructGPT appendix C.4, decay 0.992.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {
            name: param.detach().to(torch.float32, copy=True) for name, param in trained(model)
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights once."""
        weights = [param.detach().float() for _, param in trained(model)]
        torch._foreach_lerp_(list(self.average.values()), weights, 1.0 - self.decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the average into ``model``, which has the same parameters."""
        for name, param in trained(model):
            param.copy_(together(self.average[name]))

    def state_dict(self) -> dict[str, Any]:
        """The averages by parameter name."""
        return {name: saved(average) for name, average in self.average.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved average."""
        assert state.keys() == self.average.keys(), "the average belongs to another model"
        for name, average in self.average.items():
            average.copy_(part_of(state[name], average))


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that require gradients, with their names."""
    return ((name, param) for name, param in model.named_parameters() if param.requires_grad)
