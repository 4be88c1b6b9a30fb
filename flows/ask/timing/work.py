"""What each stage does, in tokens of the policy's size: read forward, trained on, sampled; and its optimizer steps."""

from typing import NamedTuple

from flows.ask.arithmetic.counts import Counts, fine_tuning, optimisation, preference, ranking
from flows.ask.arithmetic.shapes import Shape, Shapes
from flows.ask.timing.rates import Rates
from flows.ask.timing.tokens import Lengths
from flows.config import RLHFConfig
from tasks.dpo.config import DPOConfig
from tasks.engine.config import AdapterConfig
from tasks.ppo.config import PPOConfig
from tasks.sft.config import SFTConfig

START = 2.0
"""Seconds of any stage that no token takes: its process, reading and writing weights, its figures. Ours, of a small model."""
RANKS = 6.0
"""Seconds until the ranks of a divided stage have started; ours, most of it imports."""
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
    adapted: bool = False
    """Whether an adapter is what is trained, and sampled with."""

    def seconds(self, rates: Rates, parameters: int, ranks: int = 1) -> float:
        """On this machine; ranks divide the tokens, and each takes every step."""
        train, sample = (rates.adapted_train, rates.adapted_sample) if self.adapted else (rates.train, rates.sample)
        tokens = (self.read * rates.read + self.trained * train + self.sampled * sample) / ranks
        start = START + (RANKS if ranks > 1 else 0.0)
        return tokens + parameters * (self.steps * rates.update + self.models * COPY) + start

    def times(self, count: float) -> "Work":
        """On so many times the rows."""
        read, trained, sampled, steps = (count * part for part in self[:4])
        return self._replace(read=read, trained=trained, sampled=sampled, steps=steps)


def work_of(config: RLHFConfig, rows: Counts, lengths: Lengths, shapes: Shapes) -> dict[str, Work]:
    """Stage -> work, of one round, named as ``Plan`` reads it. Others take ``START`` alone; what nobody can count is left out."""
    judge, pretrain = _judge(shapes), config.pretrain
    found = {
        "pretrain": Work(trained=pretrain.steps * pretrain.batch_rows * pretrain.row_tokens, steps=pretrain.steps),
        "evaluation-": _evaluation(config, lengths, judge),
    }
    if rows.demonstrations:
        for name, knobs in config.fine_tuning_runs.items():
            found[name] = _fine_tuning(knobs, rows.demonstrations.number, lengths.prompt + lengths.response, shapes)
    if rows.comparisons:
        count, ranked = rows.comparisons.number, lengths.ranked
        if config.comparisons.samples:
            ranked = lengths.prompt + lengths.written
            found |= _drawing(config, count, lengths, judge)
        tokens, model = count * lengths.completions * ranked, config.reward_model
        steps = judge * ranking(config, count).steps * _trained_share(shapes.judge, model.adapter)
        adapted = model.adapter is not None
        found["reward_model"] = Work(judge * tokens * 0.2, judge * tokens * model.epochs, 0.0, steps, adapted=adapted)
        found["reward_model_before"] = Work(read=judge * tokens)
        for name, rival in config.preference_runs.items():  # after the last round, on the rankings of all
            steps = preference(rival, count * config.rounds)
            found[name] = _rival(rival, steps, tokens * config.rounds, shapes.policy)
    if config.sampling_runs and rows.rl_prompts:
        found |= _rejection_sampling(config, rows.rl_prompts.number, lengths, shapes)
    return found | {name: _ppo(config, ppo, lengths, shapes) for name, ppo in config.ppo_runs.items()}


def _drawing(config: RLHFConfig, prompts: int, lengths: Lengths, judge: float) -> dict[str, Work]:
    """Responses to rank; where some are selected, later rounds draw more and have two reward models score them."""
    knobs, answer = config.comparisons, Work(read=lengths.prompt, sampled=lengths.written)
    first = "candidates" if config.comparisons_job(1).comparisons.sampled_apart else "comparisons"
    found = {first: answer.times(prompts * lengths.completions)}
    if knobs.selection == "adversarial":
        scored = answer._replace(read=answer.read + 2 * judge * (lengths.prompt + lengths.written))
        found |= {"candidates-": scored.times(prompts * knobs.selected_from), "comparisons-": Work()}
    return found


def _trained_share(shape: Shape, adapter: AdapterConfig | None) -> float:
    """Of a network's weights, what an optimizer step changes."""
    return 1.0 if adapter is None else shape.adapter_parameters(adapter) / shape.parameters


def _fine_tuning(knobs: SFTConfig, rows: int, row: float, shapes: Shapes) -> Work:
    counted = fine_tuning(knobs, rows)
    tokens = counted.demonstrations * row + counted.pretraining_rows * knobs.row_tokens
    steps = counted.steps * _trained_share(shapes.policy, knobs.adapter)
    return Work(0.1 * tokens, tokens, 0.0, steps, adapted=knobs.adapter is not None)


def _rival(knobs: DPOConfig, steps: int, tokens: float, shape: Shape) -> Work:
    share = _trained_share(shape, knobs.adapter)
    return Work(tokens, tokens * knobs.epochs, 0.0, steps * share, models=3, adapted=knobs.adapter is not None)


def _rejection_sampling(config: RLHFConfig, rows: int, lengths: Lengths, shapes: Shapes) -> dict[str, Work]:
    """Several responses to each prompt, each scored once; then fine-tuning on one of them."""
    knobs = config.rejection_sampling
    prompts = min(rows, knobs.max_prompts or rows)
    drawn, row, judge = prompts * knobs.samples_per_prompt, lengths.asked + lengths.written, _judge(shapes)
    read = drawn * (lengths.asked + judge * row)
    learning = _fine_tuning(knobs.fine_tuning, prompts, row, shapes)
    samples = Work(read=read, sampled=drawn * lengths.written)
    return {"rejection_sampling-samples": samples} | dict.fromkeys(config.sampling_runs, learning)


def _judge(shapes: Shapes) -> float:
    """Work of a reward model for each token, in that of the policy."""
    return shapes.judge.scalar_parameters / shapes.policy.parameters


def _ppo(config: RLHFConfig, ppo: PPOConfig, lengths: Lengths, shapes: Shapes) -> Work:
    """Sampling; scoring by policy, reference, reward model and value model; training of policy and value model."""
    tokens, judge = ppo.episodes * (lengths.asked + lengths.written), _judge(shapes)
    thin, thin_judge = (_trained_share(shape, ppo.adapter) for shape in shapes)
    policies = 1 + (ppo.old_logprobs == "recomputed")
    watched = config.independent_reward_model != "none" and ppo.sentinel.every > 0
    judges = 1 + ppo.reads_values + (watched / ppo.sentinel.every if watched else 0)
    trained = ppo.inner_epochs * tokens * (1 + judge * ppo.reads_values)
    steps = optimisation(config).optimizer_steps
    pretraining = steps * ppo.ptx_rows_per_minibatch * ppo.ptx_row_tokens if ppo.gamma > 0 else 0
    return Work(
        read=ppo.episodes * lengths.asked + tokens * (policies + judge * judges),
        trained=trained + pretraining,
        sampled=ppo.episodes * lengths.written,
        steps=steps * (1.3 * thin + judge * thin_judge * ppo.reads_values),  # 0.3 for the average
        models=5,
        adapted=ppo.adapter is not None,
    )


def _evaluation(config: RLHFConfig, lengths: Lengths, judge: float) -> Work:
    """One policy: its responses, twice, and the best of n; who judges them; benchmarks and text."""
    knobs = config.evaluation
    prompts = knobs.test_prompts if lengths.tested is None else min(knobs.test_prompts, lengths.tested)
    best = max(knobs.best_of_n, default=0) * min(prompts, knobs.best_of_n_prompts)
    texts = DECODINGS * prompts + best
    judges = 1 + (config.independent_reward_model != "none")
    read = texts * lengths.asked + texts * judge * judges * (lengths.asked + lengths.written)
    world = config.data_prep.sandbox
    items = 6 * world.benchmark_items_per_task if world else 0
    read += items * BENCHMARK_TOKENS + knobs.perplexity_documents * lengths.ranked
    return Work(read, 0.0, texts * lengths.written, models=3)
