"""Whole trainings of the reward model, of SFT and of DPO against their retelling: one sequence at a time, no packing.

Nothing of those stages is used but the plan of an SFT run and its pretraining rows, whose rules have tests of their own.
"""

import copy
import hashlib
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.dpo.config import DPOConfig
from tasks.dpo.train import DPOLearner
from tasks.language.models import ScalarModel
from tasks.records.records import Comparison, Demonstration
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.train import RewardLearner
from tasks.sft.config import SFTConfig
from tasks.sft.train import SFTLearner
from tests.unit import tiny_models as tiny
from tests.unit.retold import Retold, RetoldAdam, drawn, token_logprobs

LIMITS = {"prompt_tokens": 8, "response_tokens": 5}
Ranked = tuple[list[int], list[list[int]], list[int]]


def knobs_of(group: str, **changes: Any) -> dict[str, Any]:
    """The sandbox's values with larger steps; epsilon keeps tiny gradients from turning rounding into a step."""
    knobs = tiny.settings(group, **LIMITS | changes)
    return knobs | {"adam": knobs["adam"] | {"learning_rate": 0.01, "epsilon": 1e-4, "weight_decay": 0.1}}


def words(text: str) -> list[int]:
    return [tiny.WORDS.index(word) for word in text.split()]


def comparisons() -> list[Comparison]:
    """K from 4 to 9, with ties, one prompt of nothing but ties, cut-off and over-long completions."""
    draws, found = random.Random(1), []
    for number, size in enumerate([4, 5, 9, 6, 4, 7, 8, 5, 4, 6]):
        ranks = draws.sample(range(1, size + 1), size)
        if number % 3 == 0:
            ranks = [(rank + 1) // 2 for rank in ranks]
        found.append(
            Comparison(
                prompt=tiny.prompts(number + 1)[-1],
                completions=[" ".join(draws.choices(tiny.PLAIN_WORDS, k=3 + place % 5)) for place in range(size)],
                ranks=[1] * size if number == 4 else ranks,
                labeler_id="ann",
                finished=[draws.random() > 0.3 for _ in range(size)],
            )
        )
    return found


def ranked(item: Comparison) -> Ranked:
    assert item.finished is not None
    ends = [[tiny.EOS] if finished else [] for finished in item.finished]
    cut = [(words(text) + end)[:5] for text, end in zip(item.completions, ends, strict=True)]
    assert len({tuple(ids) for ids in cut}) == len(cut), "equal completions would tie but for rounding"
    return words(item.prompt.text)[-8:], cut, list(item.ranks)


def better(ranks: list[int]) -> list[tuple[int, int]]:
    return [(w, x) for w in range(len(ranks)) for x in range(len(ranks)) if ranks[w] < ranks[x]]


def shuffled(count: int, epochs: int, size: int) -> list[list[int]]:
    draws, batches = random.Random(int(hashlib.sha256(b"rankings/order/7").hexdigest()[:14], 16)), []
    for _ in range(epochs):
        order = list(range(count))
        draws.shuffle(order)
        batches += [order[start : start + size] for start in range(0, count, size)]
    return batches


def logistic(x: Tensor) -> Tensor:
    """-log sigmoid(x)."""
    return torch.log1p(torch.exp(-x))


def follow(
    learner: Any, network: Retold, knobs: dict[str, Any], losses: list[Callable[[], tuple[Tensor, dict[str, float]]]]
) -> None:
    """Both take every step; the rate falls along a cosine from its peak to a fraction of it at the last step."""
    adam, peak, last = RetoldAdam(network, knobs["adam"]), knobs["adam"]["learning_rate"], len(losses) - 1
    assert learner.total_steps == len(losses) > 3
    trained = learner.model if hasattr(learner, "model") else learner.policy
    for step, told in enumerate(losses):
        floor = knobs["final_lr_fraction"]
        rate = peak * (floor + (1 - floor) * (1 + math.cos(math.pi * step / last)) / 2)
        loss, others = told()
        found = learner.step()
        norm = adam.step(network.gradients(loss), rate)
        expected = {"train/loss": loss.item(), "train/learning_rate": rate, "train/grad_norm": norm} | others
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=2e-4, abs=1e-5)
        assert network.distance(trained) < 1e-5


@pytest.mark.parametrize("normaliser", ["all_pairs", "surviving_pairs"])
@pytest.mark.parametrize("element", ["prompt", "pair"])
def test_reward_model(element: str, normaliser: str) -> None:
    knobs = knobs_of("reward_model", epochs=2, batch_size=3 if element == "prompt" else 60)
    knobs |= {"batch_element": element, "tie_normaliser": normaliser, "trained_on": "all", "body": None}
    model = ScalarModel.from_policy(tiny.policy(1, layers=1), torch.Generator().manual_seed(2))
    network, elements = Retold(model), [ranked(item) for item in comparisons()]
    config = RewardModelConfig.model_validate(knobs)
    learner = RewardLearner(model, comparisons(), tiny.tokenizer(), config, tiny.runtime(tokens_per_microbatch=80))
    if element == "pair":
        # in the order in which a ranking's pairs are met
        elements = [
            (prompt, [completions[w], completions[loser]], [1, 2])
            for prompt, completions, ranks in elements
            for w, loser in sorted(better(ranks), key=lambda pair: (min(pair), max(pair)))
        ]

    def loss(batch: list[int]) -> tuple[Tensor, dict[str, float]]:
        total, right, pairs = torch.zeros((), dtype=torch.float64), 0, 0
        for prompt, completions, ranks in (elements[index] for index in batch):
            scores = [network.numbers(prompt + completion)[-1] for completion in completions]
            order, size = better(ranks), len(ranks)
            divisor = size * (size - 1) / 2 if normaliser == "all_pairs" else len(order)
            total = total + sum(logistic(scores[w] - scores[loser]) / divisor for w, loser in order) / len(batch)
            right, pairs = right + sum(bool(scores[w] > scores[loser]) for w, loser in order), pairs + len(order)
        return total, {"train/accuracy": right / pairs} if pairs else {}

    batches = shuffled(len(elements), 2, knobs["batch_size"])
    follow(learner, network, knobs, [lambda batch=batch: loss(batch) for batch in batches])
    with torch.no_grad():
        zero = copy.deepcopy(model)
        zero.head.weight.zero_()
    indifferent = RewardLearner(zero, comparisons(), tiny.tokenizer(), config, tiny.runtime())
    assert indifferent.step()["train/accuracy"] == 0.0, "equal scores order no pair"
    demonstrations = tiny.demonstrations(9)
    learner.normalise(demonstrations)
    shifted = [
        network.numbers(words(d.prompt.text)[-8:] + [*words(d.response), tiny.EOS][:5])[-1].item()
        for d in demonstrations
    ]
    assert float(model.score_bias) == pytest.approx(sum(shifted) / 9, abs=1e-5)


@pytest.mark.parametrize(("mask_prompt", "fraction"), [(True, 0.0), (True, 0.4), (False, 0.25)])
def test_sft(mask_prompt: bool, fraction: float) -> None:
    knobs = knobs_of("sft", epochs=2, batch_size=6, row_tokens=7, residual_dropout=0.0, selection="last")
    knobs |= {"mask_prompt": mask_prompt, "pretraining_fraction": fraction}
    model, demonstrations = tiny.policy(4, layers=1), tiny.demonstrations(15)
    network, config = Retold(model), SFTConfig.model_validate(knobs)
    learner = SFTLearner(
        model,
        demonstrations,
        tiny.documents(12),
        tiny.tokenizer(),
        config,
        tiny.runtime(tokens_per_microbatch=60),
        valid=tiny.demonstrations(22)[15:],
    )
    rows = copy.deepcopy(learner.cursor)
    if rows is not None:
        stream = [token for document in tiny.documents(12) for token in [*words(document.text), tiny.EOS]]
        assert rows.rows.tolist() == [stream[start : start + 7] for start in range(0, len(stream) - 6, 7)]

    def sequence(item: Demonstration) -> tuple[list[int], list[int]]:
        prompt, response = words(item.prompt.text)[-8:], [*words(item.response), tiny.EOS][:5]
        return (prompt, response) if mask_prompt else (prompt[:1], prompt[1:] + response)

    def loss(planned: Any) -> tuple[Tensor, dict[str, float]]:
        sequences = [sequence(demonstrations[index]) for index in planned.demonstrations]
        if planned.pretraining_rows:
            assert rows is not None
            sequences += [(row[:1], row[1:]) for row in rows.draw(planned.pretraining_rows).tolist()]
        total = -sum(token_logprobs(network, given, counted).sum() for given, counted in sequences)
        return total / sum(len(counted) for _, counted in sequences), {}

    follow(learner, network, knobs, [lambda planned=planned: loss(planned) for planned in learner.plan])
    held_out = [sequence(item) for item in tiny.demonstrations(22)[15:]]
    total = -sum(token_logprobs(network, given, counted).sum().item() for given, counted in held_out)
    assert learner.valid_losses[2] == pytest.approx(total / sum(len(counted) for _, counted in held_out), abs=1e-5)
    for epoch in (1, 2):
        seen = [index for planned in learner.plan if planned.epoch == epoch for index in planned.demonstrations]
        assert sorted(seen) == list(range(15))
    assert any(planned.pretraining_rows for planned in learner.plan) == (fraction > 0)


@pytest.mark.parametrize(("kind", "smoothing"), [("sigmoid", 0.0), ("sigmoid", 0.1), ("ipo", 0.0)])
def test_dpo(kind: str, smoothing: float) -> None:
    knobs = knobs_of("dpo", loss=kind, label_smoothing=smoothing, batch_size=2, epochs=1, beta=0.3, trained_on="all")
    policy, reference = tiny.policy(0, layers=1), tiny.policy(3, layers=1)
    network, fixed = Retold(policy), Retold(reference)
    learner = DPOLearner(
        policy,
        reference,
        comparisons(),
        tiny.tokenizer(),
        DPOConfig.model_validate(knobs),
        tiny.runtime(tokens_per_microbatch=80),
    )
    elements = [ranked(item) for item in comparisons() if len(set(item.ranks)) > 1]

    def loss(batch: list[int]) -> tuple[Tensor, dict[str, float]]:
        total, margins = torch.zeros((), dtype=torch.float64), []
        for prompt, completions, ranks in (elements[index] for index in batch):
            gains = [
                token_logprobs(network, prompt, completion).sum()
                - token_logprobs(fixed, prompt, completion).sum().detach()
                for completion in completions
            ]
            for w, loser in better(ranks):
                gap = gains[w] - gains[loser]
                agree, disagree = logistic(0.3 * gap), logistic(-0.3 * gap)
                one = (gap - 1 / 0.6) ** 2 if kind == "ipo" else (1 - smoothing) * agree + smoothing * disagree
                total = total + one / len(better(ranks)) / len(batch)
                margins.append(0.3 * gap.item())
        right = sum(margin > 0 for margin in margins) / len(margins)
        return total, {"train/accuracy": right, "train/margin": sum(margins) / len(margins)}

    follow(learner, network, knobs, [lambda batch=batch: loss(batch) for batch in shuffled(len(elements), 1, 2)])


def test_the_retold_network_is_the_network() -> None:
    """Before anything is trained, in every position of a row, for both heads."""
    policy, ids = tiny.policy(2), [[3, 9, 12, 4, 5, 8], [7, 1, 0, 2, 6, 5]]
    with torch.no_grad():
        for row, found in zip(ids, Retold(policy).logits(ids), strict=True):
            torch.testing.assert_close(found, policy(torch.tensor([row])).logits[0].double(), atol=1e-5, rtol=0)
    assert drawn(torch.zeros(2, 4), torch.tensor([1, 3])).tolist() == pytest.approx([-math.log(4)] * 2)
