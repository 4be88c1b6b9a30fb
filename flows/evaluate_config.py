"""The configuration of an evaluation on its own."""

import shlex
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, ValidationError

from flows.complaints import describe
from flows.evaluation_config import EvaluationConfig
from flows.misspelt import missing_keys
from flows.run.reproduce import is_place
from flows.tracking_config import TrackingConfig
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.job import DataPrepJob
from tasks.engine.config import Config, ModelConfig, RuntimeConfig
from tasks.engine.errors import ConfigError

GIVEN = ("policy", "baseline", "data", "reward_model", "seed")


class EvaluateConfig(Config):
    """One policy, measured."""

    policy: str
    """Hugging Face model folder."""
    baseline: str | None
    """Model folder that the policy is compared with; null takes the SFT policy of the run in ``data``, else the policy
    itself."""
    data: str | None
    """MLflow run of a pipeline, or key of a prepared data set in the store; null prepares ``data_prep``."""
    reward_model: str | None
    """Folder of a reward model that judges; null takes the run's, else none."""
    seed: int = Field(ge=0)
    """Seed of sampling and of intervals."""
    data_prep: DataPrepConfig | None
    """Read when ``data`` is null."""
    evaluation: EvaluationConfig
    """What is measured, who judges, and the budget."""
    runtime: RuntimeConfig
    """Device, precision, parallelism."""
    tracking: TrackingConfig
    """Artifact store and MLflow."""

    @property
    def data_prep_job(self) -> DataPrepJob:
        """Data preparation with the policy's own tokenizer."""
        assert self.data_prep is not None, "parse_evaluate keeps data_prep when data is null"
        model = ModelConfig(
            name_or_path=self.policy,
            revision=None,
            context_tokens=self.evaluation.prompt_tokens + self.evaluation.response_tokens,
            architecture=None,
            tokenizer=None,
        )
        return DataPrepJob(data_prep=self.data_prep, model=model, documents_for=[])


def parse_evaluate(values: DictConfig) -> EvaluateConfig:
    """Validate what Hydra composed; ``data_prep`` is left unread when ``data`` names prepared data.

    Raises:
        ConfigError: unknown or missing keys, wrong types or values, each with its full path.
    """
    missing = missing_keys(values)
    if values.get("data") is not None:
        missing = [key for key in missing if not key.startswith("data_prep.")]
    if missing:
        key = missing[0]
        raise ConfigError(f"{key}: no value, and none can be guessed; give one on the command line: {key}=...")
    plain: Any = OmegaConf.to_container(values, resolve=True)
    del plain["model"]  # only conf/ computes with it
    if plain["data"] is not None:
        plain["data_prep"] = None
    try:
        return EvaluateConfig.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(describe(error, values, "evaluate")) from None


def evaluate_command(config: EvaluateConfig) -> str:
    """The command line of this evaluation: what was typed, places and speed apart; without one, what names its inputs."""
    if HydraConfig.initialized():
        typed = [item for item in HydraConfig.get().overrides.task if not is_place(item)]
        return shlex.join(["python", "-m", "flows.evaluate", *typed])
    given = {name: getattr(config, name) for name in GIVEN}
    return shlex.join(
        ["python", "-m", "flows.evaluate", *(f"{name}={value}" for name, value in given.items() if value is not None)]
    )


def evaluate_results(config: EvaluateConfig) -> dict[str, Any]:
    """The configuration without places and speed."""
    return config.model_dump(mode="json", exclude={"runtime", "tracking"})
