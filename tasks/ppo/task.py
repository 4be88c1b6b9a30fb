"""PPO as a task."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tasks.engine.artifacts import write_json
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import ConfigError
from tasks.engine.stage import Metrics, Workshop
from tasks.language.adapters import freeze, save_adapter, trainable_copy
from tasks.language.bases import load_base
from tasks.language.models import ScalarModel, load_policy, save_policy
from tasks.language.seeds import named_generator
from tasks.ppo.brake import JUDGE
from tasks.ppo.config import PPOConfig
from tasks.ppo.learner import PPOLearner
from tasks.ppo.reward_parts import value_model_without_reward_model
from tasks.ppo.rollout import Networks
from tasks.ppo.sentinel import Row
from tasks.ppo.watch import CURVES, GoldJudge, HeldOutJudge, IndependentJudge, WatchedLearner
from tasks.records.data import PreparedData
from tasks.rewards.models import own_reward_models
from tasks.rewards.rewards import Rewards
from tasks.sandbox.world import World

logger = logging.getLogger("plumbline")
LAST_ITERATIONS = 5
INDEPENDENT = "independent_reward_model"


def train_ppo(shop: Workshop, config: PPOConfig) -> Metrics:
    """Optimise the policy against the reward model, or the declared list of rewards, held near PPO-init.

    Pretraining gradients have weight gamma. The policy starts from PPO-init, or from the input ``start``, where a later round
    goes on or another road ended; its KL is measured to PPO-init. The rollouts are also scored by whoever is not optimised:
    the gold labeler of the embedded world, and the input ``independent_reward_model`` if there is one. The artifact holds
    ``policy/``, ``history.json`` (one row per iteration) and ``sentinel.json`` (the warnings, and whose weights the policy
    holds); with an adapter also ``adapter/``.
    """
    data = PreparedData(shop.input("data"))
    tokenizer = data.tokenizer()
    reference = shop.input("ppo_init") / "policy"
    start = shop.input("start") / "policy" if "start" in shop.inputs else reference
    judges = _held_out_judges(shop, tokenizer, config)
    names = [held_out.name for held_out in judges]
    if config.selection not in ("last", *names):
        raise ConfigError(
            f"{shop.stage}: ppo.selection is {config.selection}, and the held-out judges here are "
            f"{', '.join(names) or 'none'}; set ppo.selection=last, or independent with an independent_reward_model"
        )
    if config.brake != "off" and JUDGE not in names:
        raise ConfigError(
            f"{shop.stage}: ppo.brake is {config.brake}, which asks the independent reward model, and the held-out judges here "
            f"are {', '.join(names) or 'none'}; give an independent_reward_model, or set ppo.brake=off"
        )
    own = own_reward_models(shop) if config.rewards.own is not None else []
    networks = load_networks(start, reference, own, config, shop.runtime)
    listed = len(own) > 1 or not config.rewards.plain
    rewards = Rewards(config.rewards, own, int(tokenizer.pad_token_id), shop.runtime) if listed else None
    prompts = data.rl_prompts("train")
    shop.uses(data.file("rl_prompts", "train"), "rl_prompts/train", len(prompts), "training")
    learner = WatchedLearner(
        PPOLearner(networks, tokenizer, prompts, data.documents("train"), config, shop.runtime, rewards), judges
    )
    for _ in shop.train(learner):
        for warning in learner.report().warnings:
            if warning.first_iteration == learner.completed_steps:
                logger.warning("%s: iteration %d: %s", shop.stage, warning.first_iteration, warning.reason)
        for act in learner.interventions:
            if act.iteration == learner.completed_steps:
                logger.warning("%s: iteration %d: brake (%s): %s", shop.stage, act.iteration, act.action, act.told)
    report = learner.report()
    if report.stopped_early:
        logger.warning(
            "%s: stopped after %d of %d iterations", shop.stage, report.iterations, report.planned_iterations
        )
    shop.log.tags({f"sentinel.{warning.rule}": warning.reason for warning in report.warnings})
    policy = learner.final_policy()
    save_policy(policy, tokenizer, shop.folder / "policy")
    save_adapter(policy, shop.folder / "adapter")
    write_json(shop.folder / "history.json", learner.history)
    write_json(shop.folder / "sentinel.json", report.model_dump(mode="json"))
    counts = {"sentinel/warnings": float(len(report.warnings))}
    if config.brake != "off":
        counts["brake/interventions"] = float(len(report.interventions))
    return last_means(learner.history) | costs(learner.history, config) | counts


def costs(history: Sequence[Row], config: PPOConfig) -> dict[str, float]:
    """Responses and tokens that the iterations of ``history`` drew, and tokens that were learned from."""
    drawn = sum(row["response/length"] for row in history) * config.episodes_per_iteration
    steps = len(history) * config.inner_epochs * config.minibatches_per_iteration
    pretraining = steps * config.ptx_rows_per_minibatch * (config.ptx_row_tokens - 1) if config.gamma > 0 else 0
    return {
        "cost/samples": float(len(history) * config.episodes_per_iteration),
        "cost/tokens_drawn": float(round(drawn)),
        "cost/tokens_learned": float(round(drawn) * config.inner_epochs + pretraining),
    }


def load_networks(
    start: Path, reference: Path, own: Sequence[ScalarModel], config: PPOConfig, runtime: RuntimeConfig
) -> Networks:
    """The policy beside its reference, the value model beside the first of the run's own reward models (section 3.5); with
    adapters each pair is on one trunk.

    A policy that starts elsewhere than its reference has weights of its own, and so has a value model without a reward
    model, which knows nothing of rewards.
    """
    device, frozen, adapter = runtime.device, runtime.frozen_precision, config.adapter
    base = load_base(start, device, adapter)
    held_to, value_model = base if start == reference else load_policy(reference, device), None
    policy = trainable_copy(base, adapter, named_generator(config.seed, "ppo/adapter"), frozen)
    freeze(held_to, frozen)
    if config.reads_values:
        draws = named_generator(config.seed, "ppo/value_adapter")
        judge = own[0] if own else value_model_without_reward_model(start, device)
        value_model = judge.trainable_copy(adapter, draws, frozen)
    for reward_model in own:
        freeze(reward_model.backbone, frozen)
    return Networks(policy, held_to, own[0] if own else None, value_model)


def _held_out_judges(shop: Workshop, tokenizer: PreTrainedTokenizerBase, config: PPOConfig) -> list[HeldOutJudge]:
    """Gold where there is a world, the independent reward model where there is one."""
    if not config.sentinel.every:
        return []
    judges: list[HeldOutJudge] = []
    if "world" in shop.inputs:
        judges.append(GoldJudge(World.read(shop.input("world"))))
    if INDEPENDENT in shop.inputs:
        model = ScalarModel.load(shop.input(INDEPENDENT) / "model", shop.runtime.device)
        freeze(model.backbone, shop.runtime.frozen_precision)
        judges.append(IndependentJudge(model, int(tokenizer.pad_token_id), shop.runtime))
    return judges


def last_means(history: Sequence[Row]) -> dict[str, float]:
    """Means of the curves over the last iterations that have them."""
    last = history[-LAST_ITERATIONS:]
    found = {name: [row[name] for row in last if name in row] for name in CURVES}
    means = {name: sum(values) / len(values) for name, values in found.items() if values}
    return {name: value for name, value in means.items() if math.isfinite(value)}
