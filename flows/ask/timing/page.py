"""The time of a run: what was measured, and what each stage and the whole will take."""

import os

from flows.ask.arithmetic.shapes import Shapes, shapes_of
from flows.ask.doctor.patient import Patient
from flows.ask.timing.before import written_before
from flows.ask.timing.rates import MOVED, REACHED, Rates, Trial, declared
from flows.ask.timing.schedule import Planned, StageKind, planned
from flows.ask.timing.tokens import Lengths, lengths_of
from flows.ask.timing.work import START, Work, work_of
from flows.config import RLHFConfig
from flows.process import environment
from tasks.engine.config import AdapterConfig, RuntimeConfig

GROWING = "reward_model"
"""The group that learns, in each round, from the rankings of all rounds so far."""
MOST_ROWS = 32
"""Sampled side by side in the measurement; more rows are no slower a token."""


def time_lines(config: RLHFConfig) -> list[str]:
    """One line a stage, the whole, and what it rests on; the first time on a machine, its rates are measured.

    Raises:
        PlumblineError: a size or data that cannot be known.
    """
    patient, shapes = Patient(config), shapes_of(config)
    of_data, measured = lengths_of(patient), written_before(config)
    lengths = of_data if measured is None else of_data._replace(written=measured)
    if measured is not None:
        known = "as earlier runs in this store sampled from this PPO-init"
    elif config.data_prep.source == "sandbox" or patient.sample is not None:
        known = "as long as the demonstrations'"
    else:
        known = "half of what is allowed, as prompts too, for there is no data to measure yet"
    rates = rates_of(config, shapes, of_data)
    expected, most = (stages_of(patient, shapes, each, rates) for each in (lengths, longest(config, lengths)))
    lines = [f"{'':<16}{'expected':>10}{'at most':>10}"]
    for group in dict.fromkeys(stage.group for stage in expected):
        some, others = ([stage for stage in stages if stage.group == group] for stages in (expected, most))
        times = f"  {len(some)} of them" if len(some) > 1 else ""
        lines.append(_line(group, *(sum(stage.seconds for stage in stages) for stages in (some, others))) + times)
    workers = f"{config.runtime.max_workers} stages side by side" if config.runtime.max_workers > 1 else "one by one"
    whole = _line("whole run", *(max(stage.ends for stage in stages) for stages in (expected, most)))
    return [*lines, f"{whole}  {workers}", *basis(config, rates, lengths, known, shapes)]


def longest(config: RLHFConfig, lengths: Lengths) -> Lengths:
    """The same if no policy ever ends a response."""
    return lengths._replace(written=float(config.ppo.response_tokens))


def stages_of(patient: Patient, shapes: Shapes, lengths: Lengths, rates: Rates) -> list[Planned]:
    """Every stage with the seconds that its work takes."""
    parameters = shapes.policy.parameters
    works = work_of(patient.config, patient.rows, lengths, shapes)
    scaled, ranks = rates.scaled(parameters), ranks_of(patient.config.runtime)

    def seconds(kind: StageKind) -> float:
        of_group = works.get(kind.group, Work())
        work = (
            works.get(f"{kind.group}-{kind.about}", works.get(f"{kind.group}-", of_group)) if kind.about else of_group
        )
        work = work.times(kind.round) if kind.group == GROWING else work
        return work.seconds(scaled, parameters, ranks if kind.divided else 1)

    return planned(patient.config, seconds)


def ranks_of(runtime: RuntimeConfig) -> int:
    """Processes of one stage that have a device, or the cores for their threads, to themselves; GPUs that are not here are
    taken to be as many as asked for.
    """
    cuda = runtime.device.startswith("cuda")
    there = gpus_here() or runtime.processes if cuda else (os.cpu_count() or 1) // runtime.threads
    return max(1, min(runtime.processes, there))


def gpus_here() -> int:
    """That torch sees."""
    import torch

    return torch.cuda.device_count()


def rates_of(config: RLHFConfig, shapes: Shapes, lengths: Lengths) -> Rates:
    """Of this machine, on a batch shaped like the run's; of a GPU that is not here, from its data sheet."""
    if config.runtime.device.startswith("cuda") and not gpus_here():
        return card_rates(config, shapes)
    from flows.ask.arithmetic.networks import network_config
    from flows.ask.timing.measuring import MeasuredModel, rates_here

    rows = min(config.runtime.generation_batch, config.ppo.episodes_per_iteration, MOST_ROWS)
    batch = Trial(max(1, round(lengths.asked)), max(1, round(lengths.response)), rows)
    learner = MeasuredModel(network_config(config), shapes.policy.parameters, adapter_of(config))
    return rates_here(learner, config.runtime, batch, environment.HOME)


def card_rates(config: RLHFConfig, shapes: Shapes) -> Rates:
    """Of the card that ``dry_run`` declares, on which each rank samples its part of PPO's rows."""
    card, runtime = config.dry_run, config.runtime
    rows = max(1, min(runtime.generation_batch, config.ppo.episodes_per_iteration // runtime.processes))
    return declared(shapes.policy.parameters, runtime, rows, card.card_tflops, card.card_gb_s)


def adapter_of(config: RLHFConfig) -> AdapterConfig | None:
    """The first that a stage trains."""
    stages = (config.ppo, config.sft, config.ppo_init, config.reward_model, config.dpo)
    return next((stage.adapter for stage in stages if stage.adapter is not None), None)


def basis(config: RLHFConfig, rates: Rates, lengths: Lengths, known: str, shapes: Shapes) -> list[str]:
    """What was measured, and what was taken for granted."""
    scaled, adapter = rates.scaled(shapes.policy.parameters), ""
    if adapter_of(config) is not None:
        adapter = f"; with the adapter it trains on {1 / scaled.adapted_train:,.0f} and samples {1 / scaled.adapted_sample:,.0f}"
    ranks, divided = ranks_of(config.runtime), ""
    if config.runtime.processes > 1:
        divided = f"; {ranks} processes at work on one stage" + (
            "" if ranks == config.runtime.processes else f", not {config.runtime.processes}: there is no room for more"
        )
    cut = "" if rates.parameters == shapes.policy.parameters else f", on {rates.parameters:,} parameters of it"
    if rates.measured:
        source = [
            f"measured on {rates.machine}, {rates.measured}: {rates.gflops:,.0f} GFLOP/s of a matrix product; the model reads "
            f"{1 / scaled.read:,.0f} tokens a second, trains on {1 / scaled.train:,.0f} (a batch of {rates.tokens}) and samples "
            f"{1 / scaled.sample:,.0f} ({rates.rows} rows side by side){adapter}{cut}",
            f"kept in {environment.HOME / 'rates.json'}; delete it to measure again",
        ]
    else:
        shares = f"{REACHED:.0%} of its operations and {MOVED:.0%} of its memory's rate"
        source = [
            f"nothing measured, torch sees no GPU here: {rates.machine} (dry_run.card_tflops, dry_run.card_gb_s) that reaches "
            f"{shares}; the model reads {1 / scaled.read:,.0f} tokens a second, trains on {1 / scaled.train:,.0f} and samples "
            f"{1 / scaled.sample:,.0f} ({rates.rows} rows side by side){adapter}; what ranks exchange is not counted",
        ]
    return [
        *source,
        f"expected: sampled responses of {lengths.written:.0f} tokens, {known}; at most: "
        f"{config.ppo.response_tokens}, as a policy writes that never ends one (data_prep.response_tokens)",
        f"taken for granted: prompts of {lengths.asked:.0f} tokens, nothing found in the store, {START:g} s of each stage for "
        f"what is no token, no other program on the machine{divided}",
    ]


def show(seconds: float) -> str:
    """In the largest unit that leaves more than one."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _line(group: str, expected: float, most: float) -> str:
    return f"{group:<16}{show(expected):>10}{show(most):>10}"
