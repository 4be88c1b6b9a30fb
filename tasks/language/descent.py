"""The one way to take an optimizer step: learning rate, clipping, step, and gradients cleared for the next."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tasks.engine.config import AdamConfig
from tasks.language.optimization import clip_grad_norm, cosine_to_fraction, make_adamw
from tasks.language.room import Found, Group, Room
from tasks.language.shards import part_of, saved
from tasks.language.share import add_gradients

Schedule = Callable[[int], float]
"""Multiplier of the peak learning rate by the number of steps taken so far."""


class Step(NamedTuple):
    """What an optimizer step reports."""

    learning_rate: float
    grad_norm: float
    """Before clipping."""


def constant(_: int) -> float:
    """The peak throughout."""
    return 1.0


def cosine(steps: int, final: float) -> Schedule:
    """The peak at the first of ``steps`` steps, ``final`` of it at the last, a cosine between."""
    return lambda taken: cosine_to_fraction(taken, max(steps - 1, 1), final)


class Descent:
    """A network's optimizer.

    Args:
        network: its parameters that require gradients are trained.
        config: AdamW, its peak learning rate, and the largest norm of a gradient.
        schedule: see ``Schedule``.
        idle: a sum of nothing, made by the passes that a microbatch takes; for ranks with fewer of them than others, where
            the network is divided.
    """

    def __init__(
        self, network: nn.Module, config: AdamConfig, schedule: Schedule, idle: Callable[[], Tensor] | None = None
    ) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.config, self.schedule = config, schedule
        self.optimizer: torch.optim.Optimizer = make_adamw(self.parameters, config)
        self._room = Room(network, None if idle is None else lambda: idle().backward())  # type: ignore[no-untyped-call]
        self._complete = False

    def add_up(
        self, groups: Sequence[Group], run: Callable[[Sequence[Group]], Found], passes: int | None = None
    ) -> Found:
        """What ``run`` returns, which adds up gradients group by group; where memory is short it starts again with halves.

        ``passes`` as ``Room.fit`` has it.
        """
        return self._room.fit(groups, run, lambda: self.optimizer.zero_grad(set_to_none=True), passes)

    def complete(self) -> None:
        """Add up the gradients of all ranks; done once before each step, by the step itself if by nobody before it."""
        if not self._complete:
            add_gradients(self.parameters)
            self._complete = True

    def step(self, taken: int) -> Step:
        """Step along the gradients that have been added up, and clear them; ``taken`` is what the schedule reads."""
        self.complete()
        learning_rate = self.config.learning_rate * self.schedule(taken)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = clip_grad_norm(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._complete = False
        return Step(learning_rate, norm)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides the weights and the number of steps."""
        found: dict[str, Any] = _mapped(saved, self.optimizer.state_dict())
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        owners = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        known = dict(zip(numbers, owners, strict=True))
        parts = {
            number: {name: part_of(value, known[number]) if name != "step" else value for name, value in of.items()}
            for number, of in state["state"].items()
        }
        self.optimizer.load_state_dict(state | {"state": parts})


def _mapped(change: Callable[[Tensor], Tensor], state: Any) -> Any:
    """The same containers with every tensor changed."""
    if isinstance(state, dict):
        return {name: _mapped(change, value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_mapped(change, value) for value in state)
    return change(state) if isinstance(state, Tensor) else state
