"""Packed rows against the Hugging Face model with eager attention on one sequence at a time, for every family."""

import copy
import logging
import random

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.language import attention
from tasks.language.batches import TokenBatch, pad_batch
from tasks.language.families import PACKED_FAMILIES, hidden_states, packs, residual_branches, trunk_of
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel
from tests.unit.families import PACKED, PADDED, WINDOW, build
from tests.unit.tiny import EOS, VOCABULARY

DRAWS = random.Random(3)
PROMPTS = [[DRAWS.randrange(3, VOCABULARY) for _ in range(length)] for length in (1, 4, 7, 3, 5, 2)]
RESPONSES = [[DRAWS.randrange(3, VOCABULARY) for _ in range(length)] for length in (6, 2, 0, 1, 9, 4)]
BATCH = pad_batch(PROMPTS, RESPONSES, 0)  # two rows of 6 tokens, two of 7: equal lengths are attended together


def every_token(batch: TokenBatch) -> tuple[Tensor, ...]:
    """Row and place of each token that is no padding."""
    places = torch.arange(batch.input_ids.shape[1])
    return (places < batch.lengths[:, None]).nonzero(as_tuple=True)


def eager(model: PreTrainedModel) -> PreTrainedModel:
    """The oracle."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    return other


def by_definition(model: PreTrainedModel) -> list[Tensor]:
    """Log-probabilities of each response, sequence by sequence."""
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found.append(torch.log_softmax(logits, dim=-1)[range(len(response)), response])
    return found


def test_the_families_that_are_packed_are_those_tested_here() -> None:
    assert set(PACKED) == PACKED_FAMILIES


@pytest.mark.parametrize("family", [*PACKED, *PADDED])
def test_logprobs_and_gradients_equal_the_library(family: str) -> None:
    model = build(family)
    oracle = eager(model)
    found, expected = response_logprobs(model, BATCH, 1.0), by_definition(oracle)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    (found * weights).sum().backward()
    total = torch.zeros(())
    for row, logprobs in enumerate(expected):
        torch.testing.assert_close(found[row, : len(logprobs)], logprobs, atol=1e-5, rtol=0)
        total = total + (logprobs * weights[row, : len(logprobs)]).sum()
    total.backward()
    whole = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in oracle.parameters() if p.grad is not None]))
    for (name, param), other in zip(model.named_parameters(), oracle.parameters(), strict=True):
        if other.grad is None:
            assert param.grad is None, name
            continue
        error = (param.grad - other.grad).norm() / other.grad.norm().clamp(
            min=0.01 * float(whole)
        )  # a key bias has none
        assert error < 1e-5, (name, float(error))


@pytest.mark.parametrize("family", [*PACKED, *PADDED])
def test_every_family_takes_the_path_it_should_and_returns_as_it_was(
    family: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    trunk = trunk_of(build(family))
    trunk.register_forward_pre_hook(lambda _m, _a, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True)
    usual = trunk.config._attn_implementation
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            hidden_states(trunk, BATCH, BATCH.lengths, *every_token(BATCH))
    whole = int(BATCH.lengths.sum())
    assert packs(trunk) == (family in PACKED)
    assert shapes == [(1, whole) if family in PACKED else BATCH.input_ids.shape] * 2
    assert trunk.config._attn_implementation == usual


def test_a_padded_family_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    trunk = trunk_of(build("llama"))
    trunk.config.model_type = "unheard_of"
    with caplog.at_level(logging.INFO):
        assert not packs(trunk) and not packs(trunk)
    assert [record.getMessage() for record in caplog.records] == [
        "model family unheard_of is not among those tried with packed rows: its batches are padded"
    ]


@pytest.mark.parametrize("family", PACKED)
@torch.no_grad()
def test_the_last_mlp_computes_only_what_is_read(family: str) -> None:
    model, seen = build(family), []
    trunk = trunk_of(model)
    first, last = (mlp for mlp in residual_branches(model)[1::2])
    for mlp in (first, last):
        for part in (module for module in mlp.modules() if not list(module.children())):
            part.register_forward_hook(lambda _m, given, _o, at=mlp: seen.append((at, given[0].numel())))
    rows, columns = every_token(BATCH)
    whole = hidden_states(trunk, BATCH, BATCH.lengths, rows, columns)
    all_read, seen[:] = dict(seen), []
    chosen = torch.arange(0, len(rows), 5)
    some = hidden_states(trunk, BATCH, BATCH.lengths, rows[chosen], columns[chosen])
    torch.testing.assert_close(some, whole[chosen], atol=1e-6, rtol=1e-6)
    few_read = dict(seen)
    assert few_read[first] == all_read[first]
    if family != "mixtral":  # whose experts are no modules
        assert few_read[last] * len(rows) == all_read[last] * len(chosen)
    assert not last._forward_hooks and not last._forward_pre_hooks


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
@torch.no_grad()
def test_the_grid_that_a_gpu_uses_gives_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family)
    expected = response_logprobs(model, BATCH, 1.0)
    monkeypatch.setattr(attention, "LOOPS_ON", frozenset())
    torch.testing.assert_close(response_logprobs(model, BATCH, 1.0), expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_no_sequence_sees_another() -> None:
    """Changing every token of one sequence leaves all others as they were, to the bit."""
    model = build("llama")
    expected = response_logprobs(model, BATCH, 1.0)
    prompts, responses = copy.deepcopy(PROMPTS), copy.deepcopy(RESPONSES)
    prompts[4], responses[4] = [EOS] * 5, [5] * 9
    found = response_logprobs(model, pad_batch(prompts, responses, 0), 1.0)
    others = [0, 1, 2, 3, 5]
    assert torch.equal(found[others], expected[others]) and not torch.equal(found[4], expected[4])


@torch.no_grad()
def test_a_window_hides_what_lies_before_it() -> None:
    """One layer of Mistral: the first token cannot be noticed ``WINDOW`` tokens later, and can just before."""
    model = build("mistral")
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    one, other = ([[token, 5, 6, 7, 8, 9, 10, 11]] for token in (3, 4))
    batches = [pad_batch(rows, [[]], 0) for rows in (one, other)]
    states = [hidden_states(model.model, batch, batch.lengths, *every_token(batch)) for batch in batches]
    same = (states[0] == states[1]).all(dim=-1).tolist()
    assert same == [False] * WINDOW + [True] * (8 - WINDOW)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt"])
@torch.no_grad()
def test_scores_and_values_of_packed_rows(family: str) -> None:
    model = ScalarModel.from_policy(build(family), torch.Generator().manual_seed(0))
    oracle = eager(model.backbone)
    scores, values = model.scores(BATCH), model.values(BATCH)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        states = oracle(torch.tensor([prompt + response])).last_hidden_state[0]
        expected = model.head(states).squeeze(-1)
        torch.testing.assert_close(scores[row], expected[-1], atol=1e-5, rtol=0)
        torch.testing.assert_close(values[row, : len(response)], expected[len(prompt) - 1 : -1], atol=1e-5, rtol=0)


def test_attention_may_be_chosen_within_a_choice() -> None:
    trunk = trunk_of(build("llama"))
    usual = trunk.config._attn_implementation
    with attention.attending(trunk, attention.PACKED):
        with attention.attending(trunk, attention.DECODING):
            assert trunk.config._attn_implementation == attention.DECODING
        assert trunk.config._attn_implementation == attention.PACKED
    assert trunk.config._attn_implementation == usual and "warn_if_padding_and_no_attention_mask" not in vars(trunk)
