"""Draw several responses per prompt from the policy that is to be improved."""

from collections.abc import Sequence
from typing import NamedTuple

from tasks.comparisons.config import SamplingConfig
from tasks.engine.config import RuntimeConfig
from tasks.language.seeds import named_generator, named_random
from tasks.language.text import decode_response, encode_prompt
from tasks.language.types import PreTrainedModel, PreTrainedTokenizerBase
from tasks.records.records import Prompt


class Candidates(NamedTuple):
    """Different responses to one prompt, not yet ranked."""

    prompt: Prompt
    completions: list[str]
    finished: list[bool]
    """Whether each completion ended with EOS rather than at the length limit."""
    policy: str = "sft"
    """Who wrote them."""


def completions_per_prompt(prompts: int, config: SamplingConfig, seed: int) -> list[int]:
    """K for every prompt, uniform from ``completions_min`` to ``completions_max`` (InstructGPT section 3.5: 4 to
    9)."""
    draws = named_random(seed, "completions")
    return [draws.randint(config.completions_min, config.completions_max) for _ in range(prompts)]


def sample_candidates(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    runtime: RuntimeConfig,
    seed: int,
) -> list[Candidates]:
    """K samples per prompt, identical ones dropped; prompts that are left with a single response are left out.

    Args:
        policy: usually the SFT model.
        seed: of K and of the sampling; give training and validation prompts different ones.
    """
    from tasks.language.speaker import Speaker  # torch, which labelers that are only asked do without

    counts = completions_per_prompt(len(prompts), config, seed)
    encoded = [encode_prompt(tokenizer, prompt.text, config.prompt_tokens) for prompt in prompts]
    speaker = Speaker(policy, tokenizer, runtime)
    responses = iter(
        speaker.answer(
            [ids for ids, count in zip(encoded, counts, strict=True) for _ in range(count)],
            max_new_tokens=config.response_tokens,
            temperature=config.temperature,
            generator=named_generator(seed, "sampling", policy.device),
        )
    )
    sampled = []
    for prompt, count in zip(prompts, counts, strict=True):
        drawn = [next(responses) for _ in range(count)]
        texts = [decode_response(tokenizer, ids, prompt.text) for ids in drawn]
        finished = [speaker.ended(ids) for ids in drawn]
        sampled.append(distinct(Candidates(prompt, texts, finished)))
    return [candidates for candidates in sampled if len(candidates.completions) >= 2]


def distinct(candidates: Candidates) -> Candidates:
    """Keep the first of identical responses: they could only tie. A finished and a cut-off response differ."""
    first: dict[tuple[str, bool], int] = {}
    for index, response in enumerate(zip(candidates.completions, candidates.finished, strict=True)):
        first.setdefault(response, index)
    return keep(candidates, list(first.values()))


def keep(candidates: Candidates, places: Sequence[int]) -> Candidates:
    """Some of the responses."""
    return candidates._replace(
        completions=[candidates.completions[place] for place in places],
        finished=[candidates.finished[place] for place in places],
    )
