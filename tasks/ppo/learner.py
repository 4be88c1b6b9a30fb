"""PPO and PPO-ptx (InstructGPT section 3.5 and appendix C.4): one ``step()`` is one iteration of episodes.

Where the paper leaves a choice (docs/method.md D.2), ``conf/ppo`` names each value's source: log-probabilities are recomputed
after sampling unless ``old_logprobs`` is ``sampled``; a minibatch's losses are means over its tokens, however it is cut into
microbatches; the averaged weights are updated per optimizer step unless ``ema_every`` is ``iteration``.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.checkpoint import Inspection
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import DataError
from tasks.language.adapters import load_trained_state, snapshot, trained_state
from tasks.language.descent import Descent, constant
from tasks.language.masked import masked_mean, scale_to_unit_variance, whiten
from tasks.language.optimization import Ema, linear_warmup
from tasks.language.packing import RowCursor, encode_documents, pack_documents
from tasks.language.precision import autocast
from tasks.language.seeds import named_generator
from tasks.language.shards import divide, whole
from tasks.language.text import decode_response, encode_prompt
from tasks.language.tokenizer import check_tokenizer
from tasks.ppo import statistics
from tasks.ppo.advantages import GROUP_ESTIMATORS, generalised_advantages
from tasks.ppo.config import PPOConfig
from tasks.ppo.engines import OwnEngine, RolloutEngine, VLLMEngine, drift
from tasks.ppo.kl_control import adapted_beta
from tasks.ppo.reward_parts import combined
from tasks.ppo.rewards import per_token_rewards
from tasks.ppo.rollout import (
    Episodes,
    Minibatch,
    Networks,
    Rollout,
    SpecialIds,
    check_networks,
    check_reward_sums,
    cut_into_microbatches,
    evaluate_episodes,
)
from tasks.ppo.signal import Alike, check_spread, check_start
from tasks.ppo.update import (
    Experience,
    Forwarded,
    MinibatchReport,
    MinibatchUpdate,
    Optimizers,
    ValueTargets,
    training_statistics,
)
from tasks.records.records import Document, Prompt
from tasks.rewards.rewards import Rewards


class ShownEpisode(NamedTuple):
    """One episode, for a reader."""

    prompt: Prompt
    response: str
    score: float
    finished: bool


class PPOLearner:
    """Everything that must survive a crash of a PPO run.

    Args:
        policy: trained; a fresh run starts it as a copy of ``reference`` (the paper's PPO-init).
        reference: frozen.
        reward_model: frozen; its bias makes demonstrations average 0.
        rewards: combines all parts of the reward; None where the reward model's score is all there is.
        value_model: trained; a fresh run starts it as a deep copy of ``reward_model`` where there is one. Not kept
            where advantages compare responses to one prompt.
        documents: pretraining text; not looked at when gamma is 0.

    All networks are switched to evaluation mode, because dropout would make ratios meaningless.
    """

    def __init__(
        self,
        networks: Networks,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        documents: Sequence[Document],
        config: PPOConfig,
        runtime: RuntimeConfig,
        rewards: Rewards | None = None,
    ) -> None:
        check_tokenizer(tokenizer)
        if not config.reads_values:
            networks = networks._replace(value_model=None)
        check_networks(networks, config)
        if not prompts:
            raise DataError(
                "ppo: found no RL prompts, expected at least one; check the data_prep stage's rl_prompts split"
            )
        self.networks, self.tokenizer, self.config, self.runtime = networks, tokenizer, config, runtime
        self.prompts = list(prompts)
        self.ids = SpecialIds(tokenizer.eos_token_id, tokenizer.pad_token_id)
        self.device = next(networks.policy.parameters()).device
        self.prompt_ids = [encode_prompt(tokenizer, prompt.text, config.prompt_tokens) for prompt in prompts]
        networks.reference.requires_grad_(False)
        if networks.reward_model is not None:
            networks.reward_model.requires_grad_(False)
        for network in networks.present:
            divide(network, runtime)
        self.rewards = rewards
        policy_adam, value_adam = (adam.beside(config.adapter) for adam in (config.policy_adam, config.value_adam))
        self.optimizers = Optimizers(
            Descent(
                networks.policy,
                policy_adam,
                lambda taken: linear_warmup(taken, config.warmup_iterations, config.warmup_start),
                lambda: self.update.idle_policy(),
            ),
            None
            if networks.value_model is None
            else Descent(networks.value_model, value_adam, constant, lambda: self.update.idle_value()),
        )
        self.update = MinibatchUpdate(networks, self.optimizers, config, runtime)
        self.ema = Ema(networks.policy, config.ema_decay)
        self.sampling = named_generator(config.seed, "ppo/sampling", self.device)
        self.engine = self._engine()
        self.minibatching = named_generator(config.seed, "ppo/minibatches")
        self.prompt_cursor = RowCursor(
            torch.arange(len(self.prompts)).unsqueeze(1), named_generator(config.seed, "ppo/prompts")
        )
        self.ptx_cursor = self._pretraining_rows(documents) if config.gamma > 0 else None
        self.beta = config.beta
        self.alike = Alike()
        self.completed_steps = 0
        self.total_steps = config.iterations
        self.last_rollout: Rollout | None = None
        self.last_episodes: Episodes | None = None
        self._chosen: list[int] = []

    def step(self) -> dict[str, float]:
        """One iteration: sample, score, reward, estimate advantages, train; returns its statistics."""
        for network in self.networks.present:
            network.eval()
        # 1. Sample with the live weights.
        chosen = self._draw_prompts()
        prompts = [self.prompt_ids[index] for index in chosen]
        drawn = self.engine.sample(whole(self.networks.policy), prompts, self.sampling)
        episodes = Episodes.of(prompts, drawn.responses, self.config, self.ids)
        # 2. Score, and compute log-probabilities and values over the first epoch's microbatches.
        first_epoch = self._minibatches(episodes)
        every_cut = [cut for minibatch in first_epoch for cut in minibatch.cuts]
        with autocast(self.runtime):
            rollout = evaluate_episodes(
                self.networks, episodes, every_cut, self.config, self.ids.pad, self.device, drawn.statistics
            )
        asked = [self.prompts[index] for index in chosen]
        rollout, parts = combined(rollout, episodes, asked, self.rewards, self.tokenizer, self.config)
        drifted = drift(drawn, rollout.logprobs, self.config.max_logprob_drift)
        if self.completed_steps == 0:
            check_start(rollout, self.config)
        alike = check_spread(rollout, self.config, self.alike, self.completed_steps + 1)
        # 3. Reward each token, estimate advantages, whiten over the whole iteration.
        experience = self._experience(rollout)
        # 4. Train.
        metrics = self._train(episodes, experience, first_epoch)
        if self.config.ema_every == "iteration":
            self.ema.update(self.networks.policy)
        # 5. Report, then steer beta.
        metrics |= self._rollout_statistics(rollout) | parts | drifted
        if self.config.kl_controller == "adaptive":
            self.beta = adapted_beta(
                self.beta,
                metrics["objective/kl"],
                target=self.config.kl_target,
                horizon=self.config.kl_horizon,
                episodes=self.config.episodes_per_iteration,
            )
        self.completed_steps += 1
        self.alike = alike
        self.last_rollout, self.last_episodes, self._chosen = rollout, episodes, chosen
        return metrics

    def samples(self, count: int) -> list[ShownEpisode]:
        """The first episodes of the latest iteration; none before the first."""
        if self.last_rollout is None or self.last_episodes is None:
            return []
        episodes = self.last_episodes
        return [
            ShownEpisode(
                self.prompts[self._chosen[row]],
                decode_response(self.tokenizer, episodes.scored[row], self.prompts[self._chosen[row]].text),
                self.last_rollout.score[row].item(),
                episodes.finished[row],
            )
            for row in range(min(count, len(self._chosen)))
        ]

    def inspection(self) -> Inspection:
        """The latest iteration's episodes as text, and its rollout as numbers; for looking into a step that went wrong."""
        rollout = self.last_rollout
        if rollout is None:
            return Inspection([], {})
        texts = [
            {
                "prompt": sample.prompt.text,
                "response": sample.response,
                "score": sample.score,
                "finished": sample.finished,
            }
            for sample in self.samples(len(self._chosen))
        ]
        numbers = {field.name: getattr(rollout, field.name) for field in fields(rollout)} | rollout.placement._asdict()
        return Inspection(texts, {name: found for name, found in numbers.items() if isinstance(found, Tensor)})

    def final_policy(self) -> PreTrainedModel:
        """A copy of the policy that holds the averaged weights: what the stage ships. It shares frozen weights."""
        averaged: PreTrainedModel = snapshot(self.networks.policy)
        self.ema.copy_to(averaged)
        return averaged

    def state_dict(self) -> dict[str, Any]:
        """Everything ``step`` depends on, besides the frozen networks and the data."""
        return {
            "policy": trained_state(self.networks.policy),
            "value_model": None if self.networks.value_model is None else trained_state(self.networks.value_model),
            "policy_optimizer": self.optimizers.policy.state_dict(),
            "value_optimizer": None if self.optimizers.value is None else self.optimizers.value.state_dict(),
            "ema": self.ema.state_dict(),
            "sampling": self.sampling.get_state(),
            "minibatching": self.minibatching.get_state(),
            "prompt_cursor": self.prompt_cursor.state_dict(),
            "ptx_cursor": None if self.ptx_cursor is None else self.ptx_cursor.state_dict(),
            "beta": self.beta,
            "alike": list(self.alike),
            "completed_steps": self.completed_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        load_trained_state(self.networks.policy, state["policy"])
        self.optimizers.policy.load_state_dict(state["policy_optimizer"])
        if self.networks.value_model is not None and self.optimizers.value is not None:
            load_trained_state(self.networks.value_model, state["value_model"])
            self.optimizers.value.load_state_dict(state["value_optimizer"])
        self.ema.load_state_dict(state["ema"])
        self.sampling.set_state(state["sampling"])
        self.minibatching.set_state(state["minibatching"])
        self.prompt_cursor.load_state_dict(state["prompt_cursor"])
        if self.ptx_cursor is not None:
            self.ptx_cursor.load_state_dict(state["ptx_cursor"])
        self.beta = state["beta"]
        self.alike = Alike(*state["alike"])
        self.completed_steps = state["completed_steps"]

    def _pretraining_rows(self, documents: Sequence[Document]) -> RowCursor:
        if not documents:
            raise DataError(
                f"ppo: gamma is {self.config.gamma:g} but the data holds no pretraining documents; give documents or set "
                "ppo.gamma=0"
            )
        tokens = encode_documents(self.tokenizer, (document.text for document in documents))
        rows = pack_documents(tokens, self.config.ptx_row_tokens, self.ids.eos)
        return RowCursor(rows, named_generator(self.config.seed, "ppo/pretraining"))

    def _engine(self) -> RolloutEngine:
        config = self.config
        if config.rollout_engine == "vllm":
            eos = self.ids.eos if config.score_position != "last_position" else None
            return VLLMEngine(config, self.runtime, self.networks.policy, self.tokenizer, eos)
        return OwnEngine(config, self.runtime, self.tokenizer)

    def _draw_prompts(self) -> list[int]:
        """One prompt per episode; the episodes of a group lie side by side."""
        per_prompt = self.config.responses_per_prompt
        drawn = self.prompt_cursor.draw(self.config.episodes_per_iteration // per_prompt).flatten()
        return [int(number) for number in drawn.repeat_interleave(per_prompt)]

    def _minibatches(self, episodes: Episodes) -> list[Minibatch]:
        """One permutation of the episodes, in disjoint minibatches, each cut into microbatches."""
        order = torch.randperm(self.config.episodes_per_iteration, generator=self.minibatching)
        budget = self.runtime.tokens_per_microbatch
        return [
            cut_into_microbatches(episodes, rows.tolist(), budget, self.ids.pad, self.device)
            for rows in torch.split(order, self.config.minibatch_size)
        ]

    def _experience(self, rollout: Rollout) -> Experience:
        config, placement = self.config, rollout.placement
        in_reward, in_loss = (self.beta, 0.0) if config.kl_in == "reward" else (0.0, self.beta)
        rewards = per_token_rewards(
            rollout.score, rollout.logprobs, rollout.reference_logprobs, placement, beta=in_reward
        )
        if self.runtime.debug:
            check_reward_sums(rewards, rollout, in_reward)
        unbiased = config.whitening_variance == "unbiased"
        if config.whiten_rewards:
            rewards = scale_to_unit_variance(rewards, placement.value_mask, unbiased=unbiased)
        advantages, targets = self._advantages(rewards, rollout)
        if config.whiten_advantages:
            advantages = whiten(advantages, placement.response_mask, unbiased=unbiased)
        return Experience(rollout, advantages, targets, in_loss)

    def _advantages(self, rewards: Tensor, rollout: Rollout) -> tuple[Tensor, ValueTargets | None]:
        config, placement = self.config, rollout.placement
        if config.advantage_estimator != "gae":
            totals = rewards.sum(dim=1).view(-1, config.responses_per_prompt)
            of_response = GROUP_ESTIMATORS[config.advantage_estimator](totals).view(-1, 1)
            return of_response * placement.response_mask, None
        assert rollout.values is not None, "generalised advantages need a value model"
        estimates = generalised_advantages(
            rewards,
            rollout.values,
            placement.value_mask,
            discount=config.discount,
            gae_lambda=config.gae_lambda,
        )
        return estimates.advantages, ValueTargets(rollout.values, estimates.returns)

    def _train(self, episodes: Episodes, experience: Experience, minibatches: list[Minibatch]) -> dict[str, float]:
        """All inner epochs; the first runs over the given minibatches, each later one over a new permutation."""
        config = self.config
        epochs: list[Forwarded] = []
        reports: list[MinibatchReport] = []
        for epoch in range(config.inner_epochs):
            if epoch > 0:
                minibatches = self._minibatches(episodes)
            epochs.append(Forwarded(*(torch.zeros_like(experience.advantages) for _ in range(2))))
            for minibatch in minibatches:
                rows = self._draw_pretraining()
                reports.append(self.update(minibatch, experience, rows, epochs[-1], self.completed_steps))
                if config.ema_every == "step":
                    self.ema.update(self.networks.policy)
        return training_statistics(epochs, reports, experience, config)

    def _draw_pretraining(self) -> Tensor | None:
        if self.ptx_cursor is None:
            return None
        return self.ptx_cursor.draw(self.config.ptx_rows_per_minibatch).to(self.device)

    def _rollout_statistics(self, rollout: Rollout) -> dict[str, float]:
        mask = rollout.placement.response_mask
        objective = statistics.objective_statistics(
            rollout.score, rollout.logprobs, rollout.reference_logprobs, mask, beta=self.beta
        )
        responses = statistics.response_statistics(rollout.lengths, rollout.finished, rollout.raw_score)
        entropy = {"policy/entropy": masked_mean(rollout.entropy, mask).item(), "kl/beta": self.beta}
        return objective | responses | entropy
