"""A training that ranks divide comes to the numbers of one process, for every learner, with rows of unequal lengths."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.dpo.config import DPOConfig
from tasks.dpo.train import DPOLearner
from tasks.language.models import ScalarModel
from tasks.language.packing import encode_documents, pack_documents
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.train import PretrainLearner
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.train import RewardLearner
from tasks.sft.config import SFTConfig
from tasks.sft.train import SFTLearner
from tests.unit import tiny_models as tiny
from tests.unit.ppo import tiny as tiny_ppo
from tests.unit.ranks import on_ranks
from tests.unit.test_training_steps import comparisons, knobs_of

RUNTIME = tiny.runtime(tokens_per_microbatch=60)


def pretraining() -> Any:
    knobs = tiny.settings("pretrain", steps=4, batch_rows=5, row_tokens=12, warmup_steps=1, valid_every=2)
    texts = [document.text for document in tiny.documents(30)]
    rows = pack_documents(encode_documents(tiny.tokenizer(), texts), 12, tiny.EOS)
    config = PretrainConfig.model_validate(knobs | {"adam": knobs_of("sft")["adam"]})
    return PretrainLearner(tiny.policy(layers=1), rows, config, RUNTIME, valid_rows=rows[:4])


def fine_tuning(dropout: float = 0.0) -> Any:
    knobs = knobs_of("sft", epochs=2, batch_size=7, row_tokens=12, prompt_tokens=12, response_tokens=8)
    knobs |= {"pretraining_fraction": 0.3, "residual_dropout": dropout}
    return SFTLearner(
        tiny.policy(layers=2),
        tiny.demonstrations(10),
        tiny.documents(20),
        tiny.tokenizer(),
        SFTConfig.model_validate(knobs),
        RUNTIME,
        valid=tiny.demonstrations(15)[10:],
    )


def reward_model() -> Any:
    knobs = knobs_of("reward_model", epochs=2, batch_size=4) | {"trained_on": "all", "body": None}
    model = ScalarModel.from_policy(tiny.policy(1, layers=1), torch.Generator().manual_seed(2))
    return RewardLearner(model, comparisons(), tiny.tokenizer(), RewardModelConfig.model_validate(knobs), RUNTIME)


def dpo() -> Any:
    config = DPOConfig.model_validate(knobs_of("dpo", epochs=2, batch_size=4) | {"trained_on": "all"})
    return DPOLearner(
        tiny.policy(1, layers=1), tiny.policy(1, layers=1), comparisons(), tiny.tokenizer(), config, RUNTIME
    )


def ppo(**changes: Any) -> Any:
    adam = knobs_of("ppo")["policy_adam"] if False else None
    assert adam is None
    given = tiny_ppo.settings()
    slow = {"epsilon": 1e-4, "learning_rate": 1e-3}
    optimizers = {name: given[name] | slow for name in ("policy_adam", "value_adam")}
    return tiny_ppo.learner(runtime_changes={"tokens_per_microbatch": 60}, **optimizers | changes)


LEARNERS: dict[str, Callable[[], Any]] = {
    "pretraining": pretraining,
    "fine-tuning": fine_tuning,
    "fine-tuning with dropout": lambda: fine_tuning(0.2),
    "reward model": reward_model,
    "DPO": dpo,
    "PPO-ptx": ppo,
    "PPO, log-probabilities of sampling": lambda: ppo(old_logprobs="sampled"),
}


def tensors(state: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor of a learner's state, by its place."""
    if isinstance(state, Tensor):
        return {path: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {place: found for key, value in items for place, found in tensors(value, f"{path}/{key}").items()}


def trained(make: Callable[[], Any], steps: int | None = None, saved: bytes = b"") -> tuple[list[dict[str, float]], Any]:
    """Metrics of the steps, and the state after them as bytes of a checkpoint."""
    learner = make()
    if saved:
        learner.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True))
    told = []
    while learner.completed_steps < (steps or learner.total_steps):
        metrics = learner.step()
        told.append({name: value for name, value in metrics.items() if "per_second" not in name})
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    return told, file.getvalue()


def state(saved: bytes) -> dict[str, Tensor]:
    return tensors(torch.load(io.BytesIO(saved), weights_only=True))


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of any two tensors, relative to the largest number in them."""
    assert one.keys() == other.keys()
    gaps = []
    for name, tensor in one.items():
        scale = float(tensor.double().abs().max()) if tensor.numel() else 0.0
        gap = float((tensor.double() - other[name].double()).abs().max()) if tensor.numel() else 0.0
        gaps.append(gap / max(scale, 1e-3))
    return max(gaps)


@pytest.fixture(scope="module", params=LEARNERS)
def alone(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, float]], bytes]:
    told, saved = trained(LEARNERS[request.param])
    return request.param, told, saved


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_come_to_the_numbers_of_one_process(alone: tuple[str, list[dict[str, float]], bytes], count: int) -> None:
    name, told, saved = alone
    every = on_ranks(count, lambda: trained(LEARNERS[name]))
    assert len({of_rank for _, of_rank in every}) == 1, "ranks end with different bits"
    found, of_rank = every[0]
    worst = max(abs(a - b[k]) / max(abs(a), 1e-3) for a_, b in zip(told, found, strict=True) for k, a in a_.items())
    print(name, count, "metrics", worst, "state", farthest(state(saved), state(of_rank)))
    assert len(told) == len(found) > 1
    for one, other in zip(told, found, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    assert farthest(state(saved), state(of_rank)) < 1e-6
