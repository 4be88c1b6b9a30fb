"""A PPO run small enough for a test: random one-layer Llamas, a dozen words, the real ``conf/ppo/sandbox.yaml``."""

import copy
from typing import Any

import torch
from transformers import LlamaForCausalLM

from tasks.engine.config import RuntimeConfig
from tasks.language.models import ScalarModel
from tasks.ppo.config import PPOConfig
from tasks.ppo.learner import PPOLearner
from tasks.ppo.rollout import Networks
from tasks.records.records import Document, Prompt
from tests.unit import tiny_models
from tests.unit.tiny_models import EOS, WORDS, tokenizer

__all__ = ["EOS", "WORDS", "tokenizer"]
CONF = tiny_models.CONF / "ppo"
SMALL: dict[str, Any] = {
    "episodes": 64,
    "episodes_per_iteration": 16,
    "minibatch_size": 8,
    "prompt_tokens": 8,
    "response_tokens": 6,
    "ptx_examples_per_episode": 2,
    "ptx_row_tokens": 8,
    "warmup_iterations": 2,
    "beta": 0.02,
    "gamma": 2.0,
    "ema_decay": 0.992,
    "seed": 7,
}
RUNTIME = tiny_models.runtime(checkpoint_every=1)


def shipped(name: str) -> dict[str, Any]:
    """One real YAML file, with numbers where it refers to other groups."""
    return tiny_models.shipped("ppo", name) | {"seed": 1}


def settings(**changes: Any) -> dict[str, Any]:
    """The sandbox values, made small, then changed."""
    return shipped("sandbox") | SMALL | changes


def config(**changes: Any) -> PPOConfig:
    return PPOConfig.model_validate(settings(**changes))


def runtime(**changes: Any) -> RuntimeConfig:
    return RUNTIME.model_copy(update=changes)


def policy(seed: int = 0) -> LlamaForCausalLM:
    """One layer; random and far from uniform, so that every number below differs from every other."""
    return tiny_models.policy(seed, layers=1, context=32)


def networks(reference_seed: int = 0) -> Networks:
    """Policy and reference are equal unless ``reference_seed`` differs; the value model copies the reward model."""
    reward_model = ScalarModel.from_policy(policy(1), torch.Generator().manual_seed(2))
    with torch.no_grad():
        reward_model.score_bias.fill_(0.3)
    return Networks(policy(), policy(reference_seed), reward_model, copy.deepcopy(reward_model))


def prompts(count: int = 20) -> list[Prompt]:
    words = ["cat", "red", "blue", "big", "small"]
    texts = [" ".join(["q", ":", *(words[(i + j) % 5] for j in range(1 + i % 4)), "a", ":"]) for i in range(count)]
    return [Prompt(prompt_id=str(i), owner_id="o", text=text) for i, text in enumerate(texts)]


def documents(count: int = 40) -> list[Document]:
    words = ["the", "cat", "is", "big", "small", "red", "blue"]
    return [Document(text=" ".join(words[(i * j) % 7] for j in range(1, 6 + i % 3))) for i in range(count)]


def learner(*, runtime_changes: dict[str, Any] | None = None, reference_seed: int = 0, **changes: Any) -> PPOLearner:
    """A fresh learner; every call builds its own networks."""
    return PPOLearner(
        networks(reference_seed),
        tokenizer(),
        prompts(),
        documents(),
        config(**changes),
        runtime(**(runtime_changes or {})),
    )
