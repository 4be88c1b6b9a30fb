import math

import pytest
import torch
from torch import nn

from tasks.engine.config import AdamConfig
from tasks.language.optimization import Ema, clip_grad_norm, cosine_to_fraction, linear_warmup, make_adamw

ADAM = AdamConfig(
    learning_rate=1e-3,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-5,
    epsilon_placement="after_correction",
    weight_decay=0.1,
    max_grad_norm=1.0,
)


def test_adam_settings_arrive() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    model[1].bias.requires_grad_(False)
    optimizer = make_adamw(model.parameters(), ADAM)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.9, 0.95), 1e-5)
    decay = {id(param): group["weight_decay"] for group in optimizer.param_groups for param in group["params"]}
    assert decay == {id(model[0].weight): 0.1, id(model[0].bias): 0.0, id(model[1].weight): 0.0}


def test_one_step_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[2.0]]))
    optimizer = make_adamw([weight], ADAM)
    weight.grad = torch.tensor([[0.5]])
    optimizer.step()
    # first step: both moments are corrected to the gradient itself
    expected = 2.0 * (1 - 1e-3 * 0.1) - 1e-3 * 0.5 / (0.5 + 1e-5)
    assert weight.item() == pytest.approx(expected, abs=1e-7)


def test_schedules_at_their_ends() -> None:
    assert cosine_to_fraction(0, 50) == 1.0
    assert cosine_to_fraction(50, 50, 0.1) == pytest.approx(0.1)
    assert cosine_to_fraction(80, 50, 0.1) == pytest.approx(0.1)
    assert cosine_to_fraction(0, 0, 0.1) == pytest.approx(0.1)
    assert cosine_to_fraction(25, 50, 0.0) == pytest.approx(0.5)
    assert linear_warmup(0) == 0.1 and linear_warmup(10) == 1.0 == linear_warmup(999)
    assert linear_warmup(0, 0) == 1.0
    assert linear_warmup(2, 4, 0.5) == pytest.approx(0.75)


def test_clipping_returns_the_norm_before_and_limits_it_after() -> None:
    a, b, unused = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_grad_norm([a, b, unused], 10.0) == pytest.approx(5.0)
    assert a.grad.item() == 3.0
    assert clip_grad_norm([a, b, unused], 1.0) == pytest.approx(5.0)
    assert math.hypot(a.grad.item(), b.grad.item()) == pytest.approx(1.0, abs=1e-5)
    assert clip_grad_norm([unused], 1.0) == 0.0


def test_a_norm_that_is_not_finite_is_reported() -> None:
    a = nn.Parameter(torch.zeros(1))
    a.grad = torch.tensor([float("nan")])
    assert math.isnan(clip_grad_norm([a], 1.0))


@pytest.mark.point(54)
def test_the_average_is_fp32_and_leaves_the_live_weights_alone() -> None:
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    ema = Ema(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(2.0)
    ema.update(model)
    ema.update(model)
    assert model.weight.item() == 2.0
    assert ema.state_dict()["weight"].dtype == torch.float32
    assert ema.state_dict()["weight"].item() == pytest.approx(0.81 * 1 + 0.19 * 2)
    target = nn.Linear(1, 1, bias=False)
    ema.copy_to(target)
    assert target.weight.item() == pytest.approx(1.19)


def test_a_saved_average_continues() -> None:
    model = nn.Linear(2, 2)
    ema, other = Ema(model, 0.5), Ema(nn.Linear(2, 2), 0.5)
    other.load_state_dict({name: value.clone() for name, value in ema.state_dict().items()})
    with torch.no_grad():
        model.weight.mul_(3)
    ema.update(model)
    other.update(model)
    assert all(torch.equal(ema.average[name], other.average[name]) for name in ema.average)


def test_early_epsilon_survives_a_checkpoint() -> None:
    """Six steps in one go, and six with a new optimizer after three, end at the same bytes."""
    config = ADAM.model_copy(update={"epsilon_placement": "before_correction", "epsilon": 0.1})
    ends = []
    for interrupted in (False, True):
        weight = nn.Parameter(torch.tensor([[2.0, -1.0]]))
        optimizer = make_adamw([weight], config)
        for step in range(6):
            if interrupted and step == 3:
                state = optimizer.state_dict()
                optimizer = make_adamw([weight], config)
                optimizer.load_state_dict(state)
            weight.grad = torch.tensor([[0.5, 0.01 * step]])
            optimizer.step()
        ends.append(weight.detach().clone())
    assert torch.equal(*ends)


def test_a_norm_that_is_not_finite_leaves_the_gradients_for_whoever_looks_into_it() -> None:
    a, b = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    a.grad, b.grad = torch.tensor([math.inf]), torch.tensor([4.0])
    assert clip_grad_norm([a, b], 1.0) == math.inf
    assert (a.grad.item(), b.grad.item()) == (math.inf, 4.0)
