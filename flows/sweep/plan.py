"""What Hydra is about to launch, read from its composed configuration before the first point starts."""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from flows.ask.preflight import TOLD, check
from flows.config import RLHFConfig, load
from tasks.engine.errors import ConfigError, PlumblineError

GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


class SweepPlan(NamedTuple):
    """The points of a sweep."""

    folder: Path
    knobs: list[str]
    points: list[list[str]]
    """Overrides of every point; empty when the sweeper chooses them as it goes."""
    expected: int
    config: RLHFConfig
    """What all points share; the swept keys have the first point's values, or their own when there is none yet."""


def read_plan(config: DictConfig, config_name: str) -> SweepPlan:
    """Find the points, and check every one of them before anything starts.

    Raises:
        ConfigError: a point's configuration is invalid, ``tracking`` differs between points, or the objectives do not
            fit the sweeper.
        PlumblineError: the preflight of a point found something.
    """
    hydra = config.hydra
    sweeper: Any = OmegaConf.to_container(hydra.sweeper, resolve=True)
    overrides = _overrides(config)
    knobs = [key for key, item in overrides.items() if item.is_sweep_override()]
    fixed = [str(item.input_line) for item in overrides.values() if not item.is_sweep_override()]
    points = _grid(list(overrides.values())) if sweeper["_target_"] == GRID else []
    ends = [] if points else _ends(overrides.values())
    _side_by_side(hydra)
    TOLD.clear()
    checked = [_checked(point, config_name) for point in points or [fixed, *([*fixed, end] for end in ends)]]
    if not points:
        _between(overrides.values(), fixed, config_name)
    _one_place(checked)
    if sweeper["_target_"] == OPTUNA:
        _objectives_fit(checked[0], sweeper)
        _quiet_optuna()
    return SweepPlan(
        folder=Path(str(hydra.sweep.dir)).absolute(),
        knobs=knobs,
        points=points,
        expected=len(points) or int(sweeper.get("n_trials") or 0),
        config=checked[0],
    )


def grid_of(config: DictConfig, config_name: str) -> list[list[str]]:
    """The points of a grid, each with a configuration that is valid; what it needs is not looked for.

    Raises:
        ConfigError: a key has no single values, or one of them twice, or a value that it cannot have.
    """
    points = _grid(list(_overrides(config).values()))
    for point in points:
        load(point, config_name)
    return points


def _overrides(config: DictConfig) -> dict[str, Override]:
    hydra = config.hydra
    written = [f"{key}={value}" for key, value in (OmegaConf.select(hydra, "sweeper.params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    found = parser.parse_overrides([*written, *hydra.overrides.task])
    return {item.get_key_element().lstrip("+"): item for item in found}


def _side_by_side(hydra: DictConfig) -> None:
    """Points at a time; joblib takes -1 for every core, and ends in a traceback for 0."""
    jobs = OmegaConf.select(hydra, "launcher.n_jobs")
    if jobs == 0:
        raise ConfigError(
            "hydra.launcher.n_jobs: found 0, expected the points at a time, or -1 for as many as cores; set 1 or more"
        )


def _grid(overrides: Sequence[Override]) -> list[list[str]]:
    """Every combination, in the order in which Hydra's own sweeper runs them."""
    choices = []
    for item in overrides:
        key = item.get_key_element()
        if item.is_sweep_override():
            if not item.is_discrete_sweep():
                raise ConfigError(
                    f"{item.input_line}: a grid needs single values; list them, or search with search=beta_gamma"
                )
            values = list(item.sweep_string_iterator())
            if twice := [value for value, times in Counter(values).items() if times > 1]:
                raise ConfigError(f"{item.input_line}: found {twice[0]} twice; give each value once")
            choices.append([f"{key}={value}" for value in values])
        else:
            choices.append([f"{key}={item.get_value_element_as_str()}"])
    return [list(point) for point in itertools.product(*choices)]


def _ends(overrides: Iterable[Override]) -> list[str]:
    """Where the intervals of a search begin and end: what is valid there is valid between.

    Raises:
        ConfigError: an interval that no sampler can draw from; Optuna would end in a traceback, with an empty sweep behind it.
    """
    found = []
    for item in overrides:
        space = item.value()
        if isinstance(space, IntervalSweep):
            start, end = float(space.start or 0), float(space.end or 0)
            if not start < end or ("log" in space.tags and start <= 0):
                least = "a log scale begins above 0" if start < end else "the lower end comes first"
                raise ConfigError(f"{item.input_line}: found an interval from {start:g} to {end:g}; {least}")
            found += [f"{item.get_key_element().lstrip('+')}={bound}" for bound in (space.start, space.end)]
    return found


def _between(overrides: Iterable[Override], fixed: Sequence[str], config_name: str) -> None:
    """Hydra's intervals are of fractions; a knob of whole numbers would accept the ends and refuse every trial.

    Raises:
        ConfigError: a value between the ends is refused.
    """
    for item in overrides:
        space = item.value()
        if isinstance(space, IntervalSweep) and isinstance(space.start, float):
            start, end = float(space.start), float(space.end or 0)
            try:
                _checked(
                    [*fixed, f"{item.get_key_element().lstrip('+')}={start + 0.4321 * (end - start)}"], config_name
                )
            except PlumblineError as error:
                whole = f"int(interval({start:g},{end:g}))"
                told = " ".join(str(error).split())
                raise ConfigError(f"{item.input_line}: {told}; for whole numbers write {whole}") from None


def _checked(point: Sequence[str], config_name: str) -> RLHFConfig:
    config = load(list(point), config_name)
    check(config, TOLD)
    return config


def _one_place(configs: Sequence[RLHFConfig]) -> None:
    tracked = [config.tracking for config in configs]
    places = {(tracking.folder, tracking.store, tracking.uri, tracking.experiment) for tracking in tracked}
    if len(places) > 1:
        raise ConfigError(
            f"tracking: the points name {len(places)} different places, expected one; a sweep shares its artifact store and "
            "its MLflow experiment, so sweep other keys"
        )


def _objectives_fit(config: RLHFConfig, sweeper: dict[str, Any]) -> None:
    given = sweeper["direction"]
    names = [getattr(item, "name", str(item)) for item in (given if isinstance(given, list) else [given])]
    if names != config.sweep.directions:
        raise ConfigError(
            f"hydra.sweeper.direction is {names}, but sweep.returns is {config.sweep.returns}, which needs "
            f"{config.sweep.directions}; change one of them"
        )
    if int(sweeper["n_trials"]) < 1:
        raise ConfigError(
            f"hydra.sweeper.n_trials: found {sweeper['n_trials']}, expected at least 1; it counts the points"
        )
    if not 0 < float(sweeper["max_failure_rate"]) <= 1 or not math.isfinite(float(sweeper["n_trials"])):
        raise ConfigError(
            f"hydra.sweeper.max_failure_rate is {sweeper['max_failure_rate']}: the first failing point would end the search; "
            "give a share above 0 and at most 1"
        )


def _quiet_optuna() -> None:
    """Its lines about every trial would tear the table apart."""
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
