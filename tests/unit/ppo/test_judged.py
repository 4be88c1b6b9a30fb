"""The weights that scores are of: in which precision, beside what is frozen, and on several ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tasks.language.models import ScalarModel, save_policy
from tasks.language.shards import is_divided, together, whole
from tasks.ppo.judged import JudgedWeights
from tasks.ppo.watch import WatchedLearner
from tests.unit import tiny_models
from tests.unit.ppo import tiny
from tests.unit.ppo.test_watch import Scripted, Weights, near, sentinel, weights
from tests.unit.processes import in_processes
from tests.unit.test_adapters_in_stages import frozen, ppo, same, trained


def test_the_average_is_kept_in_fp32_whatever_the_network_is_in() -> None:
    model = nn.Linear(1, 1, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
    judged = JudgedWeights(model, 1023)  # the newest counts 1 / 512, which bf16 cannot add to 1
    with torch.no_grad():
        model.weight.fill_(2.0)
    judged.add(model)
    kept = judged.copy()["weight"]
    assert kept.dtype == torch.float32 and kept.item() == pytest.approx(1 + 1 / 512)


def test_a_saved_average_is_gone_on_with_and_stays_as_it_was() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    state = {"weight": torch.full((1, 1), 5.0)}
    judged = JudgedWeights(model, 3)
    judged.load_state_dict(state)
    judged.add(model)
    assert judged.copy()["weight"].item() == 3.0 and state["weight"].item() == 5.0


def braked(make: Any, **changes: Any) -> WatchedLearner:
    """Windows of one; the brake holds in iteration 2, for the weights that iteration 1 drew from."""
    limits = sentinel(window=1, entropy_left=None, length_factor=None)
    learner = make(episodes=16 * 3, brake="rollback", brake_price=0.0, sentinel=limits, **changes)
    return WatchedLearner(learner, [Scripted([9.0, -9.0, -9.0])])


def test_a_brake_returns_to_the_best_adapter_and_leaves_the_base(tmp_path: Path) -> None:
    save_policy(tiny.policy(), tiny_models.tokenizer(), tmp_path / "policy")
    ScalarModel.from_policy(tiny.policy(1), torch.Generator().manual_seed(2)).save(tmp_path / "model")
    learner = braked(lambda **changes: ppo((tmp_path / "policy", tmp_path / "model"), **changes))
    policy = learner.learner.networks.policy
    base, best = frozen(policy), trained(policy)
    learner.step()
    assert not same(trained(policy), best)
    learner.step()
    assert learner.report().interventions and same(trained(policy), best)
    assert same(frozen(policy), base) and same(trained(learner.final_policy()), best)


def on_this_rank() -> tuple[bool, list[Weights]]:
    """Whether ranks divide the policy; the weights that drew first, those of now, their average, and what is shipped."""
    learner = braked(tiny.learner, runtime_changes={"processes": 2, "shard": "full"})
    policy = learner.learner.networks.policy
    first = weights(whole(policy))
    learner.step()
    moved = not near(weights(whole(policy)), first)
    learner.step()
    average = {name: together(part).clone() for name, part in learner.learner.ema.average.items()}
    return is_divided(policy) and moved, [first, weights(whole(policy)), average, weights(learner.final_policy())]


def test_ranks_that_divide_the_policy_return_to_its_best_weights_together() -> None:
    for divided, (first, *others) in in_processes(2, __name__, "on_this_rank"):
        assert divided and all(near(other, first) for other in others)
