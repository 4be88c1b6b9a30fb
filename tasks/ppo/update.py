"""One minibatch: two backward passes into the policy's gradients, one into the value model's, one step of each."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from tasks.engine.config import RuntimeConfig
from tasks.language.logprobs import response_logprobs
from tasks.language.models import autocast
from tasks.language.optimization import clip_grad_norm
from tasks.ppo import statistics
from tasks.ppo.config import PPOConfig
from tasks.ppo.loss import clipped_policy_loss, clipped_value_loss
from tasks.ppo.ptx import compare_gradients, copy_gradients, loss_divisor, pretraining_loss
from tasks.ppo.rollout import Microbatch, Networks, Rollout, write_rows
from tasks.ppo.statistics import GradientPair


class Experience(NamedTuple):
    """What the losses of one iteration need."""

    rollout: Rollout
    advantages: Tensor  # (B, W) whitened if so configured
    returns: Tensor  # (B, W) from advantages before whitening


class Optimizers(NamedTuple):
    """Two networks, two learning rates."""

    policy: Optimizer
    value: Optimizer


class Forwarded(NamedTuple):
    """What the training forwards of one inner epoch found, for the statistics."""

    logprobs: Tensor  # (B, W)
    values: Tensor  # (B, W)


class MinibatchReport(NamedTuple):
    """Gradient norms are those before clipping."""

    policy_grad_norm: float
    value_grad_norm: float
    ptx_loss: float | None  # nats per token; None for plain PPO
    gradients: GradientPair | None


class MinibatchUpdate:
    """The gradient step of one run's configuration, applied to one minibatch after another."""

    def __init__(self, networks: Networks, optimizers: Optimizers, config: PPOConfig, runtime: RuntimeConfig) -> None:
        self.networks, self.optimizers, self.config, self.runtime = networks, optimizers, config, runtime
        self.policy_parameters = [p for p in networks.policy.parameters() if p.requires_grad]
        self.value_parameters = [p for p in networks.value_model.parameters() if p.requires_grad]

    def __call__(
        self,
        minibatch: Sequence[Microbatch],
        experience: Experience,
        rows: Tensor | None,  # (N, L) pretraining rows, None for plain PPO
        forwarded: Forwarded,  # written to
    ) -> MinibatchReport:
        """Both optimizers take one step."""
        self.optimizers.policy.zero_grad(set_to_none=True)
        self._policy_backward(minibatch, experience, forwarded.logprobs)
        ptx_loss = gradients = None
        if rows is not None:
            policy_gradients = copy_gradients(self.policy_parameters)
            ptx_loss = self._ptx_backward(rows)
            gradients = compare_gradients(policy_gradients, self.policy_parameters)
        policy_norm = clip_grad_norm(self.policy_parameters, self.config.policy_adam.max_grad_norm)
        self.optimizers.policy.step()

        self.optimizers.value.zero_grad(set_to_none=True)
        self._value_backward(minibatch, experience, forwarded.values)
        value_norm = clip_grad_norm(self.value_parameters, self.config.value_adam.max_grad_norm)
        self.optimizers.value.step()
        return MinibatchReport(policy_norm, value_norm, ptx_loss, gradients)

    def _policy_backward(self, minibatch: Sequence[Microbatch], experience: Experience, table: Tensor) -> None:
        rollout = experience.rollout
        token_count = sum(cut.response_tokens for cut in minibatch)
        for cut in minibatch:
            with autocast(self.runtime):
                logprobs = response_logprobs(self.networks.policy, cut.batch, self.config.temperature)
            part = (cut.rows, slice(logprobs.shape[1]))
            loss = clipped_policy_loss(
                logprobs,
                rollout.logprobs[part],
                experience.advantages[part],
                rollout.placement.response_mask[part],
                clip=self.config.policy_clip,
                token_count=token_count,
            )
            loss.backward()  # type: ignore[no-untyped-call]
            write_rows(table, cut.rows, logprobs)

    def _ptx_backward(self, rows: Tensor) -> float:
        count, length = rows.shape
        divisor = loss_divisor(count, length, self.config.ptx_reduction)
        total = torch.zeros((), device=rows.device)
        for part in torch.split(rows, max(1, self.runtime.tokens_per_microbatch // rows.shape[1])):
            with autocast(self.runtime):
                loss = pretraining_loss(self.networks.policy, part, divisor=divisor)
            (self.config.gamma * loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total.item() * (divisor / loss_divisor(count, length, "token_mean"))  # reported per token

    def _value_backward(self, minibatch: Sequence[Microbatch], experience: Experience, table: Tensor) -> None:
        rollout = experience.rollout
        token_count = sum(cut.value_tokens for cut in minibatch)
        for cut in minibatch:
            with autocast(self.runtime):
                values = self.networks.value_model.values(cut.valued).float()
            part = (cut.rows, slice(values.shape[1]))
            loss = clipped_value_loss(
                values,
                rollout.values[part],
                experience.returns[part],
                rollout.placement.value_mask[part],
                clip=self.config.value_clip,
                token_count=token_count,
            )
            loss.backward()  # type: ignore[no-untyped-call]
            write_rows(table, cut.rows, values)


def training_statistics(
    epochs: list[Forwarded], reports: list[MinibatchReport], experience: Experience, config: PPOConfig
) -> dict[str, float]:
    """Over every token of every inner epoch; gradient norms are means over optimizer steps."""
    rollout, count = experience.rollout, len(epochs)
    policy = statistics.policy_statistics(
        torch.cat([epoch.logprobs for epoch in epochs]),
        rollout.logprobs.repeat(count, 1),
        experience.advantages.repeat(count, 1),
        rollout.placement.response_mask.repeat(count, 1),
        clip=config.policy_clip,
    )
    value = statistics.value_statistics(
        torch.cat([epoch.values for epoch in epochs]),
        rollout.values.repeat(count, 1),
        experience.returns.repeat(count, 1),
        rollout.placement.value_mask.repeat(count, 1),
        clip=config.value_clip,
    )
    norms = {
        "policy/grad_norm": sum(report.policy_grad_norm for report in reports) / len(reports),
        "value/grad_norm": sum(report.value_grad_norm for report in reports) / len(reports),
    }
    return (
        policy
        | value
        | norms
        | statistics.ptx_statistics(
            [report.ptx_loss for report in reports if report.ptx_loss is not None],
            [report.gradients for report in reports if report.gradients is not None],
        )
    )
