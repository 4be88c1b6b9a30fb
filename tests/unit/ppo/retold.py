"""One iteration of PPO-ptx told again from the paper's formulas: one response and one token at a time, in Python numbers.

Nothing of ``tasks/ppo`` is used. The run lends its sampled tokens, its permutations and its pretraining rows.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.unit.ppo.tiny import EOS
from tests.unit.retold import DOUBLE, Gradients, Retold, RetoldAdam, drawn, norm, token_logprobs

Row = list[float]


@dataclass
class Episode:
    """A response and what is known of it before training."""

    prompt: list[int]
    response: list[int]
    old: Row
    reference: Row
    entropy: Row
    values: Row  # one a column that the value model is trained on; one a token without a value model
    raw: float
    score: float
    ended: bool
    rewards: Row = field(default_factory=list)
    advantages: Row = field(default_factory=list)
    returns: Row = field(default_factory=list)

    @property
    def kl(self) -> float:
        return sum(o - r for o, r in zip(self.old, self.reference, strict=True))


def mean(values: Row) -> float:
    return sum(values) / len(values)


def variance(values: Row, *, unbiased: bool = False) -> float:
    return sum((v - mean(values)) ** 2 for v in values) / (len(values) - unbiased)


class RetoldRun:
    """The networks, optimizers, average and beta of a run, moved by ``iterate``."""

    def __init__(self, networks: Any, knobs: dict[str, Any]) -> None:
        self.knobs = knobs
        self.policy, self.reference, self.judge = (Retold(network) for network in networks[:3])
        self.policy_adam = RetoldAdam(self.policy, knobs["policy_adam"])
        self.critic = None if networks[3] is None else Retold(networks[3])
        self.critic_adam = None if self.critic is None else RetoldAdam(self.critic, knobs["value_adam"])
        self.average = {name: w.detach().clone() for name, w in self.policy.weights.items()}
        self.beta, self.done = knobs["beta"], 0

    def iterate(
        self, pairs: list[tuple[list[int], list[int]]], orders: list[list[int]], rows: list[list[list[int]]]
    ) -> dict[str, float]:
        """Prompts with responses, a permutation an inner epoch, pretraining rows of every step -> the statistics."""
        knobs = self.knobs
        with torch.no_grad():
            episodes = [self._episode(prompt, response) for prompt, response in pairs]
        self._reward(episodes)
        self._estimate(episodes)
        told = self._told_of_rollout(episodes)
        told |= self._train(episodes, orders, rows)
        if knobs["ema_every"] == "iteration":
            self._average()
        if knobs["kl_controller"] == "adaptive":
            error = max(-0.2, min(0.2, told["objective/kl"] / knobs["kl_target"] - 1))
            self.beta *= 1 + error * len(pairs) / knobs["kl_horizon"]
        self.done += 1
        return told

    def _episode(self, prompt: list[int], response: list[int]) -> Episode:
        knobs, tau = self.knobs, self.knobs["temperature"]
        read = response[: response.index(EOS) + 1] if EOS in response else response
        ended, raw = EOS in response, float(self.judge.numbers(prompt + read)[-1])
        cut_off = knobs["missing_eos_score"]
        rules = {"replace": cut_off, "subtract": raw + cut_off, "minimum": min(raw, cut_off), "none": raw}
        tables = self.policy.logits(prompt + response)[len(prompt) - 1 : -1] / tau
        shares = torch.softmax(tables, dim=1)
        extra = knobs["score_position"] == "after_eos" and len(response) < knobs["response_tokens"]
        columns = len(response) + extra
        # the value of a column is that of the state before its token: after the last one, that of the whole response
        after = (
            [0.0] * columns
            if self.critic is None
            else self.critic.numbers(prompt + response)[len(prompt) - 1 :].tolist()
        )
        return Episode(
            prompt,
            response,
            old=drawn(tables, torch.tensor(response)).tolist(),
            reference=token_logprobs(self.reference, prompt, response, tau).tolist(),
            entropy=[-sum(p * math.log(p) for p in row) for row in shares.tolist()],
            values=after[:columns],
            raw=raw,
            score=raw if ended else rules[knobs["missing_eos"]],
            ended=ended,
        )

    def _reward(self, episodes: list[Episode]) -> None:
        knobs = self.knobs
        price = self.beta if knobs["kl_in"] == "reward" else 0.0
        for episode in episodes:
            row = [-price * (o - r) for o, r in zip(episode.old, episode.reference, strict=True)]
            row += [0.0] * (len(episode.values) - len(row))
            row[-1] += episode.score
            episode.rewards = row
        if knobs["whiten_rewards"]:
            everything = [r for episode in episodes for r in episode.rewards]
            middle, wide = mean(everything), self._deviation(everything)
            for episode in episodes:
                episode.rewards = [(r - middle) / wide + middle for r in episode.rewards]

    def _estimate(self, episodes: list[Episode]) -> None:
        knobs, size = self.knobs, self.knobs["responses_per_prompt"]
        for episode in episodes:
            values = [*episode.values, 0.0]
            errors = [r + knobs["discount"] * values[t + 1] - values[t] for t, r in enumerate(episode.rewards)]
            fades = knobs["discount"] * knobs["gae_lambda"]
            own = [sum(fades**k * e for k, e in enumerate(errors[t:])) for t in range(len(errors))]
            episode.returns = [a + v for a, v in zip(own, episode.values, strict=True)]
            episode.advantages = own[: len(episode.response)]
        if knobs["advantage_estimator"] != "gae":
            for start in range(0, len(episodes), size):
                group = episodes[start : start + size]
                assert all(episode.prompt == group[0].prompt for episode in group)
                totals = [sum(episode.rewards) for episode in group]
                for place, episode in enumerate(group):
                    others = mean(totals[:place] + totals[place + 1 :])
                    gain = totals[place] - others
                    if knobs["advantage_estimator"] == "group_normalised":
                        gain = (totals[place] - mean(totals)) / (math.sqrt(variance(totals, unbiased=True)) + 1e-4)
                    episode.advantages = [gain] * len(episode.response)
        if knobs["whiten_advantages"]:
            everything = [a for episode in episodes for a in episode.advantages]
            middle, wide = mean(everything), self._deviation(everything)
            for episode in episodes:
                episode.advantages = [(a - middle) / wide for a in episode.advantages]

    def _deviation(self, values: Row) -> float:
        return math.sqrt(variance(values, unbiased=self.knobs["whitening_variance"] == "unbiased") + 1e-8)

    def _train(self, episodes: list[Episode], orders: list[list[int]], rows: list[list[list[int]]]) -> dict[str, float]:
        knobs, size, seen = self.knobs, self.knobs["minibatch_size"], Seen()
        start, over = knobs["warmup_start"], knobs["warmup_iterations"]
        rate = knobs["policy_adam"]["learning_rate"] * min(1.0, start + (1 - start) * self.done / over if over else 1.0)
        minibatches = [order[first : first + size] for order in orders for first in range(0, len(order), size)]
        for number, chosen in enumerate(minibatches):
            part = [episodes[index] for index in chosen]
            gradients = self.policy.gradients(self._policy_loss(part, seen))
            if knobs["gamma"] > 0:
                gradients = self._with_pretraining(gradients, rows[number], seen)
            seen.policy_norms.append(self.policy_adam.step(gradients, rate))
            if self.critic is not None and self.critic_adam is not None:
                down = self.critic.gradients(self._value_loss(self.critic, part, seen))
                seen.value_norms.append(self.critic_adam.step(down, knobs["value_adam"]["learning_rate"]))
            if knobs["ema_every"] == "step":
                self._average()
        return {"policy/learning_rate": rate} | seen.told()

    def _policy_loss(self, part: list[Episode], seen: "Seen") -> Tensor:
        clip, terms = self.knobs["policy_clip"], []
        for episode in part:
            new = token_logprobs(self.policy, episode.prompt, episode.response, self.knobs["temperature"])
            ratios = torch.exp(new - torch.tensor(episode.old, dtype=DOUBLE))
            for ratio, number, advantage in zip(ratios, ratios.tolist(), episode.advantages, strict=True):
                # a good token gains nothing above 1 + clip, a bad one nothing below 1 - clip
                limit = 1 + clip if advantage > 0 else 1 - clip
                limited = advantage != 0 and (number > limit if advantage > 0 else number < limit)
                if not limited:
                    terms.append(-advantage * ratio)
                seen.policy_losses.append(-advantage * (limit if limited else number))
                seen.clipped.append(limited)
                seen.ratios.append(number)
            if self.knobs["kl_in"] == "loss":
                back = torch.tensor(episode.reference, dtype=DOUBLE) - new
                terms += list(self.beta * (torch.exp(back) - back - 1))
        return torch.stack(terms).sum() / sum(len(episode.response) for episode in part)

    def _value_loss(self, critic: Retold, part: list[Episode], seen: "Seen") -> Tensor:
        clip, terms = self.knobs["value_clip"], []
        for episode in part:
            new = critic.numbers(episode.prompt + episode.response)[len(episode.prompt) - 1 :][: len(episode.returns)]
            for value, number, old, wanted in zip(new, new.tolist(), episode.values, episode.returns, strict=True):
                free, held = (number - wanted) ** 2, (old + math.copysign(clip, number - old) - wanted) ** 2
                limited = abs(number - old) > clip and held > free
                if not limited:
                    terms.append(0.5 * (value - wanted) ** 2)
                seen.value_limited.append(limited)
                seen.errors.append(free)
                seen.value_losses.append(0.5 * (held if limited else free))
                seen.returns.append(wanted)
        return torch.stack(terms).sum() / sum(len(episode.returns) for episode in part)

    def _with_pretraining(self, gradients: Gradients, rows: list[list[int]], seen: "Seen") -> Gradients:
        total = -drawn(self.policy.logits(rows)[:, :-1], torch.tensor(rows)[:, 1:]).sum()
        targets = sum(len(row) - 1 for row in rows)
        divisor = targets if self.knobs["ptx_reduction"] == "token_mean" else len(rows)
        added = {name: self.knobs["gamma"] * g for name, g in self.policy.gradients(total / divisor).items()}
        dot = sum(float((gradients[name] * added[name]).sum()) for name in added)
        seen.ptx_losses.append(float(total.detach()) / targets)
        seen.ptx_norms.append(norm(added))
        seen.grad_ratios.append(norm(added) / norm(gradients))
        seen.cosines.append(dot / norm(added) / norm(gradients))
        return {name: gradients[name] + added[name] for name in added}

    def _average(self) -> None:
        decay = self.knobs["ema_decay"]
        for name, weight in self.policy.weights.items():
            self.average[name] = decay * self.average[name] + (1 - decay) * weight.detach()

    def _told_of_rollout(self, episodes: list[Episode]) -> dict[str, float]:
        gaps = [o - r for e in episodes for o, r in zip(e.old, e.reference, strict=True)]
        told = {
            "objective/kl": mean([e.kl for e in episodes]),
            "objective/kl_per_token": mean(gaps),
            "objective/kl_k2_per_token": mean([gap**2 / 2 for gap in gaps]),
            "objective/kl_k3_per_token": mean([math.exp(-gap) - 1 + gap for gap in gaps]),
            "objective/entropy": mean([-sum(e.old) for e in episodes]),
            "objective/score": mean([e.score for e in episodes]),
            "objective/score_std": math.sqrt(variance([e.score for e in episodes])),
            "objective/reward": mean([e.score - self.beta * e.kl for e in episodes]),
            "policy/entropy": mean([h for e in episodes for h in e.entropy]),
            "response/length": mean([float(len(e.response)) for e in episodes]),
            "response/eos_rate": mean([float(e.ended) for e in episodes]),
            "kl/beta": self.beta,
        }
        cut_off = [e.raw for e in episodes if not e.ended]
        return told | ({"response/score_without_eos": mean(cut_off)} if cut_off else {})


@dataclass
class Seen:
    """What an iteration's minibatches met, token by token and step by step."""

    policy_losses: Row = field(default_factory=list)
    clipped: list[bool] = field(default_factory=list)
    ratios: Row = field(default_factory=list)
    value_losses: Row = field(default_factory=list)
    value_limited: list[bool] = field(default_factory=list)
    errors: Row = field(default_factory=list)
    returns: Row = field(default_factory=list)
    policy_norms: Row = field(default_factory=list)
    value_norms: Row = field(default_factory=list)
    ptx_losses: Row = field(default_factory=list)
    ptx_norms: Row = field(default_factory=list)
    grad_ratios: Row = field(default_factory=list)
    cosines: Row = field(default_factory=list)

    def told(self) -> dict[str, float]:
        logs = [math.log(ratio) for ratio in self.ratios]
        told = {
            "policy/loss": mean(self.policy_losses),
            "policy/clip_fraction": mean([float(c) for c in self.clipped]),
            "policy/approx_kl": mean([x**2 / 2 for x in logs]),
            "policy/approx_kl_k3": mean([ratio - 1 - x for ratio, x in zip(self.ratios, logs, strict=True)]),
            "policy/grad_norm": mean(self.policy_norms),
            "ratio/mean": mean(self.ratios),
            "ratio/max": max(self.ratios),
            "ratio/var": variance(self.ratios),
        }
        if self.errors:
            told |= {
                "value/loss": mean(self.value_losses),
                "value/clip_fraction": mean([float(c) for c in self.value_limited]),
                "value/error": mean(self.errors),
                "value/explained_variance": 1 - mean(self.errors) / variance(self.returns),
                "value/grad_norm": mean(self.value_norms),
            }
        if self.ptx_losses:
            told |= {
                "ptx/loss": mean(self.ptx_losses),
                "ptx/grad_norm": mean(self.ptx_norms),
                "ptx/grad_ratio": mean(self.grad_ratios),
                "ptx/grad_cosine": mean(self.cosines),
            }
        return told
