"""Bytes that training needs, as this code holds them: fp32 weights whatever the precision, everything on one device.

What stays (weights, gradients, optimizer, average) is exact. What comes and goes (activations, cache, logits) is an
estimate: attention kernels and activation functions differ in what they keep.
"""

from typing import NamedTuple

from flows.ask.arithmetic.shapes import Shape, Shapes
from flows.config import RLHFConfig
from tasks.language.logprobs import LOGITS_PER_CHUNK

FP32, BF16 = 4, 2
GIB, MIB = 2**30, 2**20
LOGIT_COPIES = 3
"""Logits, their log-softmax, and the gradient of one of them."""
HEAP = 1.6
"""Of a processor's memory, what activations take for each byte in use: pages that come back in pieces stay with the process.
Measured with glibc on fine-tuning, reward model and DPO (``python -m tests.benchmarks.memory``);
PPO's update showed none."""
COMPARED_GRADIENTS = 3
"""Copies that the statistics of PPO-ptx make: the policy's gradient, what the pretraining loss added, their product."""


class NetworkMemory(NamedTuple):
    """What stays in memory for one network, in bytes."""

    name: str
    parameters: int
    weights: int
    gradients: int
    adam: int
    average: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.adam + self.average


class StageMemory(NamedTuple):
    """The peak of one stage at one precision, in bytes."""

    stage: str
    precision: str
    state: int
    """What stays."""
    working: int
    """The largest of what comes and goes."""
    largest: str
    """What that is."""

    @property
    def peak(self) -> int:
        """Both together."""
        return self.state + self.working


def network_memory(name: str, parameters: int, *, trained: bool, averaged: bool = False) -> NetworkMemory:
    """Adam keeps two moments; the averaged weights are fp32."""
    one = FP32 * parameters
    return NetworkMemory(name, parameters, one, one * trained, 2 * one * trained, one * averaged)


def ppo_networks(config: RLHFConfig, shapes: Shapes) -> list[NetworkMemory]:
    """The networks of PPO, and the second reward model where it watches the rollouts."""
    policy, judge = shapes.policy.parameters, shapes.judge.scalar_parameters
    networks = [
        network_memory("policy", policy, trained=True, averaged=True),
        network_memory("reference", policy, trained=False),
    ]
    own = config.ppo.rewards.own is not None
    if own:
        networks += [network_memory("reward model", judge, trained=False)] * config.reward_ensemble
    if config.ppo.reads_values:
        networks.append(network_memory("value model", judge if own else shapes.policy.scalar_parameters, trained=True))
    if config.independent_reward_model != "none" and config.ppo.sentinel.every:
        networks.append(network_memory("second RM", judge, trained=False))
    return networks


def stage_memory(config: RLHFConfig, shapes: Shapes, precision: str) -> list[StageMemory]:
    """The peaks of fine-tuning, reward-model training, rivals where they are asked for, and PPO."""
    policy, judge = shapes
    heap = HEAP if config.runtime.device == "cpu" else 1.0
    budget = config.runtime.tokens_per_microbatch
    sft, ranked, ppo = config.sft, config.reward_model, config.ppo
    fine_tuned = network_memory("policy", policy.parameters, trained=True).total
    scored = network_memory("reward model", judge.scalar_parameters, trained=True).total
    # A row longer than the budget makes a micro-batch of its own; a prompt's completions always share one.
    row = max(budget, sft.prompt_tokens + sft.response_tokens)
    group = max(budget, config.comparisons.completions_max * (ranked.prompt_tokens + ranked.response_tokens))
    episode = max(budget, ppo.prompt_tokens + ppo.response_tokens, ppo.ptx_row_tokens if ppo.gamma > 0 else 0)
    one_gradient = FP32 * policy.parameters if ppo.gamma > 0 else 0
    sampled = config.runtime.generation_batch * (ppo.prompt_tokens + ppo.response_tokens)
    # The policy's own gradient is kept apart while the pretraining loss goes backward.
    update = training_bytes(policy, episode, precision) + logit_bytes(policy, episode) + one_gradient
    moments = {
        "sampling": cache_bytes(policy, sampled, precision),
        "policy update": update,
        "value update": training_bytes(judge, episode, precision) if ppo.reads_values else 0,
        "gradient statistics": COMPARED_GRADIENTS * one_gradient,
    }
    largest = max(moments, key=lambda name: moments[name])
    state = sum(network.total for network in ppo_networks(config, shapes))
    stages = [
        StageMemory(
            "sft", precision, fine_tuned, training_bytes(policy, row, precision, heap) + logit_bytes(policy, row), ""
        ),
        StageMemory("reward_model", precision, scored, training_bytes(judge, group, precision, heap), ""),
        StageMemory("ppo", precision, state, moments[largest], largest),
    ]
    for name, knobs in config.rivals.items():
        # Policy and reference; like the reward model it reads a prompt's completions together.
        both = fine_tuned + network_memory("reference", policy.parameters, trained=False).total
        ranked_tokens = knobs.prompt_tokens + knobs.response_tokens
        read = max(budget, config.comparisons.completions_max * ranked_tokens)
        working = training_bytes(policy, read, precision, heap) + logit_bytes(policy, read)
        stages.insert(2, StageMemory(name, precision, both, working, ""))
    return stages


def training_bytes(shape: Shape, tokens: int, precision: str, heap: float = 1.0) -> int:
    """What a forward pass over ``tokens`` keeps for the backward pass, and autocast's copies of the weights.

    Per layer and token 9 hidden vectors (both norms' inputs and outputs, queries, keys, values, attention's output, the
    stream) and the MLP's inner ones. Attention weights are not kept.
    """
    each = BF16 if precision == "bf16" else FP32
    copies = BF16 * shape.parameters if precision == "bf16" else 0
    kept = tokens * shape.layers * (9 * shape.hidden + shape.mlp_kept * shape.mlp_width) * each
    return int(heap * kept) + copies


def logit_bytes(shape: Shape, tokens: int) -> int:
    """Logits are made piece by piece."""
    return LOGIT_COPIES * FP32 * min(tokens * shape.vocabulary, LOGITS_PER_CHUNK)


def cache_bytes(shape: Shape, tokens: int, precision: str) -> int:
    """Keys and values of every layer; under autocast in bf16, but for keys that rotary positions turned, and the copies
    of the weights that autocast keeps.
    """
    keys = FP32 if precision == "fp32" or shape.rotary else BF16
    values, copies = (BF16, BF16 * shape.parameters) if precision == "bf16" else (FP32, 0)
    return tokens * shape.layers * (keys + values) * shape.key_value_width + copies
