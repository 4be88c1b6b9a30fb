"""The weights that a window of scores is of.

A held-out judge scores what the live policy drew, while the averaged weights trail it: with ``ema_decay`` 0.95 they are 19
steps old on average, with the paper's 0.992 they are 124. Weights that are shipped for their scores are therefore those of the
policies that were scored, averaged with the mean age of the window's scorings.
"""

from typing import Any

import torch
from torch import Tensor, nn

from tasks.language.optimization import trained
from tasks.language.shards import together


class JudgedWeights:
    """An exponential average of the trained parameters over scorings, in fp32 on the CPU, whole on every rank.

    Its mean age is that of ``window`` scorings, (window - 1) / 2, once more than a few have passed.
    """

    def __init__(self, model: nn.Module, window: int) -> None:
        self.newest = 2 / (window + 1)  # share of the policy scored last
        self.average: dict[str, Tensor] = {name: _whole(weight).clone() for name, weight in trained(model)}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """A policy that is about to be scored."""
        for name, weight in trained(model):
            self.average[name].lerp_(_whole(weight), self.newest)

    def copy(self) -> dict[str, Tensor]:
        """The average of now, by parameter name."""
        return {name: average.clone() for name, average in self.average.items()}

    def state_dict(self) -> dict[str, Any]:
        """By parameter name."""
        return dict(self.average)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved average."""
        assert state.keys() == self.average.keys(), "the average belongs to another model"
        self.average = {name: average.clone() for name, average in state.items()}


def _whole(weight: Tensor) -> Tensor:
    return together(weight.detach()).to("cpu", torch.float32)
