import math
import random

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from tasks.engine.errors import DataError, ModelError
from tasks.language import generation as module
from tasks.language.batches import pad_batch
from tasks.language.decoding import PackedReader
from tasks.language.generation import draw
from tasks.language.logprobs import response_logprobs
from tests.unit.sampling import generate
from tests.unit.tiny import EOS, FAMILIES, VOCABULARY, gpt2, llama, spread

DRAWS = random.Random(5)
PROMPTS = [[DRAWS.randrange(3, VOCABULARY) for _ in range(DRAWS.randint(1, 9))] for _ in range(24)]


def sample(
    model: PreTrainedModel, prompts: list[list[int]] = PROMPTS, seed: int = 0, **changes: object
) -> list[list[int]]:
    settings: dict[str, object] = {
        "max_new_tokens": 12,
        "temperature": 1.0,
        "generator": torch.Generator().manual_seed(seed),
        "eos_id": EOS,
        "pad_id": 0,
        "batch_size": 10,
    }
    return generate(model, prompts, **(settings | changes))  # type: ignore[arg-type]


def library_greedy(model: PreTrainedModel, prompt: list[int], tokens: int) -> list[int]:
    """The library's own loop on one unpadded prompt."""
    ids = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return ids[0, len(prompt) :].tolist()


def gemma2(seed: int = 0) -> PreTrainedModel:
    """Half of its layers see a window of 4 tokens only."""
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=4,
        max_position_embeddings=32,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return spread(Gemma2ForCausalLM(config), seed)


@pytest.mark.parametrize(
    ("family", "attention"),
    [(family, attention) for family in FAMILIES for attention in ("sdpa", "eager")] + [("gemma2", "eager")],
)
def test_greedy_equals_the_library(family: str, attention: str) -> None:
    model = (FAMILIES | {"gemma2": gemma2})[family](4)
    model.set_attn_implementation(attention)
    found = sample(model, temperature=0.0)
    assert found == [library_greedy(model, prompt, 12) for prompt in PROMPTS]


def test_rows_end_with_eos_and_hold_nothing_behind_it() -> None:
    responses = sample(llama(), PROMPTS * 8)
    ended = [response for response in responses if EOS in response]
    assert all(response.index(EOS) == len(response) - 1 for response in ended)
    assert all(len(response) == 12 for response in responses if EOS not in response)
    assert 0 < len(ended) < len(responses) and len({len(response) for response in ended}) > 3


def test_an_id_that_is_never_drawn_samples_to_the_end() -> None:
    assert {len(response) for response in sample(llama(), eos_id=-1)} == {12}


def test_no_new_tokens_and_no_prompts() -> None:
    assert sample(llama(), max_new_tokens=0) == [[]] * len(PROMPTS)
    assert sample(llama(), []) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_responses_do_not_depend_on_grouping_or_on_taking_rows_out(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FAMILIES[family]()
    expected = sample(model, batch_size=1)
    for batch_size in (3, 24, 100):
        assert sample(model, batch_size=batch_size) == expected
    for fraction in (0.0, 1.0):
        monkeypatch.setattr(module, "COMPACT_BELOW", fraction)
        assert sample(model) == expected


def test_rows_that_have_ended_are_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, read = PackedReader.read, []

    def counting(reader: PackedReader, tokens: torch.Tensor) -> torch.Tensor:
        read.append(len(tokens))
        return usual(reader, tokens)

    monkeypatch.setattr(PackedReader, "read", counting)
    responses = sample(llama(), PROMPTS * 8, batch_size=200, max_new_tokens=22)
    needed = sum(len(response) - 1 for response in responses)  # a response's last token is not read
    assert needed <= sum(read) <= needed / module.COMPACT_BELOW
    assert needed / module.COMPACT_BELOW < 21 * len(responses)  # what reading every row to the end would take


def test_the_same_seed_gives_the_same_responses_and_another_seed_others() -> None:
    model = llama()
    assert sample(model, seed=1) == sample(model, seed=1) != sample(model, seed=2)


def test_the_global_generator_is_not_used() -> None:
    model = llama()
    before = torch.get_rng_state()
    sample(model)
    assert torch.equal(torch.get_rng_state(), before)


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Standardised: about N(0, 1) for many cells when the law holds. Cells with fewer than 5 expected are pooled."""
    expected = probabilities * counts.sum()
    small = expected < 5
    observed = torch.cat([counts[~small], counts[small].sum().view(1)]).double()
    wanted = torch.cat([expected[~small], expected[small].sum().view(1)]).double()
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    cells = len(wanted) - 1
    return float((((observed - wanted) ** 2 / wanted).sum() - cells) / math.sqrt(2 * cells))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.point(37)
def test_tokens_follow_the_softmax_of_the_logits(temperature: float) -> None:
    """First token and, given the most common first token, second token of 50,000 responses to one prompt."""
    model, prompt = llama(2), PROMPTS[0]
    responses = sample(
        model, [prompt] * 50_000, max_new_tokens=2, temperature=temperature, eos_id=-1, batch_size=10_000
    )
    drawn = torch.tensor(responses)
    with torch.no_grad():
        first = torch.softmax(model(torch.tensor([prompt])).logits[0, -1].double() / temperature, -1)
        counts = torch.bincount(drawn[:, 0], minlength=VOCABULARY)
        assert abs(chi_square(counts, first)) < 4
        common = int(counts.argmax())
        second = torch.softmax(model(torch.tensor([[*prompt, common]])).logits[0, -1].double() / temperature, -1)
    after = drawn[drawn[:, 0] == common, 1]
    assert len(after) > 1000
    assert abs(chi_square(torch.bincount(after, minlength=VOCABULARY), second)) < 4
    other = torch.softmax(second.log() * 0.8, -1)  # the test notices a temperature that is off by a quarter
    assert abs(chi_square(torch.bincount(after, minlength=VOCABULARY), other)) > 4


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).repeat(4, 1)
    uniform = torch.tensor([0.0, 0.5 - 1e-12, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, 1.0, uniform).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_statistics_change_no_draw_and_are_those_of_the_drawn_tokens(temperature: float) -> None:
    draws = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(64, 50, generator=draws)
    uniform = torch.rand(64, generator=draws, dtype=torch.float64)
    tokens, found = module.draw_with_statistics(logits, temperature, uniform)
    assert torch.equal(tokens, draw(logits, temperature, uniform))
    expected = torch.distributions.Categorical(logits=logits.double() / temperature)
    torch.testing.assert_close(found.logprobs.double(), expected.log_prob(tokens), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.entropy.double(), expected.entropy(), atol=1e-5, rtol=0)


def test_the_model_returns_in_the_mode_it_came_in() -> None:
    model = gpt2(resid_pdrop=0.5).train()
    first = sample(model)
    assert model.training
    assert first == sample(model)  # dropout was off


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="prompt 1: found 0 tokens"):
        sample(llama(), [[4], []])
    with pytest.raises(ModelError, match=r"longest prompt \(30 tokens\) and response \(12\) make 42"):
        sample(llama(), [[4] * 30])


@pytest.mark.parametrize("family", [*FAMILIES, "gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_is_noted_while_sampling_is_what_a_forward_pass_finds(family: str, temperature: float) -> None:
    model = (FAMILIES | {"gemma2": gemma2})[family](4)
    drawn = module.sample(
        model,
        PROMPTS,
        max_new_tokens=12,
        temperature=temperature,
        generator=torch.Generator().manual_seed(0),
        eos_id=EOS,
        pad_id=0,
        batch_size=10,
        with_statistics=True,
    )
    assert drawn.responses == sample(model, temperature=temperature)
    assert len({len(response) for response in drawn.responses}) > 1, "rows are taken out"
    batch = pad_batch(PROMPTS, drawn.responses, 0)
    with torch.no_grad():
        expected = response_logprobs(model, batch, temperature, with_entropy=True)
    assert drawn.statistics is not None
    for found, wanted in zip(drawn.statistics, expected, strict=True):
        assert found.shape == (len(PROMPTS), 12)
        torch.testing.assert_close(found[:, : wanted.shape[1]], wanted, atol=1e-5, rtol=0)
        assert not found[:, wanted.shape[1] :].any()
    assert not drawn.statistics.logprobs[:, : batch.response_width][~batch.response_mask].any()


def test_nothing_to_sample_has_statistics_of_no_rows() -> None:
    drawn = module.sample(
        llama(),
        [],
        max_new_tokens=3,
        temperature=1.0,
        generator=torch.Generator(),
        eos_id=EOS,
        pad_id=0,
        batch_size=4,
        with_statistics=True,
    )
    assert drawn.responses == [] and drawn.statistics is not None and drawn.statistics.logprobs.shape == (0, 3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_streaming_draws_what_sampling_draws(family: str, temperature: float) -> None:
    model = {"llama": llama, "gpt2": gpt2}[family]()
    for seed, prompt in enumerate(PROMPTS[:6]):
        (whole,) = sample(model, [prompt], seed=seed, temperature=temperature)
        drawn = module.stream(
            model,
            prompt,
            max_new_tokens=12,
            temperature=temperature,
            generator=torch.Generator().manual_seed(seed),
            eos_ids={EOS},
        )
        assert list(drawn) == [token for token in whole if token != EOS]


def test_any_of_several_tokens_ends_a_stream() -> None:
    how = {"max_new_tokens": 12, "temperature": 0.0, "generator": torch.Generator()}
    drawn = list(module.stream(llama(), PROMPTS[0], eos_ids=set(), **how))  # type: ignore[arg-type]
    assert len(drawn) == 12
    ended = list(module.stream(llama(), PROMPTS[0], eos_ids={-1, drawn[3]}, **how))  # type: ignore[arg-type]
    assert ended == drawn[: drawn.index(drawn[3])]
