"""What each stage does, in tokens of the policy's size: read forward, trained on, sampled; and its optimizer steps."""

from typing import NamedTuple

from flows.ask.arithmetic.counts import Counts, fine_tuning, optimisation, preference, ranking
from flows.ask.arithmetic.shapes import Shapes
from flows.ask.timing.rates import Rates
from flows.ask.timing.tokens import Lengths
from flows.config import RLHFConfig
from tasks.dpo.config import DPOConfig
from tasks.ppo.config import PPOConfig
from tasks.sft.config import SFTConfig

START = 2.0
"""Seconds of any stage that no token takes: its process, reading and writing weights, its figures. Ours, of a small model."""
COPY = 4e-9
"""Seconds a parameter for reading a model and writing it; ours, of a local disk."""
DECODINGS = 2
"""Every policy is sampled and decoded greedily."""
BENCHMARK_TOKENS = 120
"""Of one item with its choices; ours."""


class Work(NamedTuple):
    """Of one stage."""

    read: float = 0.0
    trained: float = 0.0
    sampled: float = 0.0
    steps: float = 0.0
    """Optimizer steps of one network of the policy's size."""
    models: int = 2
    """Models that are read or written."""

    def seconds(self, rates: Rates, parameters: int) -> float:
        """On this machine."""
        tokens = self.read * rates.read + self.trained * rates.train + self.sampled * rates.sample
        return tokens + parameters * (self.steps * rates.update + self.models * COPY) + START


def work_of(config: RLHFConfig, rows: Counts, lengths: Lengths, shapes: Shapes) -> dict[str, Work]:
    """Stage -> work, named as ``Plan`` reads it. Others take ``START`` alone; what nobody can count is left out."""
    judge = shapes.judge.scalar_parameters / shapes.policy.parameters
    pretrain = config.pretrain
    found = {
        "pretrain": Work(trained=pretrain.steps * pretrain.batch_rows * pretrain.row_tokens, steps=pretrain.steps),
        "evaluation-": _evaluation(config, lengths, judge),
    }
    if rows.demonstrations:
        for name, knobs in (("sft", config.sft), ("ppo_init", config.ppo_init)):
            found[name] = _fine_tuning(knobs, rows.demonstrations.number, lengths)
    if rows.comparisons:
        count = rows.comparisons.number
        tokens = count * lengths.completions * lengths.ranked
        if config.comparisons.source == "sample_and_label":
            written = count * lengths.completions * lengths.response
            found["comparisons"] = Work(read=count * lengths.completions * lengths.prompt, sampled=written)
        ranked, epochs = ranking(config, count), config.reward_model.epochs
        found["reward_model"] = Work(judge * tokens * 0.2, judge * tokens * epochs, 0.0, judge * ranked.steps)
        found |= {
            name: _rival(rival, preference(rival, count), tokens) for name, rival in config.preference_runs.items()
        }
    if config.sampling_runs and rows.rl_prompts:
        found |= _rejection_sampling(config, rows.rl_prompts.number, lengths, judge)
    return found | {name: _ppo(config, ppo, lengths, judge) for name, ppo in config.ppo_runs.items()}


def _fine_tuning(knobs: SFTConfig, rows: int, lengths: Lengths) -> Work:
    counted = fine_tuning(knobs, rows)
    tokens = counted.demonstrations * (lengths.prompt + lengths.response) + counted.pretraining_rows * knobs.row_tokens
    return Work(0.1 * tokens, tokens, 0.0, counted.steps)


def _rival(knobs: DPOConfig, steps: int, tokens: float) -> Work:
    return Work(read=tokens, trained=tokens * knobs.epochs, steps=steps, models=3)


def _rejection_sampling(config: RLHFConfig, rows: int, lengths: Lengths, judge: float) -> dict[str, Work]:
    """Several responses to each prompt, each scored once; then fine-tuning on one of them."""
    knobs = config.rejection_sampling
    prompts = min(rows, knobs.max_prompts or rows)
    drawn = prompts * knobs.samples_per_prompt
    read = drawn * (lengths.asked + judge * (lengths.asked + lengths.response))
    learning = _fine_tuning(knobs.fine_tuning, prompts, lengths)
    samples = Work(read=read, sampled=drawn * lengths.response)
    return {"rejection_sampling-samples": samples} | dict.fromkeys(config.sampling_runs, learning)


def _ppo(config: RLHFConfig, ppo: PPOConfig, lengths: Lengths, judge: float) -> Work:
    """Sampling; scoring by policy, reference, reward model and value model; training of policy and value model."""
    tokens = ppo.episodes * (lengths.asked + lengths.response)
    policies = 1 + (ppo.old_logprobs == "recomputed")
    watched = config.independent_reward_model != "none" and ppo.sentinel.every > 0
    judges = 1 + ppo.reads_values + (watched / ppo.sentinel.every if watched else 0)
    trained = ppo.inner_epochs * tokens * (1 + judge * ppo.reads_values)
    steps = optimisation(config).optimizer_steps
    pretraining = steps * ppo.ptx_rows_per_minibatch * ppo.ptx_row_tokens if ppo.gamma > 0 else 0
    return Work(
        read=ppo.episodes * lengths.asked + tokens * (policies + judge * judges),
        trained=trained + pretraining,
        sampled=ppo.episodes * lengths.response,
        steps=steps * (1.3 + judge * ppo.reads_values),  # 0.3 for the average
        models=5,
    )


def _evaluation(config: RLHFConfig, lengths: Lengths, judge: float) -> Work:
    """One policy: its responses, twice, and the best of n; who judges them; benchmarks and text."""
    knobs = config.evaluation
    prompts = knobs.test_prompts if lengths.tested is None else min(knobs.test_prompts, lengths.tested)
    best = max(knobs.best_of_n, default=0) * min(prompts, knobs.best_of_n_prompts)
    texts = DECODINGS * prompts + best
    judges = 1 + (config.independent_reward_model != "none")
    read = texts * lengths.asked + texts * judge * judges * (lengths.asked + lengths.response)
    world = config.data_prep.sandbox
    items = 6 * world.benchmark_items_per_task if world else 0
    read += items * BENCHMARK_TOKENS + knobs.perplexity_documents * lengths.ranked
    return Work(read, 0.0, texts * lengths.response, models=3)
