"""What must not matter: how a batch is cut into micro-batches, on which side a row is padded, and how far."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.language import families
from tasks.language.batches import pad_batch
from tasks.language.decoding import PackedReader, PaddedReader
from tasks.language.families import trunk_of
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel
from tasks.language.speaker import Speaker
from tasks.ppo.ptx import loss_divisor, pretraining_loss
from tests.golden.cases import case
from tests.unit import tiny, tiny_models
from tests.unit.ppo import tiny as tiny_ppo
from tests.unit.pretrain.test_train import learner as pretrain_learner
from tests.unit.reward_model.test_train import learner as reward_learner
from tests.unit.sft.test_train import learner as sft_learner

BUDGETS = (1, 20, 26, 32, 40, 60, 100, 200)
"""Tokens per micro-batch: from a row each to all rows but the longest together."""
A_MILLIONTH = 1e-6


def first_gradient(optimizer: torch.optim.Optimizer, step: Callable[[], Any]) -> Tensor:
    """All gradients of the first optimizer step, as one vector, after clipping."""
    seen: list[Tensor] = []

    def look(*_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.cat([p.grad.flatten().double() for p in parameters if p.grad is not None]))

    handle = optimizer.register_step_pre_hook(look)
    step()
    handle.remove()
    return seen[0]


def assert_equal_to_a_millionth(found: Tensor, expected: Tensor) -> None:
    assert expected.norm() > 1e-3
    difference = ((found - expected).norm() / expected.norm()).item()
    assert difference < A_MILLIONTH, f"gradients differ by {difference:.1e} of their norm"


def ppo_gradient(network: str, budget: int, **changes: Any) -> Tensor:
    learner = tiny_ppo.learner(
        reference_seed=3, minibatch_size=16, runtime_changes={"tokens_per_microbatch": budget}, **changes
    )
    return first_gradient(getattr(learner.optimizers, network).optimizer, learner.step)


def gradient(loss: str, budget: int) -> Tensor:
    if loss == "sft":
        one = sft_learner(budget=budget, batch_size=10, pretraining_fraction=0.3, row_tokens=9)
        return first_gradient(one.descent.optimizer, one.step)
    if loss == "reward_model":
        ranking = reward_learner(budget, batch_size=8)
        return first_gradient(ranking.descent.optimizer, ranking.step)
    if loss == "pretrain":
        base = pretrain_learner(budget)
        return first_gradient(base.descent.optimizer, base.step)
    if loss == "policy":
        return ppo_gradient("policy", budget, gamma=0.0)
    if loss == "policy and ptx":
        return ppo_gradient("policy", budget, gamma=2.0)
    return ppo_gradient("value", budget, gamma=0.0)


@pytest.mark.parametrize("loss", ["sft", "reward_model", "pretrain", "policy", "policy and ptx", "value"])
@pytest.mark.point(10, 51)
def test_gradients_do_not_depend_on_the_microbatches(loss: str) -> None:
    whole = gradient(loss, 10**6)
    for budget in BUDGETS:
        assert_equal_to_a_millionth(gradient(loss, budget), whole)


def test_pretraining_gradients_do_not_depend_on_the_microbatches() -> None:
    model, rows = tiny_ppo.policy(), torch.randint(3, 15, (12, 8), generator=torch.Generator().manual_seed(0))
    found = []
    for size in range(1, 13):
        model.zero_grad()
        for part in rows.split(size):
            pretraining_loss(model, part, divisor=loss_divisor(12, 8, "token_mean")).backward()
        found.append(torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None]))
    for other in found:
        assert_equal_to_a_millionth(other, found[-1])


PROMPTS, RESPONSES = [[5, 6, 7, 8], [9, 10], [11, 12, 13]], [[14, 15, 2], [16, 17, 18, 19, 2], [20]]


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@torch.no_grad()
def test_the_amount_of_padding_changes_no_log_probability(family: str) -> None:
    model = tiny.FAMILIES[family]()
    expected = response_logprobs(model, pad_batch(PROMPTS, RESPONSES, 0), 1.0)
    for extra in (1, 5, 12):
        wide = pad_batch([*PROMPTS, [5]], [*RESPONSES, [6] * (8 + extra)], 0)
        found = response_logprobs(model, wide, 1.0)[:3, : expected.shape[1]]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.point(25, 33)
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@torch.no_grad()
def test_families_that_are_read_with_padding_do_not_read_the_padding(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of families that are not packed: any id behind a row, and each row as if it were alone."""
    monkeypatch.setattr(families, "packs", lambda trunk: False)
    model = tiny.FAMILIES[family]()
    scalar = ScalarModel.from_policy(model, torch.Generator().manual_seed(0))
    for pad in (0, 7, 10**6):
        batch = pad_batch(PROMPTS, RESPONSES, pad)
        logprobs, scores = response_logprobs(model, batch, 1.0), scalar.scores(batch)
        for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
            table = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            alone = table.gather(1, torch.tensor(response)[:, None]).squeeze(1)
            torch.testing.assert_close(logprobs[row, : len(response)], alone, rtol=0, atol=1e-5)
            states = scalar.backbone(torch.tensor([prompt + response])).last_hidden_state[0, -1]
            torch.testing.assert_close(scores[row], scalar.head(states)[0], rtol=0, atol=1e-5)


def exclusive_count(mask: Tensor) -> Tensor:
    """Positions as the golden case writes them."""
    return (mask.cumsum(1) - mask) * mask


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@torch.no_grad()
@pytest.mark.point(31)
def test_left_padding_with_the_golden_positions_gives_the_same_log_probabilities(family: str) -> None:
    golden = case("indexing")
    for kind in ("left", "middle"):
        mask = torch.tensor([golden["inputs"][f"{kind}_padded_mask"]])
        real = mask.bool()
        assert (
            (exclusive_count(mask)[real]).tolist()
            == torch.tensor([golden["outputs"][f"position_ids_{kind}"]])[real].tolist()
        )
    model = tiny.FAMILIES[family]()
    width = 10
    rows = [p + r for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    table = model(ids, attention_mask=mask, position_ids=exclusive_count(mask)).logits.log_softmax(-1)
    ours = response_logprobs(model, pad_batch(PROMPTS, RESPONSES, 0), 1.0)
    for index, response in enumerate(RESPONSES):
        start = width - len(response) - 1
        theirs = table[index, start : start + len(response)].gather(1, torch.tensor(response)[:, None]).squeeze(1)
        torch.testing.assert_close(ours[index, : len(response)], theirs, rtol=0, atol=1e-5)


@contextmanager
def positions_read(model: torch.nn.Module) -> Iterator[list[list[list[int]]]]:
    """The position ids of every forward pass of a model's trunk, where it is given any."""
    seen: list[list[list[int]]] = []

    def look(_module: object, _args: object, given: dict[str, Any]) -> None:
        if given.get("position_ids") is not None:
            seen.append(given["position_ids"].tolist())

    handle = model.base_model.register_forward_pre_hook(look, with_kwargs=True)  # type: ignore[operator, union-attr]
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("reader", [PackedReader, PaddedReader])
@torch.no_grad()
@pytest.mark.point(31)
def test_sampling_reads_prompts_at_the_golden_positions(reader: Any) -> None:
    """Prompts of 4 and 6 tokens, as in the golden mask; what padding itself is given does not matter."""
    golden = case("indexing")
    mask = golden["inputs"]["left_padded_mask"]
    model, short, long = tiny.gpt2(), [5, 6, 7, 8], [5, 6, 7, 8, 9, 10]
    assert (sum(mask), len(mask)) == (len(short), len(long))
    with positions_read(model) as seen:
        reading = reader(trunk_of(model), [short, long], 2)
        reading.read_prompts()
        reading.read(torch.tensor([9, 9]))
    first = seen[0][0]
    real = (
        first[: len(short)] if reader is PackedReader else [p for p, counts in zip(first, mask, strict=True) if counts]
    )
    expected = golden["outputs"]["position_ids_left"]
    assert real == [position for position, counts in zip(expected, mask, strict=True) if counts]
    assert seen[1] == [[len(short)], [len(long)]]  # the first sampled token follows its prompt


@pytest.mark.point(7)
def test_every_stage_gives_the_model_the_same_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.comparisons import sample
    from tasks.comparisons.config import ComparisonsConfig
    from tasks.language import speaker
    from tasks.measure import policy_sheet
    from tasks.records.rankings import tokens_of
    from tasks.records.records import Comparison, Demonstration
    from tasks.reward_model.config import RewardModelConfig
    from tasks.sft.config import SFTConfig
    from tasks.sft.train import demonstration_sequence
    from tests.unit.measure import test_policy_sheet

    lengths = {"prompt_tokens": 5, "response_tokens": 4}
    tokenizer = tiny_models.tokenizer()
    prompts = test_policy_sheet.Data().prompts_for_test()[:12]  # longer than 5 tokens: every stage keeps the end
    given: dict[str, list[list[int]]] = {}

    def spy(stage: str) -> type[Speaker]:
        class Recorder(Speaker):
            def answer(self, prompts: Sequence[Sequence[int]], **_: Any) -> list[list[int]]:
                given.setdefault(stage, [list(prompt) for prompt in prompts])
                return [[1]] * len(prompts)

        return Recorder

    monkeypatch.setattr(speaker, "Speaker", spy("comparisons"))  # imported when responses are sampled
    monkeypatch.setattr(policy_sheet, "Speaker", spy("evaluation"))
    sft = SFTConfig.model_validate(tiny_models.settings("sft", **lengths))
    reward = RewardModelConfig.model_validate(tiny_models.settings("reward_model", **lengths))
    ranked = ComparisonsConfig.model_validate(
        tiny_models.settings("comparisons", **lengths, completions_min=2, completions_max=2)
    )
    given["sft"] = [
        demonstration_sequence(Demonstration(prompt=p, response="cat", labeler_id="ann"), tokenizer, sft).given
        for p in prompts
    ]
    given["reward_model"] = [
        tokens_of(
            Comparison(prompt=p, completions=["cat", "red"], ranks=[1, 2], labeler_id="ann"), tokenizer, reward
        ).prompt
        for p in prompts
    ]
    sample.sample_candidates(tiny_models.policy(), tokenizer, prompts, ranked, tiny_models.runtime(), 0)
    given["comparisons"] = given["comparisons"][::2]
    config = test_policy_sheet.CONFIG.model_copy(update=lengths)
    subject = policy_sheet.Subject(tiny_models.policy(), tokenizer, tiny_models.runtime())
    policy_sheet._answer(subject, prompts, config, 1.0, "sampled")
    learner = tiny_ppo.PPOLearner(
        tiny_ppo.networks(), tokenizer, prompts, [], tiny_ppo.config(gamma=0.0, **lengths), tiny_ppo.RUNTIME
    )
    given["ppo"] = learner.prompt_ids
    assert set(given) == {"sft", "reward_model", "comparisons", "evaluation", "ppo"}
    assert all(ids == given["sft"] for ids in given.values())
    assert all(len(ids) == 5 for ids in given["sft"])
