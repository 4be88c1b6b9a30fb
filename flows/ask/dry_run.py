"""`python -m flows.rlhf experiment=instructgpt_1_3b --dry-run`: what a configuration will take, without taking it.

Every number follows from the configuration and from rows that are declared in ``dry_run`` or counted in the data, by
the functions that training itself uses; only times rest on a measurement, of a model with made-up weights. No weight is read.
"""

from typing import NamedTuple

from flows.ask.arithmetic.counts import Counts, Rows, fine_tuning, optimisation, preference, ranking, training_rows
from flows.ask.arithmetic.memory import (
    GIB,
    MIB,
    NetworkMemory,
    StageMemory,
    gradients_at_once,
    ppo_networks,
    stage_memory,
    state_bytes,
)
from flows.ask.arithmetic.shapes import Shape, Shapes, shapes_of
from flows.ask.processor import advice
from flows.ask.timing.page import time_lines
from flows.config import RLHFConfig
from flows.roads import GROUPED
from tasks.dpo.config import DPOConfig
from tasks.measure.few_shot_config import FewShotConfig

UNKNOWN = "steps unknown: no data to count yet; declare dry_run.{0}"


class Unit(NamedTuple):
    """Of memory, one for the whole page."""

    name: str
    bytes: int

    def show(self, number: float) -> str:
        """With one decimal; nothing is a dash."""
        return f"{number / self.bytes:,.1f}" if number else "-"


def dry_run(config: RLHFConfig) -> None:
    """Print the arithmetic of a run.

    Raises:
        PlumblineError: a size that cannot be known, or data that cannot be read.
    """
    print(page(config), flush=True)
    print("\ntime", flush=True)
    print("\n".join(f"  {line}" for line in time_lines(config)))


def page(config: RLHFConfig) -> str:
    """The whole text."""
    rows, shapes = training_rows(config), shapes_of(config)
    state = state_bytes(ppo_networks(config, shapes))
    unit = Unit("GiB", GIB) if state >= 10 * GIB else Unit("MiB", MIB)
    sections = [
        ("training rows", data_lines(rows)),
        ("steps", step_lines(config, rows)),
        ("networks", shape_lines(shapes) + adapter_lines(config, shapes)),
        (
            f"PPO's memory per network, {unit.name} (the same in fp32 and bf16, which is autocast)",
            network_table(config, shapes, unit),
        ),
        (
            f"peak memory per stage on one device, {unit.name}; a card holds {config.dry_run.card_gib:g} GiB",
            peak_table(config, shapes, unit, rows.comparisons),
        ),
    ]
    advised = advice(config.runtime, shapes.policy.parameters)
    if advised is not None:
        sections.append(("processor", [advised]))
    head = f"Dry run: {config.tracking.run_name}; nothing is trained"
    return "\n\n".join([head, *(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections)])


def data_lines(rows: Counts) -> list[str]:
    """What each training set holds and how that is known."""
    return [f"{name.replace('_', ' '):<16}{_rows(found)}" for name, found in rows._asdict().items()]


def step_lines(config: RLHFConfig, rows: Counts) -> list[str]:
    """One line per stage, spelled so that each product can be checked by hand."""
    lines = []
    if config.pretrain.steps:
        tokens = config.pretrain.steps * config.pretrain.batch_rows * config.pretrain.row_tokens
        lines.append(f"{'pretrain':<20}{config.pretrain.steps:,} steps, {tokens:,} tokens")
    for name, knobs in config.fine_tuning_runs.items():
        if rows.demonstrations is None:
            lines.append(f"{name:<20}{UNKNOWN.format('demonstrations')}")
            continue
        count = rows.demonstrations.number
        found = fine_tuning(knobs, count)
        mixed = f" and {found.pretraining_rows:,} pretraining rows" if found.pretraining_rows else ""
        lines.append(
            f"{name:<20}{count:,} demonstrations -> {found.steps:,} steps of {knobs.batch_size}, "
            f"{_times(knobs.epochs, 'epoch')}{mixed}"
        )
    if not config.reward_model_runs:
        lines.append(f"{'reward_model':<20}none: no part of ppo.rewards asks for the run's own")
    elif rows.comparisons is None:
        lines.append(f"{'reward_model':<20}{UNKNOWN.format('comparisons')}")
    else:
        ranked = ranking(config, rows.comparisons.number, rows.comparisons.completions)
        model = config.reward_model
        lines.append(
            f"{'reward_model':<20}{rows.comparisons.number:,} rankings -> {ranked.steps:,} steps of {model.batch_size} "
            f"{model.batch_element}s, {_times(model.epochs, 'epoch')}; at most {ranked.largest_batch_pairs:,} pairs a "
            f"step, {ranked.fewest_pairs:,} to {ranked.most_pairs:,} in all"
            + (
                f"; {config.reward_ensemble} members, on {config.reward_ensemble_on}"
                if config.reward_ensemble > 1
                else ""
            )
        )
        if config.rounds > 1:
            steps = [ranking(config, number * rows.comparisons.number).steps for number in range(1, config.rounds + 1)]
            added = " + ".join(f"{count:,}" for count in steps)
            lines.append(f"{'':<20}{config.rounds} rounds, each on all rankings so far: {added} = {sum(steps):,} steps")
    all_rounds = rows.comparisons and rows.comparisons._replace(number=config.rounds * rows.comparisons.number)
    lines += [_rival_line(name, knobs, all_rounds) for name, knobs in config.preference_runs.items()]
    lines += [_sampling_line(name, config, rows.rl_prompts) for name in config.sampling_runs]
    return lines + _ppo_lines(config, rows.rl_prompts) + _prompted_lines(config.evaluation.few_shot)


def _rival_line(name: str, knobs: DPOConfig, comparisons: Rows | None) -> str:
    if comparisons is None:
        return f"{name:<20}{UNKNOWN.format('comparisons')}"
    steps = preference(knobs, comparisons.number)
    return (
        f"{name:<20}{comparisons.number:,} rankings -> {steps:,} steps of {knobs.batch_size} prompts, "
        f"{_times(knobs.epochs, 'epoch')}"
    )


def _sampling_line(name: str, config: RLHFConfig, prompts: Rows | None) -> str:
    """The control learns from the samples that rejection sampling drew."""
    if prompts is None:
        return f"{name:<20}{UNKNOWN.format('rl_prompts')}"
    knobs = config.rejection_sampling
    count = min(prompts.number, knobs.max_prompts or prompts.number)
    steps = fine_tuning(knobs.fine_tuning, count).steps
    learned = f"{count:,} responses -> at most {steps:,} steps of {knobs.batch_size}, {_times(knobs.epochs, 'epoch')}"
    if name != "rejection_sampling":
        return f"{name:<20}{learned}"
    return f"{name:<20}{count:,} prompts x {knobs.samples_per_prompt} = {count * knobs.samples_per_prompt:,} samples; {learned}"


def _ppo_lines(config: RLHFConfig, prompts: Rows | None) -> list[str]:
    ppo, counts = config.ppo, optimisation(config)
    epochs = f" x {ppo.inner_epochs} inner epochs" if ppo.inner_epochs > 1 else ""
    lines = [
        f"{'ppo':<20}{ppo.episodes:,} episodes = {counts.iterations:,} iterations of {ppo.episodes_per_iteration} x "
        f"{counts.minibatches_per_iteration} minibatches of {ppo.minibatch_size}{epochs} = {counts.optimizer_steps:,} "
        "optimizer steps"
    ]
    if config.rounds > 1:
        lines.append(
            f"{'':<20}{config.rounds} rounds: {config.rounds * ppo.episodes:,} episodes, "
            f"{config.rounds * counts.optimizer_steps:,} optimizer steps"
        )
    parts = ", ".join(f"{part.weight:g} x {part.name} ({part.kind})" for part in ppo.rewards.parts)
    if not ppo.rewards.plain:
        lines.append(f"{'':<20}reward: {parts}; rule {ppo.rewards.rule}; models in folders are not in the memory below")
    if prompts is not None:
        lines.append(f"{'':<20}{counts.prompts / prompts.number:.1f} passes over {prompts.number:,} prompts")
    if counts.pretraining_rows:
        lines.append(
            f"{'':<20}{counts.pretraining_rows:,} pretraining examples ({ppo.ptx_examples_per_episode} per episode) of "
            f"{ppo.ptx_row_tokens:,} tokens, gradients times {ppo.gamma:g}"
        )
    else:
        lines.append(f"{'':<20}no pretraining examples: gamma is 0")
    return lines + [
        f"{name:<20}{knobs.episodes:,} episodes, {knobs.responses_per_prompt} to each of "
        f"{knobs.episodes // knobs.responses_per_prompt:,} prompts; no value model"
        for name, knobs in config.ppo_runs.items()
        if name in GROUPED
    ]


def _prompted_lines(few_shot: FewShotConfig) -> list[str]:
    """The base model behind examples is no stage of training, but one more evaluation."""
    if not few_shot.asked:
        return []
    before = few_shot.file or f"at most {_times(few_shot.examples, 'demonstration')}"
    return [f"{'prompted':<20}nothing is trained: the base model behind {before}, measured once more"]


def shape_lines(shapes: Shapes) -> list[str]:
    """Sizes and where they come from."""
    policy, judge = shapes
    lines = [f"{'policy':<20}{policy.parameters:,} parameters; {_shape(policy)}"]
    scalar = f"{judge.scalar_parameters:,} parameters: the trunk and one output"
    return [*lines, f"{'reward model':<20}{scalar}; {'as the policy' if judge == policy else _shape(judge)}"]


def adapter_lines(config: RLHFConfig, shapes: Shapes) -> list[str]:
    """What PPO's adapters are, if it trains some."""
    adapter = config.ppo.adapter
    if adapter is None:
        return []
    size, count = shapes.policy.adapter_parameters(adapter), len(shapes.policy.adapted(adapter))
    return [
        f"{'adapter':<14}{size:,} parameters: rank {adapter.rank} beside {count} linear layers; policy and reference "
        "share the rest, and so do value and reward model"
    ]


def network_table(config: RLHFConfig, shapes: Shapes, unit: Unit) -> list[str]:
    """Networks down, kinds of memory across."""
    networks = ppo_networks(config, shapes)
    everything = NetworkMemory("total", *(sum(column) for column in list(zip(*networks, strict=True))[1:]))
    everything = everything._replace(gradients=gradients_at_once(networks))
    lines = [f"{'':<20}" + "".join(f"{name:>12}" for name in ("weights", "gradients", "Adam", "average", "total"))]
    for network in [*networks, everything]:
        numbers = (network.weights, network.gradients, network.adam, network.average, network.total)
        lines.append(f"{network.name:<20}" + "".join(f"{unit.show(number):>12}" for number in numbers))
    several = sum(network.gradients > 0 for network in networks) > 1
    return [*lines, *["gradients of policy and value model are never there at once: the larger counts"] * several]


def peak_table(config: RLHFConfig, shapes: Shapes, unit: Unit, comparisons: Rows | None = None) -> list[str]:
    """Stages down, precisions across; what does not fit is said."""
    lines = [f"{'':<20}{'state':>12}{'fp32 peak':>12}{'bf16 peak':>12}  on one card"]
    card = config.dry_run.card_gib * GIB
    most = comparisons.completions[1] if comparisons and comparisons.completions else None
    both = (stage_memory(config, shapes, precision, most) for precision in ("fp32", "bf16"))
    for full, half in zip(*both, strict=True):
        numbers = (full.state, full.peak, half.peak)
        shown = "".join(f"{unit.show(number):>12}" for number in numbers)
        lines.append(f"{full.stage:<20}{shown}  {_fits(full, half, card)}")
    networks = ppo_networks(config, shapes)
    if config.ppo.adapter is not None:  # whose size does not follow the model's
        return lines
    per_parameter = sum((network.total - network.gradients) / network.parameters for network in networks)
    per_parameter += max(network.gradients / network.parameters for network in networks)
    largest = card / per_parameter / 1e9
    return [
        *lines,
        f"PPO's state takes {per_parameter:g} bytes per parameter when all {len(networks)} networks have one size: "
        f"at most {largest:.1f} billion",
    ]


def _rows(rows: Rows | None) -> str:
    return "not known before data preparation" if rows is None else f"{rows.number:>10,}  ({rows.source})"


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _shape(shape: Shape) -> str:
    return f"{shape.layers} layers, width {shape.hidden:,}, vocabulary {shape.vocabulary:,} (from {shape.origin})"


def _fits(full: StageMemory, half: StageMemory, card: float) -> str:
    largest = f" (largest moment: {half.largest})" if half.largest else ""
    if full.peak <= card:
        return f"fits{largest}"
    if half.peak <= card:
        return f"fits in bf16{largest}"
    if half.state > card:
        less = "adapter=lora, runtime.frozen_precision=bf16, and runtime.processes with runtime.shard=full take less"
        return f"does not fit: the state alone is {half.state / card:.1f} cards; {less}"
    return f"does not fit: lower runtime.tokens_per_microbatch or runtime.generation_batch{largest}"
