"""The measurement of one policy as a task."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.stage import Metrics, Workshop
from tasks.language.models import ScalarModel, load_policy
from tasks.language.reward_folder import INDEPENDENT_KNOB, check_other_weights, load_reward_model
from tasks.language.tokenizer import load_tokenizer
from tasks.measure.benchmarks import Subject
from tasks.measure.config import MeasureConfig
from tasks.measure.policy_sheet import Yardsticks
from tasks.measure.policy_sheet import evaluate_policy as measure
from tasks.measure.vocabularies import same_vocabulary
from tasks.records.data import PreparedData
from tasks.results.sheet import BASELINE, write_sheet
from tasks.rewards.models import own_reward_models
from tasks.rewards.rewards import Rewards
from tasks.sandbox.world import World

logger = logging.getLogger("plumbline")

PARTS = 4  # what policy_sheet.evaluate_policy announces
INDEPENDENT_INPUT = "independent_reward_model"


def evaluate_policy(shop: Workshop, config: MeasureConfig) -> Metrics:
    """Responses, judges' scores, KL, benchmarks, perplexity, toxicity and truthfulness of one policy.

    ``shop.about`` is its name; it brings its tokenizer. A second reward model judges too when it is an input, or is given by its
    folder (a flow gives one of the two). The inputs ``reference``, ``reward_model`` and ``world`` are optional, and what needs
    them is then left out.
    """
    data = PreparedData(shop.input("data"))
    device, name = shop.runtime.device, shop.about
    folder = shop.input("policy") / "policy"
    subject = Subject(load_policy(folder, device).eval(), load_tokenizer(folder), shop.runtime)
    yardsticks = Yardsticks(
        reference=_reference(shop, subject),
        reward=_optimised_reward_model(shop, data.tokenizer()),
        tokenizer=data.tokenizer(),
        rewards=_rewards(shop, config, data.tokenizer()),
        independent=_independent(shop, config, data.tokenizer()),
        world=World.read(shop.input("world")) if "world" in shop.inputs else None,
    )
    with shop.progress(PARTS, "part") as bar:
        sheet = measure(
            name,
            subject,
            yardsticks,
            data,
            config,
            baseline=name == BASELINE,
            on_progress=lambda part: bar.update(),
        )
    write_sheet(sheet, shop.folder)
    return {} if sheet.kl is None else {"kl": float(np.mean(sheet.kl))}


def _reference(shop: Workshop, subject: Subject) -> Callable[[], PreTrainedModel] | None:
    """The policy that the KL is taken to; None where its token ids mean something else, so that there is no KL."""
    if "reference" not in shop.inputs:
        return None
    folder = shop.input("reference") / "policy"
    if not same_vocabulary(load_tokenizer(folder), subject.tokenizer):
        logger.warning("%s: its vocabulary is not the reference policy's; the KL is not measured", shop.stage)
        return None
    return lambda: load_policy(folder, shop.runtime.device).eval()


def _optimised_reward_model(shop: Workshop, tokenizer: PreTrainedTokenizerBase) -> Callable[[], ScalarModel] | None:
    """The pipeline's own, or one that flows.evaluate was given: that one may have been trained with other tokens."""
    if "reward_model" not in shop.inputs:
        return None
    return _judge(shop, shop.input("reward_model") / "model", tokenizer, "reward_model")


def _rewards(shop: Workshop, config: MeasureConfig, tokenizer: PreTrainedTokenizerBase) -> Rewards | None:
    """The whole reward that was optimised, where it is more than the reward model."""
    if config.rewards is None:
        return None
    own = own_reward_models(shop) if config.rewards.own is not None else []
    return Rewards(config.rewards, own, int(tokenizer.pad_token_id), shop.runtime)


def _independent(
    shop: Workshop, config: MeasureConfig, tokenizer: PreTrainedTokenizerBase
) -> Callable[[], ScalarModel] | None:
    """The reward model that nobody optimised: the pipeline's own, else one given by its folder, else none."""
    if INDEPENDENT_INPUT in shop.inputs:
        return _judge(shop, shop.input(INDEPENDENT_INPUT) / "model", tokenizer)
    given = config.judges.independent_reward_model
    if given is not None and "reward_model" in shop.inputs:
        check_other_weights(Path(given), shop.input("reward_model") / "model")
    return None if given is None else _judge(shop, Path(given), tokenizer)


def _judge(
    shop: Workshop, folder: Path, tokenizer: PreTrainedTokenizerBase, knob: str = INDEPENDENT_KNOB
) -> Callable[[], ScalarModel]:
    """Reads a reward model when it is asked; that it can be read is known before anything is sampled."""
    load_reward_model(folder, "cpu", tokenizer, knob)
    return partial(load_reward_model, folder, shop.runtime.device, tokenizer, knob)
