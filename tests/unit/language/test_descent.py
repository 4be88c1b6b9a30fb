import copy
import math

import pytest
import torch
from torch import nn

from tasks.language.descent import Descent, constant, cosine
from tests.unit.language.test_optimization import ADAM


def trained(steps: int, descent: Descent, network: nn.Linear) -> None:
    for taken in range(steps):
        network(torch.ones(1, 3)).square().sum().backward()
        descent.step(taken)


def network() -> nn.Linear:
    return nn.Linear(3, 2).requires_grad_(True)


def test_the_cosine_starts_at_the_peak_and_ends_at_its_fraction_with_the_last_step() -> None:
    multipliers = [cosine(5, 0.1)(taken) for taken in range(5)]
    assert multipliers == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * n / 4)) / 2 for n in range(5)])
    assert cosine(1, 0.1)(0) == 1.0


def test_a_step_reports_the_norm_before_clipping_and_clears_the_gradients() -> None:
    one = network()
    descent = Descent(one, ADAM.model_copy(update={"max_grad_norm": 0.5}), lambda taken: 0.5**taken)
    one.weight.grad, one.bias.grad = torch.full((2, 3), 2.0), torch.zeros(2)
    step = descent.step(2)
    assert step.grad_norm == pytest.approx(math.sqrt(24))
    assert step.learning_rate == pytest.approx(ADAM.learning_rate / 4)
    assert one.weight.grad is None and one.bias.grad is None


def test_what_needs_no_gradient_is_neither_clipped_nor_trained() -> None:
    one = network()
    one.bias.requires_grad_(False)
    before = one.bias.clone()
    trained(3, Descent(one, ADAM, constant), one)
    assert torch.equal(one.bias, before)


def test_a_resumed_descent_goes_on_bit_for_bit() -> None:
    one = network()
    descent = Descent(one, ADAM, cosine(6, 0.0))
    trained(3, descent, one)
    two = copy.deepcopy(one)
    resumed = Descent(two, ADAM, cosine(6, 0.0))
    resumed.load_state_dict(copy.deepcopy(descent.state_dict()))
    for part, its in ((one, descent), (two, resumed)):
        trained(2, its, part)
    assert torch.equal(one.weight, two.weight)
