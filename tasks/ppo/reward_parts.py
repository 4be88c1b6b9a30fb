"""The score of an iteration's responses where it is more than the run's own reward model: see ``tasks.rewards``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from tasks.language.models import ScalarModel
from tasks.language.text import decode_response
from tasks.ppo.config import PPOConfig
from tasks.ppo.rewards import MISSING_EOS_RULES
from tasks.ppo.rollout import Episodes, Rollout
from tasks.records.records import Prompt
from tasks.rewards.rewards import Answered, Rewards


def combined(
    rollout: Rollout,
    episodes: Episodes,
    prompts: Sequence[Prompt],
    rewards: Rewards | None,
    tokenizer: PreTrainedTokenizerBase,
    config: PPOConfig,
) -> tuple[Rollout, dict[str, float]]:
    """The rollout with the combined score of all parts, and what each part said.

    ``rollout.raw_score`` is that of the run's own reward model, where a part refers to it.
    """
    if rewards is None:  # that score is all there is
        return rollout, {}
    pairs = zip(episodes.scored, prompts, strict=True)
    texts = [decode_response(tokenizer, ids, prompt.text) for ids, prompt in pairs]
    answered = Answered(prompts, texts, episodes.finished, episodes.prompts, episodes.scored)
    scored = rewards(answered, None if config.rewards.own is None else rollout.raw_score)
    raw = scored.total.to(rollout.raw_score)
    score = MISSING_EOS_RULES[config.missing_eos](raw, rollout.finished, config.missing_eos_score)
    return replace(rollout, raw_score=raw, score=score), scored.figures


def value_model_without_reward_model(policy: Path, device: str) -> ScalarModel:
    """The trunk that PPO starts from under a head of zeros: before it has seen a reward, it expects none."""
    model = ScalarModel.from_policy(policy, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.head.weight.zero_()
    return model.to(device)
