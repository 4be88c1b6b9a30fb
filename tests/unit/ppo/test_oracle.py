"""One iteration of PPO-ptx told again, slowly: one response at a time, one token at a time, no padding, no batching.

Nothing of tasks/ppo is used but the run's sampled tokens and random choices; rewards, advantages, losses, gradients,
clipping, Adam, warm-up and the average of the weights are written out below from the paper's formulas.
"""

import copy
import math
from typing import Any

import pytest
import torch

from tests.unit.ppo import tiny

EOS = 1
TOLERANCE = 1e-5


def logprobs_of(model: Any, prompt: list[int], response: list[int], temperature: float) -> list[torch.Tensor]:
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0] / temperature
    return [torch.log_softmax(logits[len(prompt) - 1 + t], dim=0)[token] for t, token in enumerate(response)]


def outputs_of(model: Any, prompt: list[int], response: list[int]) -> list[torch.Tensor]:
    """The scalar head after every token of the sequence."""
    hidden = model.backbone(input_ids=torch.tensor([prompt + response])).last_hidden_state[0]
    return [(model.head.weight[0] * state).sum() + model.head.bias[0] - model.score_bias.view(()) for state in hidden]


class SlowAdam:
    """Adam and gradient clipping, parameter by parameter, from the textbook."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.count = settings, 0
        self.first: dict[str, torch.Tensor] = {}
        self.second: dict[str, torch.Tensor] = {}

    def step(self, model: torch.nn.Module, learning_rate: float) -> float:
        named = {name: p for name, p in model.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in named.values()))
        scale = min(1.0, self.settings["max_grad_norm"] / norm)
        self.count += 1
        b1, b2 = self.settings["beta1"], self.settings["beta2"]
        for name, p in named.items():
            g = p.grad * scale
            self.first[name] = b1 * self.first.get(name, torch.zeros_like(p)) + (1 - b1) * g
            self.second[name] = b2 * self.second.get(name, torch.zeros_like(p)) + (1 - b2) * g * g
            unbiased = self.first[name] / (1 - b1**self.count)
            spread = (self.second[name] / (1 - b2**self.count)).sqrt()
            with torch.no_grad():
                p -= learning_rate * unbiased / (spread + self.settings["epsilon"])
            p.grad = None
        return norm


def slow_advantages(rewards: list[float], values: list[float], discount: float, lam: float) -> list[float]:
    errors = [r + discount * (values[t + 1] if t + 1 < len(values) else 0.0) - values[t] for t, r in enumerate(rewards)]
    return [sum((discount * lam) ** k * e for k, e in enumerate(errors[t:])) for t in range(len(errors))]


def slow_policy_loss(ratio: torch.Tensor, advantage: float) -> tuple[torch.Tensor, bool]:
    """A good token gains up to a ratio of 1.02, a bad one down to 0.98; also whether that limit was passed."""
    if advantage > 0 and ratio.item() > 1.02:
        return torch.tensor(-advantage * 1.02), True
    if advantage < 0 and ratio.item() < 0.98:
        return torch.tensor(-advantage * 0.98), True
    return -advantage * ratio, False


def slow_value_loss(new: torch.Tensor, old: float, wanted: float) -> tuple[torch.Tensor, bool]:
    """Half the squared error; a step of more than 0.01 towards the return counts as one of 0.01."""
    moved = new.item() - old
    if abs(moved) > 0.01:
        limited = (old + math.copysign(0.01, moved) - wanted) ** 2
        if limited > (new.item() - wanted) ** 2:
            return torch.tensor(0.5 * limited), True
    return 0.5 * (new - wanted) ** 2, False


@pytest.mark.parametrize("whiten_rewards", [False, True])
@pytest.mark.point(32, 42, 43, 56)
def test_one_iteration_against_the_slow_oracle(whiten_rewards: bool) -> None:
    settings = tiny.settings(
        discount=0.98, temperature=0.8, beta=0.1, policy_clip=0.02, value_clip=0.01, whiten_rewards=whiten_rewards
    )
    # Adam moves a weight by learning_rate / epsilon times a rounding error where its gradient is about epsilon
    settings["policy_adam"] = {**settings["policy_adam"], "learning_rate": 0.02, "epsilon": 1e-4}
    settings["value_adam"] = {**settings["value_adam"], "learning_rate": 0.01, "epsilon": 1e-4}
    # an untied reference makes the KL matter from the start; small microbatches make reduction matter
    fast = tiny.learner(reference_seed=3, runtime_changes={"tokens_per_microbatch": 40}, **settings)
    policy, reference, reward_model, value_model = (copy.deepcopy(network) for network in fast.networks)
    choices, ptx = copy.deepcopy(fast.minibatching.get_state()), copy.deepcopy(fast.ptx_cursor)
    metrics = fast.step()
    assert fast.last_rollout is not None and fast.last_episodes is not None and ptx is not None
    pairs = list(zip(fast.last_episodes.prompts, fast.last_episodes.responses, strict=True))
    assert {len(response) for _, response in pairs} > {6}, "the test needs responses of several lengths"
    temperature = settings["temperature"]

    # Scores, rewards.
    scores, rewards, values, old, kls = [], [], [], [], []
    with torch.no_grad():
        for prompt, response in pairs:
            score = float(outputs_of(reward_model, prompt, response)[-1])
            scores.append(score if response[-1] == EOS else -1.0)
            old.append([float(x) for x in logprobs_of(policy, prompt, response, temperature)])
            ref = [float(x) for x in logprobs_of(reference, prompt, response, temperature)]
            kls.append([o - r for o, r in zip(old[-1], ref, strict=True)])
            row = [-0.1 * kl for kl in kls[-1]]
            row[-1] += scores[-1]
            rewards.append(row)
            values.append([float(x) for x in outputs_of(value_model, prompt, response)[len(prompt) - 1 : -1]])
    assert metrics["objective/kl"] == pytest.approx(sum(map(sum, kls)) / len(kls), abs=TOLERANCE)
    assert metrics["objective/score"] == pytest.approx(sum(scores) / len(scores), abs=TOLERANCE)
    total = sum(s - 0.1 * sum(kl) for s, kl in zip(scores, kls, strict=True)) / len(scores)
    assert metrics["objective/reward"] == pytest.approx(total, abs=TOLERANCE)
    if whiten_rewards:
        mean, spread = mean_and_spread(rewards)
        rewards = [[(r - mean) / spread + mean for r in row] for row in rewards]

    # Advantages, whitened over the whole iteration; returns from those before whitening.
    raw = [slow_advantages(r, v, 0.98, settings["gae_lambda"]) for r, v in zip(rewards, values, strict=True)]
    returns = [[a + v for a, v in zip(*rows, strict=True)] for rows in zip(raw, values, strict=True)]
    mean, spread = mean_and_spread(raw)
    advantages = [[(a - mean) / spread for a in row] for row in raw]

    # Two minibatches of eight, in one permutation.
    draws = torch.Generator()
    draws.set_state(choices)
    order = torch.randperm(16, generator=draws).tolist()
    policy_adam, value_adam = SlowAdam(settings["policy_adam"]), SlowAdam(settings["value_adam"])
    average = {name: p.detach().clone() for name, p in policy.named_parameters()}
    norms, policy_losses, value_losses, tokens, clipped_tokens, clipped_values = [], [], [], [], 0, 0
    for chosen in (order[:8], order[8:]):
        count = sum(len(pairs[row][1]) for row in chosen)
        policy_loss = value_loss = torch.zeros(())
        for row in chosen:
            prompt, response = pairs[row]
            new = logprobs_of(policy, prompt, response, temperature)
            new_values = outputs_of(value_model, prompt, response)[len(prompt) - 1 : -1]
            for t in range(len(response)):
                token_loss, clipped = slow_policy_loss(torch.exp(new[t] - old[row][t]), advantages[row][t])
                policy_loss, clipped_tokens = policy_loss + token_loss, clipped_tokens + clipped
                value_part, limited = slow_value_loss(new_values[t], values[row][t], returns[row][t])
                value_loss, clipped_values = value_loss + value_part, clipped_values + limited
        ptx_loss, targets = torch.zeros(()), 0
        for tokens_of_row in ptx.draw(16).tolist():
            log_softmax = torch.log_softmax(policy(input_ids=torch.tensor([tokens_of_row])).logits[0], dim=1)
            for t in range(len(tokens_of_row) - 1):
                ptx_loss, targets = ptx_loss - log_softmax[t, tokens_of_row[t + 1]], targets + 1
        (policy_loss / count + 2.0 * ptx_loss / targets).backward()
        (value_loss / count).backward()
        norms.append(policy_adam.step(policy, 0.1 * 0.02))
        value_adam.step(value_model, 0.01)
        policy_losses.append(policy_loss.item())
        value_losses.append(value_loss.item())
        tokens.append(count)
        for name, p in policy.named_parameters():
            average[name] = 0.992 * average[name] + 0.008 * p.detach()

    assert clipped_tokens > 0 and clipped_values > 0, "the test needs clipped tokens and values"
    assert metrics["policy/clip_fraction"] == pytest.approx(clipped_tokens / sum(tokens), abs=TOLERANCE)
    assert metrics["value/clip_fraction"] == pytest.approx(clipped_values / sum(tokens), abs=TOLERANCE)
    assert metrics["policy/loss"] == pytest.approx(sum(policy_losses) / sum(tokens), abs=TOLERANCE)
    assert metrics["value/loss"] == pytest.approx(sum(value_losses) / sum(tokens), abs=TOLERANCE)
    assert metrics["policy/grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-4)
    assert metrics["policy/learning_rate"] == pytest.approx(0.1 * 0.02)
    close_parameters(fast.networks.policy, dict(policy.named_parameters()))
    close_parameters(fast.networks.value_model, dict(value_model.named_parameters()))
    close_parameters(fast.final_policy(), average)


def mean_and_spread(rows: list[list[float]]) -> tuple[float, float]:
    everything = [x for row in rows for x in row]
    mean = sum(everything) / len(everything)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in everything) / len(everything) + 1e-8)


def close_parameters(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        difference = (parameter.detach() - expected[name].detach()).abs().max().item()
        assert difference < TOLERANCE, f"{name} differs by {difference:.1e}"
