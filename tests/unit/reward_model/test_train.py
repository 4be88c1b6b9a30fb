"""Reward-model training against a slow retelling, and what must not change its result."""

import io
import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from tasks.engine.errors import DataError
from tasks.language.models import ScalarModel
from tasks.records.rankings import group_prompts, tokens_of
from tasks.records.records import Comparison
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.train import RewardLearner
from tests.unit import tiny_models as tiny

SMALL: dict[str, Any] = {"batch_size": 3, "prompt_tokens": 12, "response_tokens": 8}
RANKS = [[1, 2], [2, 1, 3], [1, 2, 2, 4], [3, 3, 1, 2, 5]]


def comparisons(count: int = 8) -> list[Comparison]:
    return [
        Comparison(
            prompt=prompt,
            completions=[tiny.text(5 * index + 7 * k, 1 + (index + k) % 5) for k in range(len(RANKS[index % 4]))],
            ranks=RANKS[index % 4],
            labeler_id="ann",
            finished=[(index + k) % 3 > 0 for k in range(len(RANKS[index % 4]))],
        )
        for index, prompt in enumerate(tiny.prompts(count))
    ]


def scalar_model() -> ScalarModel:
    return ScalarModel.from_policy(tiny.policy(1), torch.Generator().manual_seed(2))


def learner(budget: int = 10_000, count: int = 8, **changes: Any) -> RewardLearner:
    config = RewardModelConfig.model_validate(tiny.settings("reward_model", **(SMALL | changes)))
    return RewardLearner(
        scalar_model(), comparisons(count), tiny.tokenizer(), config, tiny.runtime(tokens_per_microbatch=budget)
    )


def slow_score(model: ScalarModel, comparison: Comparison, index: int) -> torch.Tensor:
    """Score of one completion alone, read at its last token: the EOS when it finished."""
    tokenizer = tiny.tokenizer()
    ids = tokenizer(comparison.prompt.text)["input_ids"] + tokenizer(comparison.completions[index])["input_ids"]
    ids += [tiny.EOS] * comparison.finished[index]
    state = model.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    return (model.head.weight[0] * state).sum() + model.head.bias[0]


def slow_loss(model: ScalarModel, batch: list[Comparison]) -> torch.Tensor:
    total = torch.zeros(())
    for comparison in batch:
        scores = [slow_score(model, comparison, index) for index in range(len(comparison.completions))]
        count = len(scores)
        for i in range(count):
            for j in range(count):
                if comparison.ranks[i] < comparison.ranks[j]:
                    total = total - torch.log(torch.sigmoid(scores[i] - scores[j])) / (count * (count - 1) / 2)
    return total / len(batch)


def test_loss_and_gradient_norm_are_those_of_equation_1() -> None:
    one, model = learner(), scalar_model()
    batch = [comparisons()[index] for index in one.batches[0]]
    wanted = slow_loss(model, batch)
    wanted.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    metrics = one.step()
    assert metrics["train/loss"] == pytest.approx(wanted.item(), abs=1e-5)
    assert metrics["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_scores_are_read_at_the_last_real_token() -> None:
    model = scalar_model()
    for budget in (1, 10_000):
        scores = learner(budget).score(comparisons())
        for comparison, row in zip(comparisons(), scores, strict=True):
            wanted = [slow_score(model, comparison, index).item() for index in range(len(comparison.completions))]
            assert row == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("element", ["prompt", "pair"])
def test_microbatches_change_nothing(element: str) -> None:
    steps = [learner(budget, batch_size=8, batch_element=element).step() for budget in (1, 60, 10_000)]
    for name in ("train/loss", "train/grad_norm", "train/accuracy"):
        assert [step[name] for step in steps] == pytest.approx([steps[2][name]] * 3, rel=1e-6)


@pytest.mark.parametrize(("element", "rows"), [("prompt", 2 * (2 + 3 + 4 + 5)), ("pair", 2 * 2 * (1 + 3 + 5 + 9))])
@pytest.mark.point(22)
def test_one_forward_per_completion(monkeypatch: pytest.MonkeyPatch, element: str, rows: int) -> None:
    seen: list[int] = []
    scores = ScalarModel.scores
    monkeypatch.setattr(
        ScalarModel, "scores", lambda self, batch: seen.append(len(batch.input_ids)) or scores(self, batch)
    )
    one = learner(batch_element=element)
    for _ in range(one.total_steps):
        one.step()
    assert sum(seen) == rows


def test_half_precision_stays_close() -> None:
    full, half = learner(), learner()
    half.runtime = tiny.runtime(precision="bf16")
    exact, rough = full.step()["train/loss"], half.step()["train/loss"]
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.05)


@pytest.mark.point(23)
def test_one_epoch_visits_every_prompt_once() -> None:
    one = learner(count=11, batch_size=4)
    assert one.total_steps == 3
    assert sorted(index for batch in one.batches for index in batch) == list(range(11))


def test_whole_prompts_share_a_microbatch_within_the_budget() -> None:
    elements = [tokens_of(item, tiny.tokenizer(), learner().config) for item in comparisons(12)]
    groups = group_prompts(elements, 60)
    assert sorted(index for group in groups for index in group) == list(range(12))
    for group in groups:
        rows = [len(elements[index].prompt) + len(ids) for index in group for ids in elements[index].completions]
        assert len(group) == 1 or len(rows) * max(rows) <= 60
    assert len(groups) > 3


def test_cut_off_completions_get_no_eos() -> None:
    comparison = comparisons()[2]
    encoded = tokens_of(comparison, tiny.tokenizer(), learner().config).completions
    assert [ids[-1] == tiny.EOS for ids in encoded] == comparison.finished


@pytest.mark.point(24)
def test_centred_scores_average_zero_over_demonstrations_and_keep_differences() -> None:
    one = learner()
    before = one.score(comparisons())
    demonstrations = tiny.demonstrations(9)
    measured = one.centre(demonstrations)
    assert one.centre(demonstrations)["reward/demonstration_mean"] == pytest.approx(0.0, abs=1e-6)
    after = one.score(comparisons())
    for row, shifted in zip(before, after, strict=True):
        assert [score - measured["reward/demonstration_mean"] for score in row] == pytest.approx(shifted, abs=1e-5)
    assert measured["reward/demonstration_std"] > 0.01


@pytest.mark.point(15)
def test_learning_rate_and_betas() -> None:
    one = learner()
    rates = [one.step()["train/learning_rate"] for _ in range(one.total_steps)]
    assert rates[0] == pytest.approx(1.5e-3)
    assert rates[-1] == pytest.approx(1.5e-4)
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert {group["betas"] for group in one.descent.optimizer.param_groups} == {(0.9, 0.95)}


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
    for name, value in tiny.weights_of(whole.model).items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_training_learns_the_ranking() -> None:
    one = learner(epochs=40, adam=tiny.settings("reward_model")["adam"] | {"learning_rate": 0.01})
    metrics = [one.step() for _ in range(one.total_steps)]
    assert sum(step["train/accuracy"] for step in metrics[-3:]) / 3 > 0.9


def test_prompts_without_an_order_teach_nothing() -> None:
    first, second = comparisons(2)
    tied = first.model_copy(update={"ranks": [1] * len(first.ranks)})
    config = RewardModelConfig.model_validate(tiny.settings("reward_model", **SMALL | {"batch_size": 1}))
    one = RewardLearner(scalar_model(), [tied, second], tiny.tokenizer(), config, tiny.runtime())
    steps = [one.step(), one.step()]
    assert sorted(metrics["train/loss"] == 0.0 for metrics in steps) == [False, True]
    assert all(("train/accuracy" in metrics) == (metrics["train/loss"] > 0) for metrics in steps)


def test_nothing_to_learn_is_refused_with_its_counts() -> None:
    ties = [item.model_copy(update={"ranks": [1] * len(item.ranks)}) for item in comparisons(3)]
    same = [item.model_copy(update={"completions": ["one"] * len(item.completions)}) for item in comparisons(2)]
    config = RewardModelConfig.model_validate(tiny.settings("reward_model", **SMALL))
    with pytest.raises(DataError, match=r"none of the 5 rankings orders two different responses \(3 ties, 2 of equal"):
        RewardLearner(scalar_model(), [*ties, *same], tiny.tokenizer(), config, tiny.runtime())


def test_missing_data_is_named() -> None:
    with pytest.raises(DataError, match="none of the 0 rankings orders"):
        learner(count=0)
    with pytest.raises(DataError, match="found no demonstrations to centre the scores on"):
        learner().centre([])


def test_completions_average_zero_with_unit_variance_when_so_configured() -> None:
    one = learner(normalisation="completions")
    one.model.score_bias.fill_(0.4)
    one.model.head.bias.data.fill_(0.7)  # training leaves it where it was; a model that is read may have one
    before = [score for scores in one.score(comparisons()) for score in scores]
    report = one.normalise([])
    after = [score for scores in one.score(comparisons()) for score in scores]
    mean = sum(before) / len(before)
    spread = math.sqrt(sum((score - mean) ** 2 for score in before) / len(before))
    assert after == pytest.approx([(score - mean) / spread for score in before], abs=1e-5)
    assert report == pytest.approx({"reward/completion_mean": mean, "reward/completion_std": spread}, abs=1e-5)


def test_equal_scores_cannot_be_standardised() -> None:
    one = learner(normalisation="completions")
    with torch.no_grad():
        one.model.head.weight.zero_()
    with pytest.raises(DataError, match="all score 0, so no gain makes their variance 1"):
        one.normalise([])


def test_demonstrations_average_zero_by_default() -> None:
    one = learner()
    differences = one.score(comparisons())
    one.normalise(tiny.demonstrations(6))
    shifts = [
        a - b
        for left, right in zip(differences, one.score(comparisons()), strict=True)
        for a, b in zip(left, right, strict=True)
    ]
    assert shifts == pytest.approx([shifts[0]] * len(shifts), abs=1e-6)
    assert one.normalise(tiny.demonstrations(6))["reward/demonstration_mean"] == pytest.approx(0.0, abs=1e-6)
