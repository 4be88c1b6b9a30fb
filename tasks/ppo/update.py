"""One minibatch: two backward passes into the policy's gradients, one into the value model's, one step of each.

Without a value model, the policy's alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.engine.config import RuntimeConfig
from tasks.engine.ranks import here
from tasks.language.batches import nothing_asked
from tasks.language.descent import Descent
from tasks.language.logprobs import response_logprobs
from tasks.language.precision import autocast
from tasks.language.room import Room
from tasks.language.shards import is_part
from tasks.ppo import statistics
from tasks.ppo.config import PPOConfig
from tasks.ppo.loss import clipped_policy_loss, clipped_value_loss, reference_kl_loss
from tasks.ppo.ptx import compare_gradients, copy_gradients, loss_divisor, pretraining_loss, put_gradients
from tasks.ppo.rollout import Microbatch, Minibatch, Networks, Rollout, write_rows
from tasks.ppo.statistics import GradientPair


class ValueTargets(NamedTuple):
    """What the value model is trained towards."""

    old: Tensor  # (B, W) values at sampling time
    returns: Tensor  # (B, W) from advantages before whitening


class Experience(NamedTuple):
    """What the losses of one iteration need."""

    rollout: Rollout
    advantages: Tensor  # (B, W) whitened if so configured
    targets: ValueTargets | None  # None without a value model
    kl_price: float
    """Points per nat that the policy's loss charges; 0 where the rewards have charged it."""


class Optimizers(NamedTuple):
    """Two networks, two learning rates."""

    policy: Descent
    value: Descent | None  # None without a value model


class Forwarded(NamedTuple):
    """What the training forwards of one inner epoch found, for the statistics."""

    logprobs: Tensor  # (B, W)
    values: Tensor  # (B, W)


class MinibatchReport(NamedTuple):
    """Gradient norms are those before clipping."""

    policy_learning_rate: float
    policy_grad_norm: float
    value_grad_norm: float | None  # None without a value model
    ptx_loss: float | None  # nats per token; None for plain PPO
    gradients: GradientPair | None


class MinibatchUpdate:
    """The gradient step of one run's configuration, applied to one minibatch after another."""

    def __init__(self, networks: Networks, optimizers: Optimizers, config: PPOConfig, runtime: RuntimeConfig) -> None:
        self.networks, self.optimizers, self.config, self.runtime = networks, optimizers, config, runtime
        self._ptx_room = Room(networks.policy, lambda: self.idle_policy().backward())  # type: ignore[no-untyped-call]

    def idle_policy(self) -> Tensor:
        """The pass of a microbatch without a token."""
        with autocast(self.runtime):
            return response_logprobs(self.networks.policy, nothing_asked(self.networks.policy.device), 1.0).sum()

    def idle_value(self) -> Tensor:
        """Likewise of the value model, which there is."""
        model = self.networks.value_model
        assert model is not None
        with autocast(self.runtime):
            return model.values(nothing_asked(self.networks.policy.device)).sum()

    def __call__(
        self,
        minibatch: Minibatch,
        experience: Experience,
        rows: Tensor | None,  # (N, L) pretraining rows, None for plain PPO
        forwarded: Forwarded,  # written to, in this rank's rows
        iteration: int,
    ) -> MinibatchReport:
        """Every optimizer takes one step."""
        self.optimizers.policy.add_up(
            minibatch.cuts,
            lambda cuts: self._policy_backward(cuts, experience, forwarded.logprobs, minibatch.response_tokens),
        )
        ptx_loss = gradients = None
        if rows is not None:
            parameters = self.optimizers.policy.parameters
            policy_gradients = copy_gradients(parameters)
            mine = rows[here().deal([rows.shape[1]] * len(rows))]
            parts = torch.split(mine, max(1, self.runtime.tokens_per_microbatch // rows.shape[1])) if len(mine) else ()
            ptx_loss = self._ptx_room.fit(
                parts,
                lambda parts: self._ptx_backward(parts, rows.shape),
                lambda: put_gradients(policy_gradients, parameters),
            )
            (ptx_loss,) = here().total(ptx_loss)
            here().add(*(gradient for gradient in policy_gradients if not is_part(gradient)))
            self.optimizers.policy.complete()
            gradients = compare_gradients(policy_gradients, parameters)
        taken = self.optimizers.policy.step(iteration)
        value_norm = self._value_step(minibatch, experience, forwarded.values, iteration)
        return MinibatchReport(taken.learning_rate, taken.grad_norm, value_norm, ptx_loss, gradients)

    def _policy_backward(
        self, cuts: Sequence[Microbatch], experience: Experience, table: Tensor, token_count: int
    ) -> None:
        rollout = experience.rollout
        for cut in cuts:
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
            if experience.kl_price:
                reference, mask = rollout.reference_logprobs[part], rollout.placement.response_mask[part]
                kl = reference_kl_loss(logprobs, reference, mask, token_count=token_count)
                loss = loss + experience.kl_price * kl
            loss.backward()  # type: ignore[no-untyped-call]
            write_rows(table, cut.rows, logprobs)

    def _ptx_backward(self, parts: Sequence[Tensor], shape: torch.Size) -> float:
        count, length = shape
        divisor = loss_divisor(count, length, self.config.ptx_reduction)
        total = torch.zeros((), device=self.networks.policy.device)
        for part in parts:
            with autocast(self.runtime):
                loss = pretraining_loss(self.networks.policy, part, divisor=divisor)
            (self.config.gamma * loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total.item() * (divisor / loss_divisor(count, length, "token_mean"))  # reported per token

    def _value_step(self, minibatch: Minibatch, experience: Experience, table: Tensor, iteration: int) -> float | None:
        """The value model's whole step; its gradient norm before clipping."""
        model, descent, targets = self.networks.value_model, self.optimizers.value, experience.targets
        if model is None or descent is None or targets is None:
            return None

        def backward(cuts: Sequence[Microbatch]) -> None:
            for cut in cuts:
                with autocast(self.runtime):
                    values = model.values(cut.valued).float()
                part = (cut.rows, slice(values.shape[1]))
                loss = clipped_value_loss(
                    values,
                    targets.old[part],
                    targets.returns[part],
                    experience.rollout.placement.value_mask[part],
                    clip=self.config.value_clip,
                    token_count=minibatch.value_tokens,
                )
                loss.backward()  # type: ignore[no-untyped-call]
                write_rows(table, cut.rows, values)

        descent.add_up(minibatch.cuts, backward)
        return descent.step(iteration).grad_norm


def training_statistics(
    epochs: list[Forwarded], reports: list[MinibatchReport], experience: Experience, config: PPOConfig
) -> dict[str, float]:
    """Over every token of every inner epoch; gradient norms are means over optimizer steps."""
    rollout, count = experience.rollout, len(epochs)
    here().add(*(table for epoch in epochs for table in epoch))
    found = statistics.policy_statistics(
        torch.cat([epoch.logprobs for epoch in epochs]),
        rollout.logprobs.repeat(count, 1),
        experience.advantages.repeat(count, 1),
        rollout.placement.response_mask.repeat(count, 1),
        clip=config.policy_clip,
    )
    found["policy/learning_rate"] = reports[-1].policy_learning_rate
    found["policy/grad_norm"] = sum(report.policy_grad_norm for report in reports) / len(reports)
    if experience.targets is not None:
        found |= statistics.value_statistics(
            torch.cat([epoch.values for epoch in epochs]),
            experience.targets.old.repeat(count, 1),
            experience.targets.returns.repeat(count, 1),
            rollout.placement.value_mask.repeat(count, 1),
            clip=config.value_clip,
        )
        norms = [report.value_grad_norm for report in reports if report.value_grad_norm is not None]
        found["value/grad_norm"] = sum(norms) / len(norms)
    return found | statistics.ptx_statistics(
        [report.ptx_loss for report in reports if report.ptx_loss is not None],
        [report.gradients for report in reports if report.gradients is not None],
    )
