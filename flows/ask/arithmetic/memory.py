"""Bytes that training needs, as this code holds them: fp32 weights whatever the precision (frozen ones: that of
``runtime.frozen_precision``, or 4 bits beside an adapter), everything on one device, or this rank's part of it
(``runtime.shard``).

What stays (weights, gradients, optimizer, average) is exact. What comes and goes (activations, cache, logits) is an
estimate: attention kernels and activation functions differ in what they keep.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flows.ask.arithmetic.shapes import Shape, Shapes, reward_folders
from flows.config import RLHFConfig
from flows.roads import GROUPED
from tasks.engine.config import AdapterConfig
from tasks.language.sizes import FOUR_BIT_BYTES, LOGITS_PER_CHUNK, in_four_bits
from tasks.ppo.config import PPOConfig

FP32, BF16 = 4, 2
GIB, MIB = 2**30, 2**20
LOGIT_COPIES = 3
"""Logits, their log-softmax, and the gradient of one of them."""
HEAP = 1.6
"""Of a processor's memory, what activations take for each byte in use: pages that come back in pieces stay with the process.
Measured with glibc (``python -m tests.benchmarks.memory``) where a step takes several passes: what is kept, such as gradients,
lies between the pieces of the pass before, and the next one finds no room in one piece. PPO without pretraining gradients
showed none where a minibatch was one pass."""
MAPPED = 32 * MIB
"""A block from this size on is the system's own and goes back to it whole: glibc's largest threshold."""
DRAWN = 24
"""Bytes for each entry of the vocabulary while a token is drawn: logits, probabilities and their fp64 sums."""
COMPARED_GRADIENTS = 3
"""Copies that the statistics of PPO-ptx make: the policy's gradient, what the pretraining loss added, their product."""


class NetworkMemory(NamedTuple):
    """What stays in memory for one network, in bytes."""

    name: str
    parameters: int
    """Of its own: with an adapter, the weights beside it are another network's."""
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


def network_memory(
    name: str, parameters: int, *, trained: bool, averaged: bool = False, each: int = FP32
) -> NetworkMemory:
    """Adam keeps two moments; the averaged weights are fp32; ``each`` is what one weight takes."""
    one = each * parameters
    return NetworkMemory(name, parameters, one, one * trained, 2 * one * trained, one * averaged)


def trained_network(name: str, parameters: int, adapter: int | None, frozen: int) -> int:
    """What stays in memory of one network that is trained alone: all of it, or its adapter beside ``frozen`` bytes."""
    if adapter is None:
        return network_memory(name, parameters, trained=True).total
    return network_memory(name, adapter, trained=True).total + frozen


def base_bytes(shape: Shape, parameters: int, adapter: AdapterConfig | None, each: int) -> int:
    """Of weights that are not trained: ``each``, and in 4 bits what an adapter has beside it so."""
    rounded = sum(layer.fan_in * layer.fan_out for layer in shape.linear) if in_four_bits(adapter) else 0
    return each * (parameters - rounded) + int(FOUR_BIT_BYTES * rounded)


def merging_bytes(shape: Shape, adapter: AdapterConfig | None) -> int:
    """A copy of the weights in full, on the device unless they are in 4 bits there."""
    return 0 if adapter is None or in_four_bits(adapter) else FP32 * shape.parameters


def ppo_networks(config: RLHFConfig, shapes: Shapes, ppo: PPOConfig | None = None) -> list[NetworkMemory]:
    """The networks of PPO, and the second reward model where it watches the rollouts; ``ppo`` is the pipeline's own if None."""
    ppo = ppo or config.ppo
    policy, judge = shapes.policy.parameters, shapes.judge.scalar_parameters
    scored = config.ppo.rewards.own is not None
    critic, adapter, each = shapes.judge if scored else shapes.policy, config.ppo.adapter, frozen_bytes(config)
    own, valued = policy, critic.scalar_parameters
    if adapter is not None:
        own, valued = shapes.policy.adapter_parameters(adapter), critic.adapter_parameters(adapter) + critic.hidden + 1
    networks = [
        network_memory("policy", own, trained=True, averaged=True),
        NetworkMemory("reference", policy, base_bytes(shapes.policy, policy, adapter, each), 0, 0, 0),
    ]
    if scored:
        shared = base_bytes(shapes.judge, judge, adapter, each)  # with the value model, where there is an adapter
        networks.append(NetworkMemory("reward model", judge, shared, 0, 0, 0))
        networks += [network_memory("reward model", judge, trained=False, each=each)] * (config.reward_ensemble - 1)
    networks += [network_memory(name, weights, trained=False) for name, weights in reward_folders(config).items()]
    if ppo.reads_values:
        networks.append(network_memory("value model", valued, trained=True))
        if adapter is not None and not scored:  # it has no reward model to share with
            trunk = base_bytes(critic, critic.trunk_parameters, adapter, each)
            networks.append(NetworkMemory("its trunk", critic.trunk_parameters, trunk, 0, 0, 0))
    if config.independent_reward_model != "none" and ppo.sentinel.every:
        networks.append(network_memory("second RM", judge, trained=False, each=each))
    return networks


def gradients_at_once(networks: Sequence[NetworkMemory]) -> int:
    """Of the networks of PPO: the policy takes its step before the value model's backward pass begins."""
    return max(network.gradients for network in networks)


def state_bytes(networks: Sequence[NetworkMemory]) -> int:
    """What stays of the networks of PPO, with the gradients that are there at once."""
    return sum(network.total - network.gradients for network in networks) + gradients_at_once(networks)


def frozen_bytes(config: RLHFConfig) -> int:
    """Of one weight that is not trained."""
    return BF16 if config.runtime.frozen_precision == "bf16" else FP32


def stage_memory(
    config: RLHFConfig, shapes: Shapes, precision: str, completions: int | None = None
) -> list[StageMemory]:
    """The peaks of fine-tuning, reward-model training, rivals where they are asked for, measuring, and PPO.

    ``completions`` are the most that the given rankings have of a prompt; None takes ``completions_max``.
    """
    policy, judge = shapes
    ranked_together = config.comparisons.completions_max if config.comparisons.samples else completions
    ranked_together = ranked_together or config.comparisons.completions_max
    heap = HEAP if config.runtime.device == "cpu" else 1.0
    budget = config.runtime.tokens_per_microbatch
    sft, ranked = config.sft, config.reward_model
    each, recompute = frozen_bytes(config), config.runtime.gradient_checkpointing
    merged = merging_bytes(policy, sft.adapter)  # nothing else comes and goes then
    beside = base_bytes(policy, policy.parameters, sft.adapter, each)
    fine_tuned = trained_network("policy", policy.parameters, adapter_size(policy, sft.adapter), beside)
    head = judge.hidden + 1
    thin = adapter_size(judge, ranked.adapter)
    beside = base_bytes(judge, judge.scalar_parameters, ranked.adapter, each)
    scored = trained_network("reward model", judge.scalar_parameters, None if thin is None else thin + head, beside)
    # A row longer than the budget makes a micro-batch of its own; a prompt's completions always share one.
    row = max(budget, sft.prompt_tokens + sft.response_tokens)
    group = max(budget, ranked_together * (ranked.prompt_tokens + ranked.response_tokens))
    step = training_bytes(policy, row, precision, sft.adapter, recompute, heap) + logit_bytes(policy, row, heap)
    learning = max(step, merged)
    scoring = training_bytes(judge, group, precision, ranked.adapter, recompute, heap)
    stages = [
        StageMemory("sft", precision, fine_tuned, learning, ""),
        StageMemory("reward_model", precision, scored, max(scoring, merging_bytes(judge, ranked.adapter)), ""),
    ]
    for name, knobs in config.preference_runs.items():
        # Policy and reference; like the reward model it reads a prompt's completions together.
        thin = adapter_size(policy, knobs.adapter)
        beside = base_bytes(policy, policy.parameters, knobs.adapter, each)
        both = trained_network("policy", policy.parameters, thin, beside)
        if thin is None:  # else the reference is what the adapter is beside
            both += network_memory("reference", policy.parameters, trained=False, each=each).total
        ranked_tokens = knobs.prompt_tokens + knobs.response_tokens
        read = max(budget, ranked_together * ranked_tokens)
        working = training_bytes(policy, read, precision, knobs.adapter, recompute, heap)
        working += logit_bytes(policy, read, heap)
        stages.append(StageMemory(name, precision, both, working, ""))
    stages += [StageMemory(name, precision, fine_tuned, learning, "") for name in config.sampling_runs]
    main = next(iter(config.ppo_runs))
    runs = {name: knobs for name, knobs in config.ppo_runs.items() if name in (main, *GROUPED)}
    if config.runtime.shard == "full":
        stages = [_divided(stage, judge if stage.stage == "reward_model" else policy, config) for stage in stages]
    stages.append(_measuring_memory(config, shapes, precision))
    return stages + [
        _ppo_memory("ppo" if name == main else name, config, knobs, shapes, precision) for name, knobs in runs.items()
    ]


def _divided(stage: StageMemory, shape: Shape, config: RLHFConfig) -> StageMemory:
    """The same on one of the ranks that divide its networks; at the end each puts the trained one together."""
    training, whole = stage.working + gathered_bytes(shape), FP32 * shape.parameters
    largest = "the whole network" if whole > training else stage.largest
    return stage._replace(
        state=-(-stage.state // config.runtime.processes), working=max(training, whole), largest=largest
    )


def _scoring_bytes(config: RLHFConfig, ppo: PPOConfig, shapes: Shapes, precision: str) -> int:
    """Copies in bf16 that last while an iteration is scored: of the reference's and the reward model's layers, where those
    are in fp32 and whole, and of the value model's trained weights."""
    scored = [shapes.policy, *([shapes.judge] if config.ppo.rewards.own is not None else [])]
    in_full = frozen_bytes(config) == FP32 and not in_four_bits(ppo.adapter) and config.runtime.shard != "full"
    layers = sum(layer.fan_in * layer.fan_out for shape in scored for layer in shape.linear)
    rounded = BF16 * layers if precision == "bf16" and in_full else 0
    return rounded + (trained_copies(shapes.judge, precision, ppo.adapter) if ppo.reads_values else 0)


def gathered_bytes(shape: Shape) -> int:
    """Of a divided network in a training pass: weights and gradients of one layer, and of what lies outside the layers."""
    layer = sum(linear.fan_in * linear.fan_out for linear in shape.linear) // shape.layers
    return 2 * FP32 * (shape.parameters - (shape.layers - 1) * layer)


def _ppo_memory(name: str, config: RLHFConfig, ppo: PPOConfig, shapes: Shapes, precision: str) -> StageMemory:
    policy, judge = shapes
    budget, recompute = config.runtime.tokens_per_microbatch, config.runtime.gradient_checkpointing
    episode = max(budget, ppo.prompt_tokens + ppo.response_tokens, ppo.ptx_row_tokens if ppo.gamma > 0 else 0)
    networks, divided = ppo_networks(config, shapes, ppo), config.runtime.shard == "full"
    ranks = config.runtime.processes if divided else 1
    own, valued = (sum(n.gradients for n in networks if n.name == name) // ranks for name in ("policy", "value model"))
    kept_apart = own if ppo.gamma > 0 else 0  # the policy's gradient, while the pretraining loss goes backward
    sampled = config.runtime.generation_batch * (ppo.prompt_tokens + ppo.response_tokens)
    of_rank = ppo.minibatch_size * (ppo.prompt_tokens + ppo.response_tokens) / config.runtime.processes
    several = ppo.gamma > 0 or of_rank > budget
    heap = HEAP if several and config.runtime.device == "cpu" else 1.0
    moments = {
        "sampling": cache_bytes(policy, sampled, precision, ppo.adapter),
        "scoring": _scoring_bytes(config, ppo, shapes, precision) + logit_bytes(policy, episode, heap),
        "policy update": own
        + kept_apart
        + training_bytes(policy, episode, precision, ppo.adapter, recompute, heap)
        + logit_bytes(policy, episode, heap),
        "value update": valued + training_bytes(judge, episode, precision, ppo.adapter, recompute, heap)
        if ppo.reads_values
        else 0,
        "gradient statistics": own + COMPARED_GRADIENTS * kept_apart,
        "merging the adapter": merging_bytes(policy, ppo.adapter),
    }
    if in_four_bits(ppo.adapter) and config.ppo.rewards.own is not None:  # read in full, then rounded
        moments["reading the reward model"] = FP32 * judge.scalar_parameters
    state, at_once = state_bytes(networks), max(own, valued)
    if divided:
        # Further reward models of an ensemble and the one that only watches are whole on each rank.
        alone = [network for network in networks if network.name in ("second RM", *reward_folders(config))]
        alone += [network for network in networks if network.name == "reward model"][1:]
        apart = sum(network.total for network in alone)
        state = apart - (apart - state) // ranks
        moments["sampling"] += FP32 * policy.parameters  # the policy is put together for it
        moments["policy update"] += gathered_bytes(policy)
        moments["value update"] += gathered_bytes(judge) if ppo.reads_values else 0
    largest = max(moments, key=lambda moment: moments[moment])
    # What stays has the larger of the two gradients in it; each moment was counted with its own.
    return StageMemory(name, precision, state, moments[largest] - at_once, largest)


def _measuring_memory(config: RLHFConfig, shapes: Shapes, precision: str) -> StageMemory:
    """Of the SFT policy, which answers most: it and what it samples, or it and one network beside it at a time."""
    policy, judge = shapes
    asked, runtime = config.measured, config.runtime
    rows = min(
        runtime.generation_batch,
        max(asked.test_prompts, asked.best_of_n_prompts * max(asked.best_of_n, default=0)),
    )
    each = BF16 if precision == "bf16" else FP32
    linear = sum(layer.fan_in * layer.fan_out for layer in policy.linear)
    copies = (precision == "bf16") + (runtime.device == "cpu")  # rounded once; turned, as a processor multiplies faster
    cache = 2 * each * rows * (asked.prompt_tokens + asked.response_tokens) * policy.layers * policy.key_value_width
    one_layer = 9 * policy.hidden + policy.mlp_kept * policy.mlp_width
    prompts = FP32 * rows * asked.prompt_tokens // 2 * one_layer  # all read at once, half of the longest on average
    drawing = DRAWN * rows * policy.vocabulary
    moments = {
        "sampling": copies * each * linear + cache + max(prompts, drawing),
        "the reference's log-probabilities": FP32 * policy.parameters
        + logit_bytes(policy, runtime.tokens_per_microbatch),
        "a reward model": FP32 * judge.scalar_parameters,
    }
    together = (
        0 if asked.rewards is None or asked.rewards.own is None else config.reward_ensemble
    )  # read from the start
    given = 0 if asked.rewards is None else sum(reward_folders(config).values())
    state = FP32 * (policy.parameters + together * judge.scalar_parameters + given)
    largest = max(moments, key=lambda moment: moments[moment])
    return StageMemory("evaluation", precision, state, moments[largest], largest)


def training_bytes(
    shape: Shape,
    tokens: int,
    precision: str,
    adapter: AdapterConfig | None = None,
    recompute: bool = False,
    heap: float = 1.0,
) -> int:
    """What a forward pass over ``tokens`` keeps for the backward pass, and autocast's copies of the trained weights.

    Per layer and token 9 hidden vectors (both norms' inputs and outputs, queries, keys, values, attention's output, the
    stream) and the MLP's inner ones; with an adapter, what lies between its two matrices. Attention weights are not kept.
    Layers that are computed again keep their input, and one of them at a time the rest.
    """
    each = BF16 if precision == "bf16" else FP32
    thin = 0 if adapter is None else adapter.rank * len(shape.adapted(adapter)) // shape.layers
    layer = 9 * shape.hidden + shape.mlp_kept * shape.mlp_width + thin
    kept = shape.layers * shape.hidden + layer if recompute else shape.layers * layer
    return int(heap * tokens * kept * each) + trained_copies(shape, precision, adapter)


def adapter_size(shape: Shape, adapter: AdapterConfig | None) -> int | None:
    """Parameters of an adapter, if there is one."""
    return None if adapter is None else shape.adapter_parameters(adapter)


def logit_bytes(shape: Shape, tokens: int, heap: float = 1.0) -> int:
    """Logits are made piece by piece."""
    piece = FP32 * min(tokens * shape.vocabulary, LOGITS_PER_CHUNK)
    return int(LOGIT_COPIES * piece * (heap if piece < MAPPED else 1.0))


def cache_bytes(shape: Shape, tokens: int, precision: str, adapter: AdapterConfig | None = None) -> int:
    """Keys and values of every layer; under autocast in bf16, but for keys that rotary positions turned, and the copies
    of the trained weights that autocast keeps.
    """
    keys = FP32 if precision == "fp32" or shape.rotary else BF16
    values = BF16 if precision == "bf16" else FP32
    copies = trained_copies(shape, precision, adapter)
    return tokens * shape.layers * (keys + values) * shape.key_value_width + copies


def trained_copies(shape: Shape, precision: str, adapter: AdapterConfig | None) -> int:
    """What autocast keeps of weights that require gradients; frozen ones it copies and forgets, one at a time."""
    trained = shape.parameters if adapter is None else shape.adapter_parameters(adapter)
    return BF16 * trained if precision == "bf16" else 0
