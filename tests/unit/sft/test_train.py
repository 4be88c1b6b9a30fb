"""Fine-tuning against a slow retelling, and what must not change its result."""

import io
from itertools import pairwise
from typing import Any

import pytest
import torch

from tasks.engine.errors import DataError
from tasks.records.records import Demonstration
from tasks.sft.config import SFTConfig
from tasks.sft.train import SFTLearner
from tests.unit import tiny_models as tiny

SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 4, "row_tokens": 12, "prompt_tokens": 12, "response_tokens": 8}


def learner(count: int = 10, budget: int = 10_000, **changes: Any) -> SFTLearner:
    config = SFTConfig.model_validate(tiny.settings("sft", **(SMALL | changes)))
    return SFTLearner(
        tiny.policy(),
        tiny.demonstrations(count),
        tiny.documents(20),
        tiny.tokenizer(),
        config,
        tiny.runtime(tokens_per_microbatch=budget),
        valid=tiny.demonstrations(15)[10:],
    )


def gradients(one: SFTLearner) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of the first step: with plain gradient descent the weights move by rate times gradient."""
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    rate = one.config.adam.learning_rate
    one.descent.optimizer = torch.optim.SGD(one.model.parameters(), lr=rate)
    metrics = one.step()
    return metrics["train/loss"], [
        (old - new.detach()) / rate for old, new in zip(before, one.model.parameters(), strict=True)
    ]


def slow_loss(model: Any, demonstrations: list[Demonstration], *, prompt_too: bool) -> torch.Tensor:
    """One sequence at a time, the full logits, and a sum over targets written out."""
    tokenizer, total, counted = tiny.tokenizer(), torch.zeros(()), 0
    for item in demonstrations:
        prompt = tokenizer(item.prompt.text)["input_ids"]
        ids = prompt + tokenizer(item.response)["input_ids"] + [tiny.EOS]
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        for position in range(1 if prompt_too else len(prompt), len(ids)):
            total = total - torch.log_softmax(logits[position - 1], dim=0)[ids[position]]
            counted += 1
    return total / counted


WIDE = {"adam": tiny.settings("sft")["adam"] | {"max_grad_norm": 1e9}}


@pytest.mark.parametrize("mask_prompt", [True, False])
@pytest.mark.point(8)
def test_loss_and_gradient_are_those_of_the_counted_tokens(mask_prompt: bool) -> None:
    one = learner(mask_prompt=mask_prompt, **WIDE)
    model = tiny.policy()
    batch = [tiny.demonstrations(10)[index] for index in one.plan[0].demonstrations]
    wanted = slow_loss(model, batch, prompt_too=not mask_prompt)
    wanted.backward()
    loss, found = gradients(one)
    assert loss == pytest.approx(wanted.item(), abs=1e-5)
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=2e-4, rtol=1e-3)  # divided by a rate of 1e-3 in fp32


@pytest.mark.parametrize("budget", [1, 40])
def test_microbatches_change_nothing(budget: int) -> None:
    loss, whole = gradients(learner(batch_size=10, pretraining_fraction=0.3, **WIDE))
    loss_cut, cut = gradients(learner(batch_size=10, pretraining_fraction=0.3, budget=budget, **WIDE))
    assert loss_cut == pytest.approx(loss, abs=1e-6)
    for gradient, other in zip(cut, whole, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-3, rtol=0)


def test_gradients_of_microbatches_agree_to_a_millionth() -> None:
    norms = [learner(budget=budget, batch_size=10).step()["train/grad_norm"] for budget in (1, 40, 10_000)]
    assert norms == pytest.approx([norms[2]] * 3, rel=1e-6)


def test_half_precision_stays_close() -> None:
    full, half = learner(), learner()
    half.runtime = tiny.runtime(precision="bf16")
    exact, rough = full.step()["train/loss"], half.step()["train/loss"]
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.05)


@pytest.mark.point(9)
def test_the_eos_is_a_counted_target() -> None:
    """The slope of the loss at the logit of EOS is its mean probability, less the share of targets that are EOS."""
    one = learner(batch_size=10, **WIDE)
    head = torch.nn.Linear(16, len(tiny.WORDS))
    with torch.no_grad():
        head.weight.copy_(one.model.get_input_embeddings().weight)
        head.bias.zero_()
    one.model.lm_head = head
    probability, counted = 0.0, 0
    with torch.no_grad():
        for item in tiny.demonstrations(10):
            prompt, response = (tiny.tokenizer()(text)["input_ids"] for text in (item.prompt.text, item.response))
            table = one.model(input_ids=torch.tensor([prompt + response])).logits[0].softmax(-1)
            probability += table[len(prompt) - 1 :, tiny.EOS].sum().item()
            counted += len(response) + 1
    one.step()
    assert head.bias.grad is not None
    assert head.bias.grad[tiny.EOS].item() == pytest.approx((probability - 10) / counted, abs=1e-6)


def test_long_demonstrations_are_cut_and_then_have_no_eos() -> None:
    one = learner(response_tokens=3)
    lengths = {len(sequence.counted) for sequence in one.sequences}
    assert lengths == {2, 3}
    assert all((sequence.counted[-1] == tiny.EOS) == (index % 5 < 2) for index, sequence in enumerate(one.sequences))


@pytest.mark.point(11)
def test_learning_rate_starts_at_the_peak_and_ends_at_a_tenth() -> None:
    one = learner()
    rates = [one.step()["train/learning_rate"] for _ in range(one.total_steps)]
    assert len(rates) == 6
    assert rates[0] == pytest.approx(1e-3, rel=1e-12)
    assert rates[-1] == pytest.approx(1e-4, rel=1e-12)
    assert all(later < earlier for earlier, later in pairwise(rates))


@pytest.mark.point(15)
def test_optimizer_has_the_papers_betas() -> None:
    assert {group["betas"] for group in learner().descent.optimizer.param_groups} == {(0.9, 0.95)}


@pytest.mark.point(12)
def test_dropout_acts_in_training_only() -> None:
    with_dropout, without = learner(residual_dropout=0.2), learner()
    assert with_dropout.validation_loss() == with_dropout.validation_loss() == without.validation_loss()
    losses = [learner(residual_dropout=0.2, seed=7).step()["train/loss"] for _ in range(2)]
    assert losses[0] == losses[1] != without.step()["train/loss"]
    again = learner(residual_dropout=0.2)
    sequences = again.sequences[:4]
    with torch.no_grad(), again._dropout():
        assert float(again._summed_nll(sequences)) != float(again._summed_nll(sequences))


def test_pretraining_rows_count_every_token() -> None:
    one = learner(pretraining_fraction=0.5)
    planned = next(planned for planned in one.plan if planned.pretraining_rows)
    rows = one._sequences_of(planned)[len(planned.demonstrations) :]
    assert [(len(row.given), len(row.counted)) for row in rows] == [(1, 11)] * planned.pretraining_rows


def continued(stopped: SFTLearner, fresh: SFTLearner) -> SFTLearner:
    """A fresh learner after a crash: its state went through a file."""
    saved = io.BytesIO()
    torch.save(stopped.state_dict(), saved)
    saved.seek(0)
    fresh.load_state_dict(torch.load(saved, weights_only=True))
    return fresh


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_resumed_run_is_bit_equal(stop_at: int) -> None:
    changes: dict[str, Any] = {"residual_dropout": 0.1, "pretraining_fraction": 0.2, "selection": "validation_loss"}
    whole = learner(**changes)
    for _ in range(whole.total_steps):
        whole.step()
    first = learner(**changes)
    for _ in range(stop_at):
        first.step()
    second = continued(first, learner(**changes))
    while second.completed_steps < second.total_steps:
        second.step()
    assert second.valid_losses == whole.valid_losses
    assert second.load_selected() == whole.load_selected()
    for name, value in tiny.weights_of(whole.model).items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_validation_loss_keeps_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}
    losses = iter([2.0, 1.0, 1.5])
    monkeypatch.setattr(SFTLearner, "validation_loss", lambda _: next(losses))

    def start() -> SFTLearner:
        fresh = learner(epochs=3, selection="validation_loss")
        fresh.keep_epoch = lambda epoch, model: kept.update({epoch: tiny.weights_of(model)})
        return fresh

    one = start()
    metrics = [one.step() for _ in range(7)]
    one = continued(one, start())  # after epoch 2, the best one
    metrics += [one.step() for _ in range(2)]
    assert [step["valid/loss"] for step in metrics if "valid/loss" in step] == [2.0, 1.0, 1.5]
    assert sorted(kept) == [1, 2, 3]
    assert one.load_selected() == 2
    for name, value in kept[2].items():
        assert torch.equal(one.model.state_dict()[name], value)
    assert any(not torch.equal(kept[3][name], value) for name, value in kept[2].items())


def test_training_lowers_the_loss() -> None:
    one = learner(epochs=20, adam=tiny.settings("sft")["adam"] | {"learning_rate": 0.01})
    losses = [one.step()["train/loss"] for _ in range(one.total_steps)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("demonstrations", {}, "found none in the train split"),
        (
            "documents",
            {"pretraining_fraction": 0.1},
            "pretraining_fraction is 0.1 but the data holds no pretraining documents",
        ),
        ("valid", {"selection": "validation_loss"}, "the valid split holds no demonstrations"),
    ],
)
def test_missing_data_is_named(part: str, changes: dict[str, Any], message: str) -> None:
    data: dict[str, Any] = {"demonstrations": tiny.demonstrations(3), "documents": tiny.documents(9)}
    valid: list[Demonstration] = [] if part == "valid" else tiny.demonstrations(2)
    if part in data:
        data[part] = []
    config = SFTConfig.model_validate(tiny.settings("sft", **(SMALL | changes)))
    with pytest.raises(DataError, match=message):
        SFTLearner(
            tiny.policy(),
            data["demonstrations"],
            data["documents"],
            tiny.tokenizer(),
            config,
            tiny.runtime(),
            valid=valid,
        )
