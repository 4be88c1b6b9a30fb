"""The oracle is the Hugging Face model's own forward on one unpadded row at a time, with eager attention."""

import copy
import math
import random

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPTNeoXConfig, GraniteConfig, PreTrainedModel

from tasks.language import logprobs as module
from tasks.language.batches import TokenBatch, pad_batch
from tasks.language.logprobs import entropy_of, kl_k1, kl_k2, kl_k3, log_probs_of, response_logprobs
from tests.unit.tiny import FAMILIES, VOCABULARY, llama, spread

DRAWS = random.Random(1)
PROMPTS = [[DRAWS.randrange(3, VOCABULARY) for _ in range(length)] for length in (1, 4, 7, 3, 5)]
RESPONSES = [[DRAWS.randrange(3, VOCABULARY) for _ in range(length)] for length in (6, 2, 0, 1, 9)]


def one_by_one(model: PreTrainedModel, temperature: float) -> list[tuple[list[float], list[float]]]:
    """Log-probabilities and entropies of each row by the definition."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = eager(torch.tensor([prompt + response])).logits[0].double() / temperature
        p = torch.softmax(logits, dim=-1)
        positions = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        found.append(
            (
                [math.log(p[i, token]) for i, token in zip(positions, response, strict=True)],
                [-(p[i] * p[i].log()).sum().item() for i in positions],
            )
        )
    return found


def assert_rows(grid: Tensor, rows: list[list[float]]) -> None:
    assert grid.dtype == torch.float32
    for row, expected in enumerate(rows):
        torch.testing.assert_close(grid[row, : len(expected)].tolist(), expected, atol=1e-5, rtol=0)
        assert (grid[row, len(expected) :] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_a_padded_batch_equals_the_model_row_by_row(family: str, temperature: float) -> None:
    model = FAMILIES[family]()
    expected = one_by_one(model, temperature)
    found = response_logprobs(model, pad_batch(PROMPTS, RESPONSES, 0), temperature, with_entropy=True)
    assert_rows(found.logprobs, [logprobs for logprobs, _ in expected])
    assert_rows(found.entropy, [entropies for _, entropies in expected])


@torch.no_grad()
def test_families_that_scale_their_logits() -> None:
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    neox = {name: value for name, value in shape.items() if name != "num_key_value_heads"}
    for config in (
        Gemma2Config(**shape, head_dim=8, final_logit_softcapping=2.0, sliding_window=4),
        CohereConfig(**shape, logit_scale=0.3),
        GraniteConfig(**shape, logits_scaling=3.0),
        GPTNeoXConfig(**neox),
    ):
        model = spread(AutoModelForCausalLM.from_config(config), 3)
        found = response_logprobs(model, pad_batch(PROMPTS, RESPONSES, 0), 1.0)
        assert_rows(found, [logprobs for logprobs, _ in one_by_one(model, 1.0)])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
@pytest.mark.point(33)
def test_any_id_may_stand_in_padding(family: str) -> None:
    model = FAMILIES[family]()
    expected = response_logprobs(model, pad_batch(PROMPTS, RESPONSES, 0), 1.0)
    for pad in (1, 10**6):
        assert torch.equal(response_logprobs(model, pad_batch(PROMPTS, RESPONSES, pad), 1.0), expected)


@torch.no_grad()
def test_rows_together_equal_rows_apart() -> None:
    model = llama()
    together = response_logprobs(model, pad_batch(PROMPTS, RESPONSES, 0), 1.0)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        apart = response_logprobs(model, pad_batch([prompt], [response], 0), 1.0)
        torch.testing.assert_close(together[row, : len(response)], apart[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_repeated_in_train_mode_is_bit_equal() -> None:
    model = llama().train()
    batch = pad_batch(PROMPTS, RESPONSES, 0)
    assert torch.equal(response_logprobs(model, batch, 1.0), response_logprobs(model, batch, 1.0))


def test_with_and_without_gradients_the_values_are_bit_equal() -> None:
    model, batch = llama(), pad_batch(PROMPTS, RESPONSES, 0)
    with torch.no_grad():
        expected = response_logprobs(model, batch, 1.0)
    assert torch.equal(response_logprobs(model, batch, 1.0), expected)


def test_gradients_equal_those_of_the_full_forward() -> None:
    model, batch = llama(), pad_batch(PROMPTS, RESPONSES, 0)
    response_logprobs(model, batch, 0.7).square().sum().backward()
    found = {name: param.grad for name, param in model.named_parameters()}
    model.zero_grad()
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 :] / 0.7
        for t, token in enumerate(response):
            (torch.log(torch.softmax(logits[t], -1)[token]) ** 2).backward(retain_graph=True)
    for name, param in model.named_parameters():
        torch.testing.assert_close(found[name], param.grad, atol=1e-4, rtol=1e-4)


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = llama(), pad_batch(PROMPTS, RESPONSES, 0)

    def run() -> tuple[Tensor, Tensor, list[Tensor]]:
        model.zero_grad()
        found = response_logprobs(model, batch, 1.0, with_entropy=True)
        found.logprobs.sum().backward()
        return found.logprobs.detach(), found.entropy, [param.grad.clone() for param in model.parameters()]

    whole = run()
    monkeypatch.setattr(module, "LOGITS_PER_CHUNK", 5 * VOCABULARY)
    torch.testing.assert_close(run(), whole, atol=1e-5, rtol=1e-5)


def test_a_batch_without_response_tokens() -> None:
    found = response_logprobs(llama(), pad_batch([[4, 5]], [[]], 0), 1.0, with_entropy=True)
    assert found.logprobs.shape == found.entropy.shape == (1, 0)


def test_full_rows_as_pretraining_uses_them() -> None:
    rows = torch.tensor([[5, 6, 7, 8], [9, 2, 3, 4]])
    batch = TokenBatch(rows, torch.ones(2, dtype=torch.long), torch.full((2,), 3))
    assert response_logprobs(llama(), batch, 1.0).shape == (2, 3)


def test_half_precision_logits_are_computed_in_fp32() -> None:
    logits = torch.tensor([[10.0, 0.0, 0.0]], dtype=torch.bfloat16)
    assert log_probs_of(logits, torch.tensor([1])).item() == pytest.approx(-10 - math.log(1 + 2 * math.exp(-10)))
    assert entropy_of(torch.zeros(1, 4, dtype=torch.bfloat16)).item() == pytest.approx(math.log(4))


def test_estimators_of_a_policy_against_itself_are_exactly_zero() -> None:
    same = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert all((estimate(same, same) == 0).all() for estimate in (kl_k1, kl_k2, kl_k3))
