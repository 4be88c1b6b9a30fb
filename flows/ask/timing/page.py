"""The time of a run: what was measured, and what each stage and the whole will take."""

import torch

from flows.ask.arithmetic.shapes import Shapes, network_config, shapes_of
from flows.ask.doctor.patient import Patient
from flows.ask.timing.rates import Rates, Trial, rates_here
from flows.ask.timing.schedule import Planned, planned
from flows.ask.timing.tokens import Lengths, lengths_of
from flows.ask.timing.work import START, Work, work_of
from flows.config import RLHFConfig
from flows.process import environment

MOST_ROWS = 32
"""Sampled side by side in the measurement; more rows are no slower a token."""


def time_lines(config: RLHFConfig) -> list[str]:
    """One line a stage, the whole, and what it rests on; the first time on a machine, its rates are measured.

    Raises:
        PlumblineError: a size or data that cannot be known.
    """
    if config.runtime.device.startswith("cuda") and not torch.cuda.is_available():
        return [f"not estimated: runtime.device is {config.runtime.device}, and torch sees no GPU here"]
    patient, shapes = Patient(config), shapes_of(config)
    lengths = lengths_of(patient)
    rates = rates_of(config, shapes, lengths)
    stages = stages_of(patient, shapes, lengths, rates)
    lines = [_line(group, [stage for stage in stages if stage.group == group]) for group in _groups(stages)]
    return [*lines, whole_line(config, stages), *basis(rates, lengths, shapes)]


def stages_of(patient: Patient, shapes: Shapes, lengths: Lengths, rates: Rates) -> list[Planned]:
    """Every stage with the seconds that its work takes."""
    parameters = shapes.policy.parameters
    works = work_of(patient.config, patient.rows, lengths, shapes)
    seconds = {stage: work.seconds(rates.scaled(parameters), parameters) for stage, work in works.items()}
    return planned(patient.config, seconds, Work().seconds(rates, parameters))


def rates_of(config: RLHFConfig, shapes: Shapes, lengths: Lengths) -> Rates:
    """Of this machine, on a batch shaped like the run's."""
    rows = min(config.runtime.generation_batch, config.ppo.episodes_per_iteration, MOST_ROWS)
    batch = Trial(max(1, round(lengths.asked)), max(1, round(lengths.response)), rows)
    return rates_here(network_config(config), shapes.policy.parameters, config.runtime, batch, environment.HOME)


def whole_line(config: RLHFConfig, stages: list[Planned]) -> str:
    """The whole run."""
    workers = f"{config.runtime.max_workers} stages side by side" if config.runtime.max_workers > 1 else "one by one"
    return f"{'whole run':<16}{show(max(stage.ends for stage in stages)):>10}  {workers}"


def basis(rates: Rates, lengths: Lengths, shapes: Shapes) -> list[str]:
    """What was measured, and what was taken for granted."""
    scaled = rates.scaled(shapes.policy.parameters)
    cut = "" if rates.parameters == shapes.policy.parameters else f", on {rates.parameters:,} parameters of it"
    return [
        f"measured on {rates.machine}, {rates.measured}: {rates.gflops:,.0f} GFLOP/s of a matrix product; the model reads "
        f"{1 / scaled.read:,.0f} tokens a second, trains on {1 / scaled.train:,.0f} (a batch of {rates.tokens}) and samples "
        f"{1 / scaled.sample:,.0f} ({rates.rows} rows side by side){cut}",
        f"kept in {environment.HOME / 'rates.json'}; delete it to measure again",
        f"taken for granted: prompts of {lengths.asked:.0f} and responses of {lengths.response:.0f} tokens, as in the data; "
        f"nothing found in the store, {START:g} s of each stage for what is no token, no other program on the machine",
    ]


def show(seconds: float) -> str:
    """In the largest unit that leaves more than one."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _groups(stages: list[Planned]) -> list[str]:
    return list(dict.fromkeys(stage.group for stage in stages))


def _line(group: str, stages: list[Planned]) -> str:
    times = f" x {len(stages)}" if len(stages) > 1 else ""
    return f"{group:<16}{show(sum(stage.seconds for stage in stages)):>10}{times}"
