"""Does the fine-tuned policy end its responses? PPO scores one that was cut off as poor, whatever it holds."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.config import RuntimeConfig
from tasks.language.seeds import named_generator
from tasks.language.speaker import Speaker
from tasks.language.text import encode_prompt
from tasks.records.records import Demonstration
from tasks.sft.config import SFTConfig

PROMPTS = 64
LOW = 0.5
"""As ``eos_rate`` of PPO's sentinel in the shipped configurations."""


def eos_rate(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[Demonstration],
    config: SFTConfig,
    runtime: RuntimeConfig,
) -> float | None:
    """Share of responses, one sampled at temperature 1 to each of the first prompts, that end by themselves.

    None without prompts. Nothing else depends on these samples: they have a generator of their own.
    """
    prompts = [encode_prompt(tokenizer, item.prompt.text, config.prompt_tokens) for item in held_out[:PROMPTS]]
    if not prompts:
        return None
    speaker = Speaker(policy.eval(), tokenizer, runtime)
    responses = speaker.answer(
        prompts,
        max_new_tokens=config.response_tokens,
        temperature=1.0,
        generator=named_generator(config.seed, "sft/endings", policy.device),
    )
    return sum(map(speaker.ended, responses)) / len(responses)


def warning(rate: float, stage: str, config: SFTConfig) -> str | None:
    """What to tell the user of a low rate."""
    if rate >= LOW:
        return None
    return (
        f"{stage}: {100 * rate:.0f} % of the policy's responses to validation prompts end with EOS within response_tokens "
        f"({config.response_tokens}); PPO scores the others as cut off. Raise data_prep.response_tokens, or train longer on "
        "demonstrations that fit into it"
    )
