"""DPO training against a slow retelling, and what must not change its result."""

import copy
import io
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from tasks.dpo.config import DPOConfig
from tasks.dpo.loss import preference_losses
from tasks.dpo.train import DPOLearner
from tasks.engine.errors import DataError
from tasks.records.records import Comparison
from tests.unit import tiny_models as tiny

SMALL: dict[str, Any] = {"batch_size": 3, "prompt_tokens": 12, "response_tokens": 8}
RANKS = [[1, 2], [2, 1, 3], [1, 2, 2, 4], [3, 3, 1, 2, 5], [1, 1]]


def comparisons(count: int = 8) -> list[Comparison]:
    return [
        Comparison(
            prompt=prompt,
            completions=[tiny.text(5 * index + 7 * k, 1 + (index + k) % 5) for k in range(len(RANKS[index % 5]))],
            ranks=RANKS[index % 5],
            labeler_id="ann",
            finished=[(index + k) % 3 > 0 for k in range(len(RANKS[index % 5]))],
        )
        for index, prompt in enumerate(tiny.prompts(count))
    ]


def learner(budget: int = 10_000, given: list[Comparison] | None = None, **changes: Any) -> DPOLearner:
    """The policy starts away from the reference, so that no log-ratio is 0."""
    config = DPOConfig.model_validate(tiny.settings("dpo", **(SMALL | changes)))
    runtime = tiny.runtime(tokens_per_microbatch=budget)
    chosen = comparisons() if given is None else given
    return DPOLearner(tiny.policy(1), tiny.policy(2), chosen, tiny.tokenizer(), config, runtime)


def slow_logprob(model: torch.nn.Module, comparison: Comparison, index: int) -> torch.Tensor:
    """Of one completion alone, token by token; its EOS counts when it finished."""
    tokenizer = tiny.tokenizer()
    prompt = tokenizer(comparison.prompt.text)["input_ids"]
    response = tokenizer(comparison.completions[index])["input_ids"] + [tiny.EOS] * comparison.finished[index]
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0]
    places = zip(range(len(prompt) - 1, len(prompt) + len(response) - 1), response, strict=True)
    return sum((functional.log_softmax(logits[at], dim=-1)[token] for at, token in places), torch.zeros(()))


def slow_gaps(one: DPOLearner, comparison: Comparison) -> list[torch.Tensor]:
    """The log-ratio of the better completion minus that of the worse, for every strictly ordered pair."""
    count = len(comparison.completions)
    ratios = [
        slow_logprob(one.policy, comparison, k) - slow_logprob(one.reference, comparison, k).detach()
        for k in range(count)
    ]
    ranks = comparison.ranks
    return [ratios[i] - ratios[j] for i in range(count) for j in range(count) if ranks[i] < ranks[j]]


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_loss_and_gradient_norm_are_those_of_the_pairs_one_by_one(kind: str) -> None:
    one = learner(loss=kind)
    ordered = [item for item in comparisons() if len(set(item.ranks)) > 1]
    batch = [slow_gaps(one, ordered[index]) for index in one.batches[0]]
    costs = [
        [-torch.log(torch.sigmoid(0.1 * gap)) if kind == "sigmoid" else (gap - 5.0) ** 2 for gap in gaps]
        for gaps in batch
    ]
    wanted = sum((sum(cost) / len(cost) for cost in costs), torch.zeros(())) / len(costs)
    wanted.backward()
    norm = torch.stack([p.grad.norm() for p in one.policy.parameters() if p.grad is not None]).norm()
    one.policy.zero_grad()
    flat = [0.1 * gap.item() for gaps in batch for gap in gaps]
    metrics = one.step()
    assert metrics["train/loss"] == pytest.approx(wanted.item(), rel=1e-5)
    assert metrics["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert metrics["train/margin"] == pytest.approx(sum(flat) / len(flat), abs=1e-5)
    assert metrics["train/accuracy"] == pytest.approx(sum(gap > 0 for gap in flat) / len(flat))


def test_a_policy_at_its_reference_loses_ln_2() -> None:
    one = learner()
    one.policy.load_state_dict(one.reference.state_dict())
    metrics = one.step()
    assert metrics["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["train/margin"] == 0.0


def test_each_loss_is_smallest_where_theory_says() -> None:
    """Conservative DPO at the gap whose sigmoid is 1 - e, IPO at 1 / (2 beta); plain DPO has no minimum."""
    zero, beta = torch.zeros(1, dtype=torch.float64), 0.5

    def slope(gap: float, kind: Any, smoothing: float) -> float:
        chosen = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
        found = preference_losses(chosen, zero, zero, zero, beta=beta, kind=kind, label_smoothing=smoothing)
        found.losses.sum().backward()
        return float(chosen.grad)

    assert slope(math.log(0.8 / 0.2) / beta, "sigmoid", 0.2) == pytest.approx(0.0, abs=1e-12)
    assert slope(1 / (2 * beta), "ipo", 0.0) == pytest.approx(0.0, abs=1e-12)
    assert slope(20.0, "sigmoid", 0.0) < 0


def test_microbatches_change_nothing() -> None:
    steps = [learner(budget, batch_size=8).step() for budget in (1, 60, 10_000)]
    for name in ("train/loss", "train/grad_norm", "train/accuracy", "train/margin"):
        assert [step[name] for step in steps] == pytest.approx([steps[2][name]] * 3, rel=1e-5)


def test_training_prefers_what_labelers_prefer_and_leaves_the_reference_alone() -> None:
    one = learner(epochs=15, batch_size=6, adam=tiny.settings("dpo")["adam"] | {"learning_rate": 0.01})
    one.policy.load_state_dict(one.reference.state_dict())
    before = tiny.weights_of(one.reference)
    start = one.measure(comparisons())
    metrics = [one.step() for _ in range(one.total_steps)]
    end = one.measure(comparisons())
    assert start is not None and end is not None
    assert (start.accuracy, start.margin) == (0.0, 0.0)  # equal rewards count as wrong
    assert end.accuracy > 0.9 and end.margin > 0.5
    assert metrics[-1]["train/loss"] < 0.7 * metrics[0]["train/loss"]
    for name, value in before.items():
        assert torch.equal(value, one.reference.state_dict()[name]), name
    assert all(param.grad is None for param in one.reference.parameters())


def test_measure_counts_every_ordered_pair_once() -> None:
    one = learner(60)
    gaps = [0.1 * gap.item() for item in comparisons() for gap in slow_gaps(one, item)]
    found = one.measure(comparisons())
    assert found is not None and found.pairs == len(gaps)
    assert found.accuracy == pytest.approx(sum(gap > 0 for gap in gaps) / len(gaps))
    assert found.margin == pytest.approx(sum(gaps) / len(gaps), abs=1e-5)
    assert one.measure([comparisons()[4]]) is None


def test_resumed_run_is_bit_equal() -> None:
    whole, first = learner(epochs=2), learner(epochs=2)
    for _ in range(6):
        whole.step()
    for _ in range(2):
        first.step()
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = learner(epochs=2)
    second.load_state_dict(torch.load(saved, weights_only=True))
    for _ in range(4):
        second.step()
    assert second.completed_steps == second.total_steps == 6
    for name, value in tiny.weights_of(whole.policy).items():
        assert torch.equal(value, second.policy.state_dict()[name]), name


def test_dropout_is_off() -> None:
    one = learner()
    policy, reference = copy.deepcopy(one.policy).train(), copy.deepcopy(one.reference).train()
    made = DPOLearner(policy, reference, comparisons(), tiny.tokenizer(), one.config, one.runtime)
    assert not made.policy.training and not made.reference.training


def test_comparisons_that_order_nothing_are_named() -> None:
    tied = [item.model_copy(update={"ranks": [1] * len(item.ranks)}) for item in comparisons(3)]
    with pytest.raises(DataError, match="dpo: found no strictly ordered pair in 3 training comparisons"):
        learner(given=tied)
    with pytest.raises(DataError, match="in 0 training comparisons"):
        learner(given=[])


def test_smoothing_that_nothing_reads_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"label_smoothing is 0\.1 and loss is ipo"):
        DPOConfig.model_validate(tiny.settings("dpo", loss="ipo", label_smoothing=0.1))
