"""How many responses end by themselves, and what is told of few."""

import pytest
import torch

from tasks.language.seeds import named_generator
from tasks.sft.config import SFTConfig
from tasks.sft.endings import eos_rate, warning
from tests.unit import tiny_models as tiny
from tests.unit.sampling import generate

CONFIG = SFTConfig.model_validate(tiny.settings("sft", prompt_tokens=12, response_tokens=6))


def test_the_rate_counts_responses_that_end() -> None:
    demonstrations, runtime = tiny.demonstrations(40), tiny.runtime()
    drawn = generate(
        tiny.policy(),
        [tiny.tokenizer()(item.prompt.text)["input_ids"] for item in demonstrations],
        max_new_tokens=6,
        temperature=1.0,
        generator=named_generator(7, "sft/endings"),
        eos_id=tiny.EOS,
        pad_id=0,
        batch_size=16,
    )
    ended = [tiny.EOS in response for response in drawn]
    assert 0 < sum(ended) < 40
    assert eos_rate(tiny.policy(), tiny.tokenizer(), demonstrations, CONFIG, runtime) == pytest.approx(sum(ended) / 40)


def test_a_policy_without_an_end_has_rate_zero_and_no_prompts_have_none() -> None:
    endless = tiny.policy()
    endless.lm_head.bias = torch.nn.Parameter(torch.where(torch.arange(len(tiny.WORDS)) == tiny.EOS, -100.0, 0.0))
    assert eos_rate(endless, tiny.tokenizer(), tiny.demonstrations(9), CONFIG, tiny.runtime()) == 0.0
    assert eos_rate(endless, tiny.tokenizer(), [], CONFIG, tiny.runtime()) is None


def test_a_low_rate_is_told_with_its_remedy() -> None:
    assert warning(0.5, "sft", CONFIG) is None
    told = warning(0.125, "ppo_init", CONFIG)
    assert told is not None and told.startswith("ppo_init: 12 % of the policy's responses")
    assert "response_tokens (6)" in told and "Raise data_prep.response_tokens" in told
