"""A training that ranks divide comes to the numbers of one process, for every learner, with rows of unequal lengths."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.dpo.config import DPOConfig
from tasks.dpo.train import DPOLearner
from tasks.engine.config import AdapterConfig
from tasks.engine.ranks import here
from tasks.language.adapters import attach
from tasks.language.batches import pad_batch
from tasks.language.dropout import draw_residual_dropout, residual_dropout
from tasks.language.generation import Sampled, sample
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel
from tasks.language.packing import encode_documents, pack_documents
from tasks.language.scorer import summed_logprobs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.train import PretrainLearner
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.train import RewardLearner
from tasks.sft.config import SFTConfig
from tasks.sft.train import SFTLearner
from tests.unit import tiny as tiny_family
from tests.unit import tiny_models as tiny
from tests.unit.ppo import tiny as tiny_ppo
from tests.unit.ranks import on_ranks
from tests.unit.test_training_steps import LIMITS, comparisons

RUNTIME = tiny.runtime(tokens_per_microbatch=60)
CALM = {"epsilon": 1e-4, "learning_rate": 1e-3}
"""Tiny gradients do not turn rounding into a step."""


ADAPTER = AdapterConfig(rank=2, alpha=4, targets="all-linear", base="full", dropout=0.3, learning_rate_factor=1.0)


def knobs_of(group: str, **changes: Any) -> dict[str, Any]:
    knobs = tiny.settings(group, **changes)
    return knobs | {"adam": knobs["adam"] | CALM | {"weight_decay": 0.1}}


def pretraining() -> Any:
    knobs = knobs_of("pretrain", steps=4, batch_rows=5, row_tokens=12, warmup_steps=1, valid_every=2)
    texts = [document.text for document in tiny.documents(30)]
    rows = pack_documents(encode_documents(tiny.tokenizer(), texts), 12, tiny.EOS)
    config = PretrainConfig.model_validate(knobs)
    return PretrainLearner(tiny.policy(layers=1), rows, config, RUNTIME, valid_rows=rows[:4])


def fine_tuning(dropout: float = 0.0, budget: int = 60, adapter: AdapterConfig | None = None) -> Any:
    knobs = knobs_of("sft", epochs=2, batch_size=7, row_tokens=12, prompt_tokens=12, response_tokens=8)
    knobs |= {"pretraining_fraction": 0.3, "residual_dropout": dropout, "adapter": adapter}
    model = tiny.policy(layers=2)
    return SFTLearner(
        attach(model, adapter, torch.Generator().manual_seed(3)) if adapter else model,
        tiny.demonstrations(10),
        tiny.documents(20),
        tiny.tokenizer(),
        SFTConfig.model_validate(knobs),
        tiny.runtime(tokens_per_microbatch=budget),
        valid=tiny.demonstrations(15)[10:],
    )


def reward_model() -> Any:
    knobs = knobs_of("reward_model", epochs=2, batch_size=4, **LIMITS) | {"trained_on": "all", "body": None}
    model = ScalarModel.from_policy(tiny.policy(1, layers=1), torch.Generator().manual_seed(2))
    return RewardLearner(model, comparisons(), tiny.tokenizer(), RewardModelConfig.model_validate(knobs), RUNTIME)


def dpo() -> Any:
    config = DPOConfig.model_validate(knobs_of("dpo", epochs=2, batch_size=4, **LIMITS) | {"trained_on": "all"})
    return DPOLearner(
        tiny.policy(1, layers=1), tiny.policy(1, layers=1), comparisons(), tiny.tokenizer(), config, RUNTIME
    )


def ppo(**changes: Any) -> Any:
    given = tiny_ppo.settings()
    optimizers = {name: given[name] | CALM for name in ("policy_adam", "value_adam")}
    return tiny_ppo.learner(runtime_changes={"tokens_per_microbatch": 60}, **optimizers | changes)


LEARNERS: dict[str, Callable[[], Any]] = {
    "pretraining": pretraining,
    "fine-tuning": fine_tuning,
    "fine-tuning with dropout": lambda: fine_tuning(0.2, budget=20),
    "fine-tuning an adapter with dropout": lambda: fine_tuning(0.2, 20, ADAPTER),
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


def trained(
    make: Callable[[], Any], steps: int | None = None, saved: bytes = b""
) -> tuple[list[dict[str, float]], Any]:
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


def weights(saved: bytes) -> dict[str, Tensor]:
    return {place: tensor for place, tensor in state(saved).items() if "optimizer" not in place}


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of any two numbers, relative to the largest number."""
    assert one.keys() == other.keys()
    pairs = [(tensor.double(), other[place].double()) for place, tensor in one.items() if tensor.numel()]
    return float(max((a - b).abs().max() for a, b in pairs) / max(a.abs().max() for a, _ in pairs))


@pytest.fixture(scope="module", params=LEARNERS)
def alone(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, float]], bytes]:
    told, saved = trained(LEARNERS[request.param])
    return request.param, told, saved


@pytest.mark.parametrize("count", [3, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_come_to_the_numbers_of_one_process(alone: tuple[str, list[dict[str, float]], bytes], count: int) -> None:
    name, told, saved = alone
    every = on_ranks(count, lambda: trained(LEARNERS[name]))
    assert len({of_rank for _, of_rank in every}) == 1, "ranks end with different bits"
    found, of_rank = every[0]
    assert len(told) == len(found) > 1
    for one, other in zip(told, found, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    assert farthest(weights(saved), weights(of_rank)) < 1e-6


@pytest.mark.parametrize(
    "name", ["fine-tuning with dropout", *(pytest.param(n, marks=pytest.mark.slow) for n in LEARNERS)]
)
def test_a_resumed_training_is_the_same_with_as_many_ranks_and_near_with_others(name: str) -> None:
    make = LEARNERS[name]
    (_, whole), _ = on_ranks(2, lambda: trained(make))
    (_, half), _ = on_ranks(2, lambda: trained(make, steps=2))
    for count in (2, 3, 1):
        _, resumed = on_ranks(count, lambda: trained(make, saved=half))[0]
        if count == 2:
            assert resumed == whole
        else:
            assert farthest(weights(whole), weights(resumed)) < 1e-6


def test_every_row_is_one_ranks() -> None:
    lengths = [3, 9, 1, 4, 4, 7, 2]
    dealt = on_ranks(3, lambda: here().deal(lengths))
    assert sorted(row for rows in dealt for row in rows) == list(range(7))
    assert [sum(lengths[row] for row in rows) for rows in dealt] == [9 + 4 + 1, 7 + 3, 4 + 2]
    assert here().deal(lengths) == list(range(7))


def test_ranks_sample_what_one_process_samples() -> None:
    prompts = [[3, 4 + row % 5, 5][: 1 + row % 3] for row in range(11)]

    def drawn(batch: int = 4) -> Sampled:
        generator = torch.Generator().manual_seed(5)
        return sample(
            tiny.policy(3),
            prompts,
            max_new_tokens=9,
            temperature=0.9,
            generator=generator,
            eos_id=tiny.EOS,
            pad_id=0,
            batch_size=batch,
            with_statistics=True,
        )

    alone = drawn()
    assert len({len(response) for response in alone.responses}) > 2 and alone.statistics is not None
    for found in on_ranks(3, drawn):
        assert found.responses == alone.responses
        assert found.statistics is not None
        for table, expected in zip(found.statistics, alone.statistics, strict=True):
            torch.testing.assert_close(table, expected, rtol=1e-5, atol=1e-6)


def test_ranks_score_what_one_process_scores() -> None:
    prompts, responses = [[3, 4]] * 7, [[5 + row % 4] * (1 + row) for row in range(7)]

    def scored() -> list[float]:
        return summed_logprobs(tiny.policy(3), prompts, responses, 0, RUNTIME)

    expected = scored()
    assert all(found == pytest.approx(expected, rel=1e-6) for found in on_ranks(3, scored))
    assert on_ranks(3, lambda: summed_logprobs(tiny.policy(3), [], [], 0, RUNTIME)) == [[]] * 3


@pytest.mark.parametrize("family", [tiny_family.llama, tiny_family.gpt2])
@pytest.mark.parametrize("prompt", [1, 9])
def test_what_is_drawn_for_the_microbatches_of_others_is_what_they_draw(family: Any, prompt: int) -> None:
    model, batch = family(), pad_batch([[3] * prompt, [4]], [[5, 6], [7, 8, 9]], 0)
    real, skipped = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    with residual_dropout(model, 0.3, real):
        response_logprobs(model, batch, 1.0)
    draw_residual_dropout(model, batch, 0.3, skipped)
    assert torch.equal(real.get_state(), skipped.get_state())
    assert torch.equal(torch.rand(5, generator=real), torch.rand(5, generator=skipped))
