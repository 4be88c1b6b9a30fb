"""Pretraining against a slow retelling, and what must not change its result."""

import io
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tasks.language.packing import encode_documents, pack_documents
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.train import PretrainLearner, learning_rate_multiplier, validation_loss
from tests.unit import tiny_models as tiny

SMALL: dict[str, Any] = {"steps": 6, "batch_rows": 4, "row_tokens": 10, "warmup_steps": 2, "valid_every": 4}


def config(**changes: Any) -> PretrainConfig:
    return PretrainConfig.model_validate(tiny.settings("pretrain", **(SMALL | changes)))


def rows() -> torch.Tensor:
    return pack_documents(
        encode_documents(tiny.tokenizer(), [document.text for document in tiny.documents(40)]), 10, tiny.EOS
    )


def learner(budget: int = 10_000, **changes: Any) -> PretrainLearner:
    valid = rows()[:3]
    return PretrainLearner(
        tiny.policy(), rows(), config(**changes), tiny.runtime(tokens_per_microbatch=budget), valid_rows=valid
    )


def slow_loss(model: Any, batch: torch.Tensor) -> float:
    losses = []
    for row in batch:
        logprobs = torch.log_softmax(model(input_ids=row[None]).logits[0], dim=-1)
        losses += [-logprobs[position - 1, row[position]].item() for position in range(1, len(row))]
    return sum(losses) / len(losses)


def test_loss_is_the_mean_over_every_predicted_token() -> None:
    one, twin = learner(), learner()
    wanted = slow_loss(tiny.policy(), twin.cursor.draw(4))
    assert one.step()["train/loss"] == pytest.approx(wanted, abs=1e-5)
    assert validation_loss(tiny.policy(), rows(), tiny.runtime()) == pytest.approx(
        slow_loss(tiny.policy(), rows()), abs=1e-5
    )


def test_microbatches_change_nothing() -> None:
    steps = [learner(budget=budget).step() for budget in (1, 20, 10_000)]
    for name in ("train/loss", "train/grad_norm"):
        assert [step[name] for step in steps] == pytest.approx([steps[2][name]] * 3, rel=1e-6)


def test_validation_comes_when_due_and_at_the_end() -> None:
    one = learner()
    metrics = [one.step() for _ in range(one.total_steps)]
    assert [step for step, values in enumerate(metrics, start=1) if "valid/loss" in values] == [4, 6]
    assert metrics[5]["valid/perplexity"] == pytest.approx(math.exp(metrics[5]["valid/loss"]))


def test_learning_rate_warms_up_and_decays() -> None:
    knobs = config(steps=101, warmup_steps=1, final_lr_fraction=0.1)
    rates = [learning_rate_multiplier(step, knobs) for step in range(101)]
    assert rates[0] == 0.5
    assert rates[1] == 1.0
    assert rates[100] == pytest.approx(0.1, abs=1e-12)
    halfway = config(steps=102, warmup_steps=1, final_lr_fraction=0.1)
    assert learning_rate_multiplier(51, halfway) == pytest.approx(0.55, abs=1e-12)


def test_resumed_run_is_bit_equal() -> None:
    whole, first = learner(), learner()
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = learner()
    second.load_state_dict(torch.load(saved, weights_only=True))
    for _ in range(3):
        second.step()
    for name, value in tiny.weights_of(whole.model).items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_training_lowers_the_loss() -> None:
    one = learner(steps=60, adam=tiny.settings("pretrain")["adam"] | {"learning_rate": 0.02})
    losses = [one.step()["train/loss"] for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]


def test_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"warmup_steps \(6\) must be smaller than steps \(6\)"):
        config(warmup_steps=6)
    assert config(steps=0).steps == 0
