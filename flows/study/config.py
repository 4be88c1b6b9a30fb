"""What the knobs of the study mean; their values live in ``conf/study``."""

import re
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import Field, ValidationError, field_validator, model_validator

from flows.complaints import describe
from flows.roads import Rival
from tasks.engine.config import Config
from tasks.engine.errors import ConfigError


class ReferenceConfig(Config):
    """The policy that every sweep is compared with."""

    beta: float = Field(gt=0)
    """Its price of KL."""
    gamma: float = Field(gt=0)
    """Its weight of the pretraining gradient."""


class RulesConfig(Config):
    """How intervals become verdicts."""

    confidence: float = Field(gt=0.5, lt=1)
    """Coverage of every interval over seeds (Student's t)."""
    fewest_seeds: int = Field(ge=2)
    """A claim with fewer seeds counts as not measured."""
    gold_cost: float = Field(ge=0)
    """A loss of gold score up to this is no more than the noise of one policy measured twice; gold points."""
    benchmark_cost: float = Field(ge=0)
    """A benchmark mean this far below the base model still counts as recovered; share."""
    accuracy_cost: float = Field(ge=0)
    """Accuracy on held-out labelers may lie this far below that on known ones; share."""
    fit_from_kl: float = Field(gt=0)
    """Points nearer to the start than this KL are left out of the fits; nats."""
    turn_window: int = Field(ge=2)
    """Neighbouring PPO iterations that are averaged before looking for the highest gold score."""


class GridConfig(Config):
    """Which points there are. An empty list, or 0 epochs, leaves its finding out."""

    gammas: list[float]
    """Weights of the pretraining gradient, at the reference beta."""
    betas_without_ptx: list[float]
    """Prices of KL at gamma = 0."""
    betas_with_ptx: list[float]
    """Prices of KL at the reference gamma."""
    overoptimised_beta: float = Field(ge=0)
    """The point of betas_without_ptx whose training curve is searched for over-optimisation."""
    comparison_prompts: list[int]
    """Ranked prompts that reward models are trained on, all pairs of a prompt in one batch element."""
    pair_prompts: list[int]
    """Those of comparison_prompts at which a reward model is also trained on shuffled pairs."""
    pairs_per_step: int = Field(gt=0)
    """Batch size of the shuffled pairs."""
    sft_epochs: int = Field(ge=0)
    """Epochs of a long SFT whose every epoch is scored."""
    roads: list[Rival]
    """Other roads from PPO's start, beside PPO-ptx and PPO at the reference beta."""
    brakes: list[Literal["warn", "beta", "rollback", "stop"]]
    """Actions of ppo.brake, each on an over-optimised run and on the reference point."""
    braked_beta: float = Field(ge=0)
    """Price of KL of the over-optimised run, at gamma = 0; read with brakes."""
    braked_episodes: int = Field(gt=0)
    """Its length; read with brakes."""
    braked_seeds: int = Field(gt=0)
    """It is repeated with the first so many seeds; read with brakes."""
    ablations: dict[str, list[str]]
    """Name -> overrides of the pipeline, on top of the reference point."""

    @field_validator("gammas", "betas_without_ptx", "betas_with_ptx", "comparison_prompts", "pair_prompts")
    @classmethod
    def _rising(cls, values: list[float]) -> list[float]:
        if sorted(set(values)) != values or (values and values[0] < 0):
            raise ValueError(f"found {values}; list each value once, in rising order, none below 0")
        return values

    @field_validator("ablations")
    @classmethod
    def _nameable(cls, ablations: dict[str, list[str]]) -> dict[str, list[str]]:
        for name in ablations:
            if not re.fullmatch(r"[\w .:/-]+", name):
                raise ValueError(f"found {name!r}; MLflow takes letters, digits, spaces and _-.:/ in a name")
        return ablations


class StudyConfig(Config):
    """One study."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Folder of its page."""
    seeds: list[int] = Field(min_length=1)
    """Every point is repeated with each; a seed is another world and other models."""
    workers: int = Field(gt=0)
    """Points side by side, each in a process that uses one core."""
    only_page: bool
    """Run nothing; write the page from the points that exist."""
    experiment: str
    """MLflow experiment of the study and its points."""
    size: list[str]
    """Overrides of conf/rlhf.yaml in every point that set how large its pipeline is."""
    overrides: list[str]
    """Further overrides of conf/rlhf.yaml in every point."""
    reference: ReferenceConfig
    """What the sweeps are compared with."""
    rules: RulesConfig
    """How intervals become verdicts."""
    grid: GridConfig
    """Which points there are."""

    @model_validator(mode="after")
    def _grid_holds_what_is_compared(self) -> "StudyConfig":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: found {self.seeds}; give each once, a repetition needs a seed of its own")
        grid, reference = self.grid, self.reference
        for name, values, needed in (
            ("grid.gammas", grid.gammas, [0.0, reference.gamma]),
            ("grid.betas_without_ptx", grid.betas_without_ptx, [grid.overoptimised_beta, reference.beta]),
            ("grid.betas_with_ptx", grid.betas_with_ptx, [0.0, reference.beta]),
            ("grid.comparison_prompts", grid.comparison_prompts, grid.pair_prompts),
        ):
            missing = [value for value in needed if value not in values]
            if values and missing:
                raise ValueError(f"{name}: found {values}, which lacks {missing}; the comparison needs it")
        if grid.betas_with_ptx and grid.betas_with_ptx[-1] <= reference.beta:
            raise ValueError(
                f"grid.betas_with_ptx: found {grid.betas_with_ptx}, none above reference.beta ({reference.beta:g}); "
                "the question is whether both ends are worse"
            )
        if grid.pair_prompts and not grid.comparison_prompts:
            raise ValueError("grid.pair_prompts needs the same numbers in grid.comparison_prompts; found none")
        return self


def parse_study(values: DictConfig | dict[str, Any]) -> StudyConfig:
    """Validate what Hydra composed.

    Raises:
        ConfigError: unknown or missing keys, wrong types or values, each with its full path.
    """
    try:
        plain = OmegaConf.to_container(values, resolve=True) if isinstance(values, DictConfig) else values
        return StudyConfig.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(describe(error, values, "study").replace("flows.rlhf", "flows.study")) from None
