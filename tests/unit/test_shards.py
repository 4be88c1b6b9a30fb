"""A training whose ranks divide weights, gradients and optimizer states comes to the numbers of one process."""

import copy
from typing import Any

import pytest
import torch

from tasks.engine.config import RuntimeConfig
from tasks.engine.ranks import here
from tasks.language.adapters import trained_state
from tasks.language.models import ScalarModel
from tasks.language.optimization import Ema
from tasks.language.shards import divide, is_divided, whole
from tests.unit import tiny_models as tiny
from tests.unit.processes import in_processes
from tests.unit.test_ranks import LEARNERS, farthest, trained, weights

WITHOUT = "fine-tuning an adapter with dropout"
NAMES = [name for name in LEARNERS if name != WITHOUT]
SHARED = tiny.runtime(processes=2, shard="full")


def of_rank(name: str, steps: int | None = None, saved: bytes = b"") -> Any:
    """What ``trained`` returns on a rank that has its part of each weight."""
    validated = RuntimeConfig.model_validate
    with pytest.MonkeyPatch.context() as patch:
        for module in ("tests.unit.test_ranks.RUNTIME", "tests.unit.ppo.tiny.RUNTIME"):
            given = SHARED.model_copy(update={"tokens_per_microbatch": 60})
            patch.setattr(module, given)
        patch.setattr(
            "tests.unit.tiny_models.runtime",
            lambda **changes: validated(SHARED.model_dump() | changes),
        )
        return trained(LEARNERS[name], steps, saved)


def each(names: list[str]) -> dict[str, Any]:
    return {name: of_rank(name) for name in names}


def agree(count: int, names: list[str]) -> None:
    found = in_processes(count, __name__, "each", names)
    for name in names:
        told, saved = trained(LEARNERS[name])
        steps, of_first = found[0][name]
        assert len(told) == len(steps) > 1
        for one, other in zip(told, steps, strict=True):
            assert other == pytest.approx(one, rel=1e-5, abs=1e-6), name
        assert farthest(weights(saved), weights(of_first)) < 1e-6, name
        assert all(rank[name][0] == steps for rank in found), name


def test_ranks_that_divide_the_weights_come_to_the_numbers_of_one_process() -> None:
    agree(3, ["fine-tuning", "reward model", "DPO", "PPO-ptx"])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_learner_does(count: int) -> None:
    agree(count, NAMES)


def resumed(name: str) -> tuple[bytes, bytes, bytes]:
    """Whole, half, and from half to the end."""
    _, whole_run = of_rank(name)
    _, half = of_rank(name, 2)
    half = here().gather(half)[0]  # the file that the first rank writes
    _, again = of_rank(name, saved=half)
    return whole_run, half, again


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_is_the_same(name: str) -> None:
    whole_run, half, again = in_processes(2, __name__, "resumed", name)[0]
    assert whole_run == again
    _, alone = trained(LEARNERS[name], saved=half)  # one process goes on from what ranks have saved
    assert farthest(weights(whole_run), weights(alone)) < 1e-6


def divided() -> dict[str, Any]:
    """What a divided network keeps, and what is made of it."""
    policy = tiny.policy(2, layers=2)
    model = ScalarModel.from_policy(policy, torch.Generator().manual_seed(2))
    expected, names = copy.deepcopy(model), [name for name, _ in model.named_parameters()]
    assert divide(model, SHARED) is model and is_divided(model)
    kept = sum(part.to_local().numel() for part in model.parameters())  # type: ignore[attr-defined]
    made = whole(model)
    assert type(made) is ScalarModel and type(made.backbone) is type(expected.backbone)
    assert [name for name, _ in made.named_parameters()] == names
    assert made.score_bias is model.score_bias
    ema = Ema(model, 0.5)
    saved, average = trained_state(model), ema.state_dict()
    return {
        "kept": kept / sum(part.numel() for part in expected.parameters()),
        "equal": all(torch.equal(part, made.get_parameter(name)) for name, part in expected.named_parameters()),
        "saved": {name: value.numel() for name, value in saved.items()},
        "averaged": {name: value.numel() for name, value in average.items()},
        "sizes": {name: value.numel() for name, value in expected.state_dict().items()},
    }


def test_each_rank_keeps_its_part_and_the_first_saves_all() -> None:
    first, second = in_processes(2, __name__, "divided")
    assert first["equal"] and second["equal"]
    assert 0.4 < first["kept"] < 0.6 and first["kept"] + second["kept"] == pytest.approx(1.0)
    assert first["saved"] == first["sizes"]
    assert first["averaged"] == {name: size for name, size in first["sizes"].items() if name != "score_bias"}
    assert {size for name, size in second["saved"].items() if name != "score_bias"} == {0}


def test_one_process_divides_nothing() -> None:
    policy = tiny.policy(1)
    assert divide(policy, SHARED) is policy and not is_divided(policy) and whole(policy) is policy


def test_weights_that_nobody_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="shard is full and processes is 1, expected at least 2"):
        tiny.runtime(shard="full")
